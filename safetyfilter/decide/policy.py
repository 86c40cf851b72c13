"""The policy: thresholds and rules that turn scores into keep or exclude, with reasons."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import OK, STATUS_CODES, DecisionBatch, Floats, Reason, ScoreBatch
from safetyfilter.decide.as_html import policy_html
from safetyfilter.decide.calibration_record import CalibrationRecord
from safetyfilter.decide.fields import PolicyFields, checked_numbers, fields_from_dict, format_policy, parse_policy
from safetyfilter.decide.files import policy_text
from safetyfilter.decide.presets import DEFAULT_THRESHOLD, PRESETS, exclusions
from safetyfilter.decide.sentences import policy_changes, rule_warning
from safetyfilter.errors import PolicyError, UsageError
from safetyfilter.signals import PAIR, SignalPair
from safetyfilter.storage import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Thresholds and exclusions; the co-occurrence rule always holds and has no switch.

    A signal is *present* when ``score >= threshold``. A sample in which both signals of the pair are present is
    excluded, whatever else is set. A sample with a score that is missing, NaN or infinite is excluded as ``unscored``.

    Parameters
    ----------
    thresholds : mapping of str to float
        A threshold in [0, 1] for each signal. The pair's two are required; 0.5 each where nothing is given.
    exclude : iterable of str
        Signals whose presence alone excludes a sample.
    exclude_at : mapping of str to float
        Signals that alone exclude a sample at or above a cut of their own, in [0, 1]; the co-occurrence rule keeps
        the signal's threshold. Each is in `exclude` too, given there or not.
    pair : SignalPair
        The pair of the co-occurrence rule.
    calibration : CalibrationRecord or None
        The calibration that the thresholds come from. It decides nothing: policies that differ in it alone are equal.

    Raises
    ------
    PolicyError
        A threshold outside [0, 1] or not a number, a pair signal without one, or an exclusion without a threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from safetyfilter.batches import ScoreBatch
    >>> scores = ScoreBatch(values=np.float32([[.9, .9], [.9, .1], [np.nan, .1]]), signals=("explicit", "minor"))
    >>> [str(reasons) for reasons in Policy().decide(scores).reasons]
    ['co_occurrence', 'none', 'unscored']
    >>> Policy.preset("separate").decide(scores).keep.tolist()
    [False, False, False]
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    exclude: Iterable[str] = frozenset()
    exclude_at: Mapping[str, float] = field(default_factory=dict)
    pair: SignalPair = PAIR
    calibration: CalibrationRecord | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.pair, SignalPair):
            raise PolicyError(f"the pair is {self.pair!r}; give a SignalPair(explicit=..., minor=...), or leave it out")
        if not isinstance(self.calibration, CalibrationRecord | None):
            raise PolicyError(
                f"calibration is {self.calibration!r}; give a CalibrationRecord, as Calibration.policy does, or None"
            )
        thresholds = checked_numbers("threshold", self.thresholds or dict.fromkeys(self.pair.names, DEFAULT_THRESHOLD))
        cuts = checked_numbers("cut in exclude", self.exclude_at)
        if missing := [signal for signal in self.pair.names if signal not in thresholds]:
            raise PolicyError(
                f"there is no threshold for {missing}, only for {sorted(thresholds)}; the co-occurrence rule needs one "
                f"for each of {list(self.pair.names)}"
            )
        exclude = frozenset([self.exclude] if isinstance(self.exclude, str) else self.exclude) | set(cuts)
        if unknown := exclude - set(thresholds):
            raise PolicyError(
                f"unknown signal {sorted(unknown)} in exclude; it may name {sorted(thresholds)}, "
                "or give the signal a threshold"
            )
        object.__setattr__(self, "thresholds", MappingProxyType(thresholds))
        object.__setattr__(self, "exclude", exclude)
        object.__setattr__(self, "exclude_at", MappingProxyType(cuts))

    def __reduce__(self) -> tuple[object, ...]:
        return (_policy, (self._fields(),))  # a mapping proxy can't be pickled

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def preset(cls, name: str, *, thresholds: Mapping[str, float] | None = None) -> Policy:
        """Return the policy of a name in `PRESETS`: ``co-occurrence``, ``separate``, ``no-minors``, ``strict``, ….

        The published cuts on LAION's detector are on top of the co-occurrence rule: ``laion-0.1`` (Stable
        Diffusion 2.0), ``laion-0.5`` (NeMo Curator) and ``laion-0.98`` (Stable Diffusion 2.1).

        >>> sorted(Policy.preset("strict").exclude)
        ['explicit', 'minor']
        >>> dict(Policy.preset("laion-0.98").exclude_at), dict(Policy.preset("laion-0.98").thresholds)
        ({'explicit': 0.98}, {'explicit': 0.5, 'minor': 0.5})
        """
        if name not in PRESETS:
            raise PolicyError(f"no policy is called {name!r}; there are {', '.join(PRESETS)}, or pass a TOML file")
        exclude, exclude_at = exclusions(PRESETS[name])
        return cls(thresholds=thresholds or {}, exclude=exclude, exclude_at=exclude_at)

    @classmethod
    def load(cls, name_or_file: Place) -> Policy:
        """Return a preset by name, or the policy in a TOML file.

        Parameters
        ----------
        name_or_file : str, path or Location
            A name in `PRESETS`, or a local path or a URL.

        Raises
        ------
        PolicyError
            Neither a preset nor a file, or an empty file, or not a policy.
        StorageError
            The storage failed.
        """
        name = str(name_or_file)
        if name in PRESETS:
            return cls.preset(name)
        return cls.from_toml(policy_text(name_or_file))

    @classmethod
    def from_toml(cls, text: str) -> Policy:
        """Return the policy in a TOML text; every key must be known.

        In ``[exclude]``, ``true`` excludes a signal at its threshold, and a number at that cut. A policy of another
        pair than the real one names its signals in ``[signals]``.

        >>> policy = Policy.from_toml("[thresholds]\\nexplicit = 0.3\\nminor = 0.4\\n[exclude]\\nminor = true")
        >>> dict(policy.thresholds), sorted(policy.exclude)
        ({'explicit': 0.3, 'minor': 0.4}, ['minor'])
        >>> Policy.from_toml('[signals]\\nexplicit = "circle"\\nminor = "square"').pair.names
        ('circle', 'square')
        """
        return cls(**parse_policy(text))

    def to_toml(self) -> str:
        """Return TOML text that `from_toml` reads back to an equal policy, with the record of its calibration."""
        return format_policy(self._fields())

    @property
    def digest(self) -> str:
        """SHA-256 in hex over everything that decides, the names of the pair included."""
        decisive = [
            self.pair.names,
            sorted(self.thresholds.items()),
            sorted(self.exclude),
            sorted(self.exclude_at.items()),
        ]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    @property
    def warning(self) -> str | None:
        """A sentence where a threshold of the pair is so high that the rule can hardly exclude a sample, else None.

        From `safetyfilter.decide.sentences.HARDLY_REACHED` on, whatever is excluded besides.

        >>> Policy().warning is None, Policy(thresholds={"explicit": 1, "minor": 0.5}).warning is None
        (True, False)
        """
        return rule_warning(self.thresholds, self.pair)

    def changes_from(self, before: Policy) -> list[str]:
        """Return a sentence for each threshold and exclusion that differs from those of another policy.

        >>> Policy.preset("separate").changes_from(Policy(exclude_at={"explicit": 0.25}))
        ['Excluded for explicit alone: was at 0.25, is now yes.']
        """
        return policy_changes(before._fields(), self._fields())

    def for_pair(self, pair: SignalPair) -> Policy:
        """Return this policy in the names of another pair; the thresholds and exclusions of its two signals go along.

        Raises
        ------
        PolicyError
            This policy is not of the real pair and `pair` is a different one: thresholds that were found on one pair's
            scores mean nothing on another's. Or one of the policy's other signals has a name of `pair`.

        Examples
        --------
        >>> policy = Policy(thresholds={"explicit": 0.3, "minor": 0.4}, exclude=["minor"])
        >>> there = policy.for_pair(SignalPair(explicit="circle", minor="square"))
        >>> dict(there.thresholds), sorted(there.exclude)
        ({'circle': 0.3, 'square': 0.4}, ['square'])
        """
        if self.pair not in (PAIR, pair):
            raise PolicyError(
                f"the policy is for the signals {list(self.pair.names)}, not for {list(pair.names)}; its thresholds "
                "mean nothing on other scores: pass a policy for these signals, or a preset"
            )
        if taken := sorted(set(pair.names) & (set(self.thresholds) - set(self.pair.names))):
            raise PolicyError(
                f"{taken} is a further signal of the policy and a name of the pair {list(pair.names)}; take it out of "
                "the policy"
            )
        renamed = dict(zip(self.pair.names, pair.names, strict=True))
        return Policy(
            thresholds={renamed.get(signal, signal): value for signal, value in self.thresholds.items()},
            exclude={renamed.get(signal, signal) for signal in self.exclude},
            exclude_at={renamed.get(signal, signal): cut for signal, cut in self.exclude_at.items()},
            pair=pair,
            calibration=self.calibration and self.calibration.renamed(renamed),
        )

    def covered_by(self, signals: Iterable[str]) -> Policy:
        """Return this policy without its further signals that are not among some; the pair's two have to be.

        >>> policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5, "violence": 0.5}, exclude=["violence"])
        >>> policy.covered_by(["explicit", "minor"]) == Policy()
        True
        """
        there = set(signals)
        if there >= set(self.thresholds):
            return self
        thresholds = {signal: threshold for signal, threshold in self.thresholds.items() if signal in there}
        cuts = {signal: cut for signal, cut in self.exclude_at.items() if signal in there}
        return replace(self, thresholds=thresholds, exclude=frozenset(self.exclude) & there, exclude_at=cuts)

    def require(self, signals: Iterable[str]) -> None:
        """Raise `PolicyError` unless there is a score for every signal this policy names."""
        there = sorted(signals)
        if missing := set(self.thresholds) - set(there):
            raise PolicyError(
                f"the policy has a threshold for {sorted(missing)}, which no probe scores; there are "
                f"scores for {there}: add a probe for it, or take it out of the policy"
            )

    def present(self, scores: ScoreBatch, signal: str) -> npt.NDArray[np.bool_]:
        """Return (N,) bool, True where ``score >= threshold``; never True for NaN.

        Scores are float32, and so the threshold's nearest float32 counts as reaching it too: of the two readings of
        "at the threshold", the one that excludes.
        """
        return _reached(scores[signal], self.thresholds[signal])

    def scored(self, scores: ScoreBatch) -> npt.NDArray[np.bool_]:
        """Return (N,) bool, True for a sample with every score that this policy takes; errors as of `decide`."""
        self.require(scores.signals)
        scored: npt.NDArray[np.bool_] = scores.status == OK
        for signal in self.thresholds:
            scored &= np.isfinite(scores[signal])
        return scored

    def decide(self, scores: ScoreBatch) -> DecisionBatch:
        """Return a decision on each sample.

        Parameters
        ----------
        scores : ScoreBatch
            Scores of at least the signals this policy names. A row is excluded whose status is not ``ok``, or where
            one of these scores is NaN or infinite: as ``unscored``, or as ``unknown`` where that is its status.

        Raises
        ------
        PolicyError
            A signal of this policy has no scores.
        """
        scored = self.scored(scores)
        bits = np.zeros(len(scores), np.uint16)
        bits[~scored] = Reason.UNSCORED
        bits[~scored & (scores.status == STATUS_CODES["unknown"])] = Reason.UNKNOWN
        both = self.present(scores, self.pair.explicit) & self.present(scores, self.pair.minor)
        bits[both & scored] |= np.uint16(Reason.CO_OCCURRENCE)
        flags = {self.pair.explicit: Reason.EXPLICIT, self.pair.minor: Reason.MINOR}
        for signal in self.exclude:
            alone = _reached(scores[signal], self.exclude_at.get(signal, self.thresholds[signal]))
            bits[alone & scored] |= np.uint16(flags.get(signal, Reason.OTHER_SIGNAL))
        return DecisionBatch(reason_bits=bits, scores=scores)

    def as_dict(self) -> dict[str, object]:
        """Return plain values for `run.json`; `from_dict` reads them back."""
        return {
            "pair": self.pair.as_dict(),
            "thresholds": dict(self.thresholds),
            "exclude": sorted(self.exclude),
            "exclude_at": dict(self.exclude_at),
            "digest": self.digest,
            **({"calibration": self.calibration.as_dict()} if self.calibration else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Policy:
        """Return the policy that `as_dict` wrote; `PolicyError` where it did not write this.

        >>> Policy.from_dict(Policy.preset("strict").as_dict()) == Policy.preset("strict")
        True
        """
        return cls(**fields_from_dict(data))

    def _repr_html_(self) -> str:
        return policy_html(self)

    def _fields(self) -> PolicyFields:
        return {
            "thresholds": dict(self.thresholds),
            "exclude": frozenset(self.exclude),
            "exclude_at": dict(self.exclude_at),
            "pair": self.pair,
            "calibration": self.calibration,
        }


def _policy(fields: PolicyFields) -> Policy:
    return Policy(**fields)


def _reached(scores: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """Return (N,) bool, True where a float32 score is at or above a threshold, by either reading of "at"."""
    reached: npt.NDArray[np.bool_] = scores.astype(np.float64) >= min(threshold, float(np.float32(threshold)))
    return reached


def require_policy(given: object) -> Policy:
    """Return the policy that is given.

    Raises
    ------
    UsageError
        It is something else, such as the name of a preset or a file.

    Examples
    --------
    >>> require_policy("strict")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: 'strict' is not a Policy; give Policy.preset(name), or Policy.load(file)
    """
    if not isinstance(given, Policy):
        raise UsageError(f"{given!r} is not a Policy; give Policy.preset(name), or Policy.load(file)")
    return given
