"""Explains decisions: for keys that the user already has, what a run decided and the reasons, without a score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import FAILURES, OK, STATUS_NAMES, Reason, ReasonBits
from safetyfilter.decide.meanings import reason_meanings
from safetyfilter.errors import UsageError
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.index import number_column
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import in_turn, require_own, vouched

_THREADS, _AHEAD = 4, 8
_NOT_KNOWN = "the run does not know this key, and loaders exclude it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A run's decision on one key, and the reasons; no score.

    Attributes
    ----------
    key : str
        As it was asked for.
    known : bool
        False for a key that the run does not know.
    reasons : Reason
        The reasons to exclude the sample; empty where it is kept.
    causes : tuple of str
        Why the sample is unscored, by the names of `FAILURES`; empty where it is scored, or its cause is not in this
        run: of decisions that rest on several runs, for example.
    words : tuple of str
        A phrase for each reason and cause; empty where the sample is kept.
    """

    key: str
    known: bool
    reasons: Reason
    causes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def keep(self) -> bool:
        """True where the sample is kept."""
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON.

        >>> Explanation(key="a.jpg", known=True, reasons=Reason(0)).as_dict()
        {'key': 'a.jpg', 'known': True, 'keep': True, 'reasons': [], 'causes': [], 'words': []}
        """
        return {
            "key": self.key,
            "known": self.known,
            "keep": self.keep,
            "reasons": list(_names(int(self.reasons))),
            "causes": list(self.causes),
            "words": list(self.words),
        }

    def __str__(self) -> str:
        return "kept" if self.keep else f"excluded: {'; '.join(self.words)}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanations(Sequence[Explanation]):
    """Explanations in the order of the keys asked for, each made when it is looked at.

    Attributes
    ----------
    keys : sequence of str
        N keys.
    known : ndarray
        (N,) bool, False for a key that the run does not know.
    reason_bits : ndarray
        (N,) uint16, a `Reason` set each.
    causes : mapping of int to tuple of str
        Why a sample is unscored, by its place among the keys.
    meanings : mapping of str to str
        The meaning of each reason, in the names of the run's signals.
    """

    keys: Sequence[str]
    known: npt.NDArray[np.bool_]
    reason_bits: ReasonBits
    causes: Mapping[int, tuple[str, ...]]
    meanings: Mapping[str, str]
    _found: dict[tuple[bool, int, tuple[str, ...]], tuple[Reason, tuple[str, ...]]] = field(
        default_factory=dict, init=False, repr=False
    )  # millions of samples have few sets of reasons

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> Explanation: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Explanation]: ...
    def __getitem__(self, place: int | slice) -> Explanation | Sequence[Explanation]:
        """Return the explanation of a key by its place, or those of a stretch of keys."""
        places = range(len(self))[place]
        return [self._at(each) for each in places] if isinstance(places, range) else self._at(places)

    def __iter__(self) -> Iterator[Explanation]:
        return map(self._at, range(len(self)))

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of keys ``asked`` for, ``kept``, ``excluded``, and of those ``not_known``, which are excluded."""
        kept = int((self.reason_bits == 0).sum())
        return {
            "asked": len(self),
            "kept": kept,
            "excluded": len(self) - kept,
            "not_known": int((~self.known).sum()),
        }

    def _at(self, place: int) -> Explanation:
        known, causes = bool(self.known[place]), self.causes.get(place, ())
        alike = known, int(self.reason_bits[place]), causes
        if (found := self._found.get(alike)) is None:
            found = self._found[alike] = Reason(alike[1]), tuple(self._words(*alike))
        reasons, words = found
        return Explanation(key=self.keys[place], known=known, reasons=reasons, causes=causes, words=words)

    def _words(self, known: bool, bits: int, causes: Sequence[str]) -> Iterator[str]:
        if not known:
            yield _NOT_KNOWN
            return
        for name in _names(bits):
            told = [f"{cause} ({FAILURES[cause]})" for cause in causes] if name == "unscored" else []
            yield f"{name}: {', '.join(told) or self.meanings[name]}"


@cache
def _names(bits: int) -> tuple[str, ...]:
    return Reason(bits).names


def why(run: Run, keys: Sequence[str]) -> Explanations:
    """Return what a run decided on samples whose keys the caller has, and the reasons, in the order of the keys.

    No score is told, and no key that was not asked for. The keys are looked up in the run's index; where some of them
    are unscored, the parts are read too, to tell the causes.

    Parameters
    ----------
    run : Run
        A complete run, whose secret is at hand.
    keys : sequence of str
        As the source of the run gives them; one may come several times.

    Raises
    ------
    UsageError
        `keys` is one text, or not of texts, or `run` is not a Run.
    UnfinishedRunError, SchemaError, SecretError, RunError
        As of `Decisions.of`.

    Examples
    --------
    >>> why("runs/first", ["a.jpg"])
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: 'runs/first' is not a Run; open it with Run.open
    """
    if isinstance(keys, str | bytes):
        raise UsageError("keys is one text; give a list of keys")
    keys = list(keys)
    if other := next((key for key in keys if not isinstance(key, str)), None):
        raise UsageError(f"{type(other).__name__} is not a type of keys; give each as text, as the source does")
    decisions = Decisions.of(run)
    rows = decisions.find(keys)
    bits = decisions.reasons_of(rows)
    unscored = np.flatnonzero((rows >= 0) & (bits & np.uint16(Reason.UNSCORED) != 0))
    return Explanations(
        keys=keys,
        known=rows >= 0,
        reason_bits=bits,
        causes=_causes(run, keys, unscored) if len(unscored) else {},
        meanings=reason_meanings(run.record.setup.pair),
    )


def _causes(run: Run, keys: Sequence[str], places: npt.NDArray[np.int64]) -> dict[int, tuple[str, ...]]:
    """The causes for which the keys at some places are unscored, from the statuses in the run's parts."""
    digests = run.digester().keys(keys[place] for place in places)
    wanted, owners = np.unique(number_column(digests, 0, ">u8"), return_inverse=True)
    found: dict[int, set[str]] = {}
    contents = []
    for numbers, codes, content in in_turn(
        lambda index: _failed(run, index, wanted), run.part_count, threads=_THREADS, ahead=_AHEAD
    ):
        contents.append(content)
        for number, code in zip(numbers.tolist(), codes.tolist(), strict=True):
            found.setdefault(number, set()).add(STATUS_NAMES[code])
    require_own(contents, run.record.scores, run.path, checks=run.record.scores_checks)
    causes = {number: tuple(sorted(names)) for number, names in found.items()}
    return {
        place: causes[owner] for place, owner in zip(places.tolist(), owners.tolist(), strict=True) if owner in causes
    }


def _failed(
    run: Run, index: int, wanted: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], str]:
    """The numbers of wanted keys that a part has unscored, each with its status, and what vouches for the part."""
    part, meta = read_scores(run.file("scores", index), run.record.setup.signals)
    rows = np.flatnonzero(part.scores.status != OK)
    own = number_column(part.keys[rows], 0, ">u8")
    at = np.minimum(np.searchsorted(wanted, own), len(wanted) - 1)
    hits = wanted[at] == own
    return at[hits], part.scores.status[rows[hits]], vouched(meta)
