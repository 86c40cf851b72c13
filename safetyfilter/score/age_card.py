"""The part of a probe's card that tells of ages: the cut, what was left out, and the recall by band."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeBand:
    """Held-out figures of the samples between two ages.

    Attributes
    ----------
    start : float
        The age in years from which the band goes.
    end : float or None
        The age before which it ends; None for the last.
    present : bool
        True below the cut.
    trained_on : bool
        False in the gap around the cut, whose samples are only measured.
    samples : int
        Samples in it.
    found : mapping of str to float
        The share whose score reaches the threshold at which the named share of all positives is found: the band's
        recall where `present`, else the share wrongly taken for positive.

    Examples
    --------
    >>> AgeBand(start=14, end=16, present=True, samples=50, found={"0.9": 0.82}).years, AgeBand(start=70).years
    ('14 to 16', '70 and more')
    """

    start: float
    end: float | None = None
    present: bool = False
    trained_on: bool = True
    samples: int = 0
    found: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = (self.start, 0 if self.end is None else self.end, self.samples, *self.found.values())
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError("a band of ages has figures that are not numbers")

    @property
    def years(self) -> str:
        """The ages in words; the second of two is not in the band."""
        return f"{self.start:g} and more" if self.end is None else f"{self.start:g} to {self.end:g}"

    @property
    def label(self) -> str:
        """The label in words, for a table."""
        return ("present" if self.present else "absent") + ("" if self.trained_on else ", not trained on")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeCard:
    """The ages that a probe was trained on.

    Attributes
    ----------
    below, gap : float
        The cut in years, and the years on either side of it that were left out.
    in_gap, not_ages, without_age : int
        Samples not trained on: with an age in the gap, with something that is not one, and with none.
    bands : tuple of AgeBand
        In ascending order; those without a sample are left out.
    """

    below: float
    gap: float = 0
    in_gap: int = 0
    not_ages: int = 0
    without_age: int = 0
    bands: tuple[AgeBand, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the card that `dataclasses.asdict` gave; TypeError or ValueError where it is none.

        >>> AgeCard.from_dict({"below": 18, "bands": [{"start": 0, "end": 3}]}).bands[0].years
        '0 to 3'
        """
        card = cls(**{**data, "bands": tuple(AgeBand(**band) for band in data.get("bands", ()))})
        numbers = (card.below, card.gap, card.in_gap, card.not_ages, card.without_age)
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError("a card tells of ages in something else than numbers")
        return card
