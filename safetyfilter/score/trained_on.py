"""The looks of the pictures that a probe was trained on, and warnings where it is to score others."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Protocol, Self, runtime_checkable

from safetyfilter.score.probe import Probe

_log = logging.getLogger(__name__)

_SERVES = {"multi": ("adaptive",)}
"""Views, and others that a probe trained on them serves too: ``adaptive`` looks at the crops of ``multi``, or at none;
what that loses is the gate's to say."""

_REMEDY = {"views": "--views", "decode": "--decode", "precision": "--precision"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """The way in which the pictures of embeddings were prepared and embedded, as a run's record says it.

    Attributes
    ----------
    views : str
        The views of each picture, such as ``whole`` or ``multi``; empty where nothing says which.
    decode : str
        How pictures were decoded, ``fast`` or ``exact``; empty where nothing says how.
    precision : str
        That in which they were embedded, such as ``float32``; empty where nothing says which.

    Raises
    ------
    TypeError
        A value is not a text.

    Examples
    --------
    >>> TrainedOn(views="whole", decode="fast").in_words
    'views whole, decode fast'
    """

    views: str = ""
    decode: str = ""
    precision: str = ""

    def __post_init__(self) -> None:
        for name, value in self.items():
            if not isinstance(value, str):
                raise TypeError(f"{name} is {value!r}; give a text, such as a run's record has it, or an empty one")

    def items(self) -> Iterator[tuple[str, str]]:
        """Return the names of the values, with what is known of them."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    @property
    def in_words(self) -> str:
        """All that is known, in words; empty where nothing is."""
        return ", ".join(f"{name} {value}" for name, value in self.items() if value)

    def differing(self, used: TrainedOn) -> list[str]:
        """Return the names of the values in which `used` differs; one that is not known on both sides is no difference.

        >>> TrainedOn(views="multi", decode="fast").differing(TrainedOn(views="adaptive", decode="exact"))
        ['decode']
        """
        return [
            name
            for name, value in self.items()
            if value and (now := getattr(used, name)) and now != value and now not in _SERVES.get(value, ())
        ]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `dataclasses.asdict` gave; TypeError where it is not that."""
        return cls(**data)


@runtime_checkable
class TellsTraining(Protocol):
    """A probe that says what it was trained on."""

    @property
    def trained_on(self) -> TrainedOn:
        """The looks of the pictures that it was trained on."""


def differences(probes: Iterable[Probe], used: TrainedOn) -> list[str]:
    """Return a sentence for each way in which pictures differ from those that probes were trained on.

    Parameters
    ----------
    probes : iterable of Probe
        One that says nothing of its training, as a zero-shot one or a published detector, differs in nothing.
    used : TrainedOn
        How the pictures look that they are to score.

    Examples
    --------
    >>> import numpy as np
    >>> from safetyfilter.score.card import ProbeCard
    >>> from safetyfilter.score.linear import LinearProbe
    >>> card = ProbeCard(method="logistic-regression", trained_on=TrainedOn(views="whole"))
    >>> probe = LinearProbe(signal="minor", weight=np.float32([1]), bias=0, encoder="e", card=card)
    >>> differences([probe], TrainedOn(views="multi"))
    ["the probe for 'minor' was trained on pictures with the views 'whole', and is used with the views 'multi': its \
scores, and thresholds that were found for them, may not hold; use it with --views whole, or train it on a run made \
with --views multi --keep-embeddings"]
    """
    found: dict[tuple[str, str], list[str]] = {}
    for probe in probes:
        if isinstance(probe, TellsTraining):
            for name in probe.trained_on.differing(used):
                signals = found.setdefault((name, getattr(probe.trained_on, name)), [])
                signals += [probe.signal] * (probe.signal not in signals)
    return [_sentence(signals, name, value, getattr(used, name)) for (name, value), signals in found.items()]


def warn_of_differences(probes: Iterable[Probe], used: TrainedOn) -> None:
    """Tell of `differences` in the log, of each once a process."""
    for sentence in differences(probes, used):
        _warn(sentence)


@cache
def _warn(sentence: str) -> None:
    _log.warning("%s", sentence)


def _sentence(signals: list[str], name: str, then: str, now: str) -> str:
    option, called = _REMEDY[name], {"views": "the views", "decode": "the decoding", "precision": "the precision"}[name]
    subject, verb = ("probe", "was") if len(signals) == 1 else ("probes", "were")
    train_on = "multi" if now == "adaptive" else now  # which shows all crops of every picture
    its, it, use = ("its", "it", "is") if len(signals) == 1 else ("their", "them", "are")
    return (
        f"the {subject} for {' and '.join(map(repr, signals))} {verb} trained on pictures with {called} {then!r}, and "
        f"{use} used with {called} {now!r}: {its} scores, and thresholds that were found for them, may not hold; use "
        f"{it} with {option} {then}, or train {it} on a run made with {option} {train_on} --keep-embeddings"
    )
