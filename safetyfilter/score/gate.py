"""The gate of ``views="adaptive"``: the pictures in which signals are clearly absent are not looked at closer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Floats
from safetyfilter.errors import UsageError
from safetyfilter.signals import PAIR, SignalPair

if TYPE_CHECKING:
    from safetyfilter.embed.crops import Closer
    from safetyfilter.score.bank import ProbeBank

When: TypeAlias = Literal["either", "both"]

FLOOR_RECALL = "0.999"
"""The recall, by its name in a probe's card, whose threshold is the floor where none is given."""
_FORM = "such as explicit=0.02,minor=0.02"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Says by the scores of whole pictures which of them are to be looked at closer.

    A signal is clearly absent from a picture when the score of the whole picture is below the signal's floor. What a
    gate passes over is lost to the crops, whatever they would have shown: a floor is chosen on labelled pictures.

    Parameters
    ----------
    floors : mapping of str to float
        Signal -> floor in [0, 1]; for both signals of the pair, in their own names or in those of the real pair. 0 for
        a signal that is never clearly absent.
    when : str
        ``either``: look closer where at least one of the signals is not clearly absent; ``both``: where none of them
        is.

    Raises
    ------
    UsageError
        A value is not one of those allowed.

    Examples
    --------
    >>> gate = Gate(floors={"explicit": 0.1, "minor": 0.2})
    >>> gate.closer(np.float32([[0.05, 0.1], [0.1, 0.1], [0.5, 0.5]]), ("explicit", "minor")).tolist()
    [False, True, True]
    """

    floors: Mapping[str, float]
    when: When = "either"

    def __post_init__(self) -> None:
        floors = dict(self.floors)
        for signal, floor in floors.items():
            number = isinstance(floor, int | float | np.floating) and not isinstance(floor, bool)
            if not number or not 0 <= floor <= 1:
                raise UsageError(f"the floor of {signal!r} is {floor!r}; give a number from 0 to 1")
        if len(floors) < 2:
            raise UsageError(f"a gate needs a floor for both signals of the pair, {_FORM}, and has {sorted(floors)}")
        if self.when not in get_args(When):
            raise UsageError(f"when is {self.when!r}; choose one of {', '.join(get_args(When))}")
        ascending = {signal: float(floors[signal]) + 0.0 for signal in sorted(floors)}  # and 0.0 for -0.0
        object.__setattr__(self, "floors", MappingProxyType(ascending))

    def __reduce__(self) -> tuple[object, ...]:
        return (_gate, (dict(self.floors), self.when))  # a mapping proxy can't be pickled

    @classmethod
    def of(cls, probes: ProbeBank, when: When = "either") -> Gate:
        """Return the gate of probes, whose floors are those at which each found nearly all positives when trained.

        That is the cross-validated threshold for 99.9 % of them, in the probe's card, on the score of the whole
        picture, also of a probe that was trained on several views; of several probes of a signal the lowest.

        Raises
        ------
        UsageError
            A probe of the pair has no such threshold, as zero-shot probes and published detectors.
        """
        floors: dict[str, float] = {}
        for probe in probes.probes:
            if probe.signal not in probes.pair.names:
                continue
            card = getattr(probe, "card", None)
            known = (getattr(card, "whole_thresholds", {}) or getattr(card, "thresholds", {})).get(FLOOR_RECALL)
            if known is None:
                raise UsageError(
                    f"views='adaptive' needs to know below which score {probe.signal!r} is clearly absent, and a probe "
                    "for it has no such floor: its card tells of no labelled positives. Give gate=Gate(floors=...) "
                    f"(--gate, {_FORM}), chosen on labelled pictures"
                )
            floors[probe.signal] = min(known, floors.get(probe.signal, 1.0))
        return cls(floors=floors, when=when)

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Return the gate that a text of the command line names.

        Raises
        ------
        UsageError
            It is not of the form, or a floor is not a number from 0 to 1.

        Examples
        --------
        >>> Gate.parse("minor=0.02,explicit=0.1").text, Gate.parse("both:explicit=0.1,minor=0.1").when
        ('either:explicit=0.1,minor=0.02', 'both')
        """
        when, colon, listed = text.rpartition(":")
        floors: dict[str, float] = {}
        for part in listed.split(","):
            signal, equals, floor = (each.strip() for each in part.partition("="))
            try:
                value = float(floor)
            except ValueError:
                value = float("nan")
            if not signal or not equals or value != value or signal in floors:
                raise UsageError(f"the gate is {text!r}; give a floor from 0 to 1 for each signal, {_FORM}")
            floors[signal] = value
        return cls(floors=floors, when=when if colon else "either")  # type: ignore[arg-type]  # checked there

    @property
    def text(self) -> str:
        """The gate as a text that `parse` reads back."""
        return f"{self.when}:" + ",".join(f"{signal}={floor!r}" for signal, floor in self.floors.items())

    def for_probes(self, probes: ProbeBank) -> Gate:
        """Return the gate in the names of the probes' own pair.

        Raises
        ------
        UsageError
            It has no floor for a signal of the pair, or one for a signal that nothing scores; or the probes need
            captions, which a gate has not.
        """
        if probes.inputs != "image":
            raise UsageError(
                "views='adaptive' looks at the embeddings of pictures alone, and these probes judge them with their "
                "captions; choose other probes, or views='multi' (--views multi)"
            )
        pair = probes.pair
        names = dict(zip(PAIR.names, pair.names, strict=True)) if _in_names_of(PAIR, self.floors) else {}
        floors = {names.get(signal, signal): floor for signal, floor in self.floors.items()}
        missing = [signal for signal in pair.names if signal not in floors]
        if missing or (unknown := sorted(set(floors) - set(probes.signals))):
            what = f"no floor for {missing}" if missing else f"a floor for {unknown}, which no probe scores"
            raise UsageError(
                f"the gate has {what}; give a floor for each of {list(pair.names)}, and for others of the signals "
                f"scored ({', '.join(probes.signals)}) where these count too"
            )
        return Gate(floors=floors, when=self.when)

    def closer(self, scores: Floats, signals: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return (N,) bool, True for each picture to be looked at closer; a score that is NaN is not clearly absent.

        Parameters
        ----------
        scores : ndarray
            (N, S) float32, the scores of whole pictures.
        signals : sequence of str
            The S signals.
        """
        columns = [list(signals).index(signal) for signal in self.floors]
        floors = np.array(list(self.floors.values()), np.float32)
        perhaps = ~(scores[:, columns] < floors)
        one_or_all = np.logical_or if self.when == "either" else np.logical_and
        found: npt.NDArray[np.bool_] = one_or_all.reduce(perhaps, axis=1)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return {"floors": dict(self.floors), "when": self.when}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Gate:
        """Return the gate that `as_dict` wrote; KeyError, TypeError or ValueError where it is none."""
        return cls(floors=data["floors"], when=data["when"])


def gate_for(gate: Gate | None, views: str, probes: ProbeBank) -> Gate | None:
    """Return the gate that a filter of these probes has: of adaptive views the one given, else the probes' own.

    Raises
    ------
    UsageError
        It is for other views, or does not fit the probes.

    Examples
    --------
    >>> gate_for(Gate(floors={"explicit": 0, "minor": 0}), "multi", None)
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: a gate (--gate) is for views='adaptive', and views is 'multi'; leave one of the \
two out
    """
    if views == "adaptive":
        return (gate or Gate.of(probes)).for_probes(probes)
    if gate is not None:
        raise UsageError(f"a gate (--gate) is for views='adaptive', and views is {views!r}; leave one of the two out")
    return None


def views_in_full(views: str, gate: Gate | None) -> str:
    """Return the name of views, with their gate where they have one: thresholds of another gate are not theirs.

    >>> views_in_full("whole", None)
    'whole'
    >>> views_in_full("adaptive", Gate(floors={"explicit": 0.1, "minor": 0.2}))
    'adaptive (either:explicit=0.1,minor=0.2)'
    """
    return views if gate is None else f"{views} ({gate.text})"


def closer_by(gate: Gate | None, probes: ProbeBank) -> Closer | None:
    """Return what tells by embeddings of whole pictures which to look at closer; None without a gate."""
    if gate is None:
        return None
    return lambda vectors: gate.closer(probes.score_vectors(vectors), probes.signals)


def _gate(floors: dict[str, float], when: When) -> Gate:
    return Gate(floors=floors, when=when)


def _in_names_of(pair: SignalPair, floors: Mapping[str, float]) -> bool:
    return set(pair.names) <= set(floors)
