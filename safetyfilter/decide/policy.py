"""The policy: thresholds and rules that turn scores into keep or exclude, with reasons."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import PolicyError
from safetyfilter.samples import REAL_SIGNALS, DecisionBatch, Reason, ScoreBatch, SignalTable

PRESETS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "co-occurrence": (),
    "separate": ("explicit",),
    "no-minors": ("minor",),
    "strict": ("explicit", "minor"),
})
"""Preset names, and what each excludes beyond the co-occurrence rule."""

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Thresholds and exclusions; the co-occurrence rule always holds and has no switch.

    A signal is *present* when ``score >= threshold``. A sample in which both signals of the table's pair are present
    is excluded, whatever else is set. A sample with a score that is missing, NaN or infinite is excluded as
    ``unscored``.

    Parameters
    ----------
    thresholds : mapping of str to float
        A threshold in [0, 1] for each signal. The pair's two are required; 0.5 each where nothing is given.
    exclude : iterable of str
        Signals whose presence alone excludes a sample.
    table : SignalTable
        The pair. Only the stand-ins use another than the real one.

    Raises
    ------
    PolicyError
        A threshold outside [0, 1] or not a number, a pair signal without one, or an exclusion without a threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from safetyfilter.samples import ScoreBatch
    >>> scores = ScoreBatch(values=np.float32([[.9, .9], [.9, .1], [np.nan, .1]]), signals=("explicit", "minor"))
    >>> [str(reasons) for reasons in Policy().decide(scores).reasons]
    ['co_occurrence', 'none', 'unscored']
    >>> Policy.preset("separate").decide(scores).keep.tolist()
    [False, False, False]
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    exclude: Iterable[str] = frozenset()
    table: SignalTable = REAL_SIGNALS

    def __post_init__(self) -> None:
        thresholds = dict(self.thresholds) or dict.fromkeys(self.table.pair, DEFAULT_THRESHOLD)
        for signal, threshold in thresholds.items():
            number = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
            if not number or not 0 <= threshold <= 1:
                raise PolicyError(f"the threshold of {signal!r} is {threshold!r}; give a number from 0 to 1")
        for signal in self.table.pair:
            if signal not in thresholds:
                raise PolicyError(f"no threshold for {signal!r}, got {sorted(thresholds)}; the co-occurrence rule "
                                  f"needs one for each of {self.table.pair}")
        exclude = frozenset([self.exclude] if isinstance(self.exclude, str) else self.exclude)
        if unknown := exclude - set(thresholds):
            raise PolicyError(f"unknown signal {sorted(unknown)} in exclude; it may name {sorted(thresholds)}, "
                              "or give the signal a threshold")
        object.__setattr__(self, "thresholds", MappingProxyType({k: float(v) for k, v in thresholds.items()}))
        object.__setattr__(self, "exclude", exclude)

    def __reduce__(self) -> tuple[object, ...]:
        return (_policy, (dict(self.thresholds), frozenset(self.exclude), self.table))

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def preset(cls, name: str, *, thresholds: Mapping[str, float] | None = None) -> Policy:
        """A policy by name: ``co-occurrence``, ``separate``, ``no-minors`` or ``strict``.

        >>> sorted(Policy.preset("strict").exclude)
        ['explicit', 'minor']
        """
        if name not in PRESETS:
            raise PolicyError(f"no policy is called {name!r}; there are {', '.join(PRESETS)}, or pass a TOML file")
        return cls(thresholds=thresholds or {}, exclude=PRESETS[name])

    @classmethod
    def load(cls, name_or_file: str | Path) -> Policy:
        """A preset by name, or a policy from a TOML file."""
        if str(name_or_file) in PRESETS:
            return cls.preset(str(name_or_file))
        path = Path(name_or_file)
        if not path.is_file():
            raise PolicyError(f"{str(name_or_file)!r} is neither a policy file nor a preset; the presets are "
                              f"{', '.join(PRESETS)}")
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(f"can't read the policy {path}: {error}; it must be a UTF-8 TOML file") from error

    @classmethod
    def from_toml(cls, text: str) -> Policy:
        """A policy from TOML text; every key must be known.

        >>> Policy.from_toml("[thresholds]\\nexplicit = 0.3\\nminor = 0.4\\n[exclude]\\nminor = true").digest[:8]
        'b52b02e6'
        """
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PolicyError(f"the policy is not valid TOML: {error}") from error
        if unknown := set(data) - {"thresholds", "exclude", "signals"}:
            raise PolicyError(f"unknown key {sorted(unknown)} in the policy; allowed are [thresholds] and [exclude]")
        try:
            table = SignalTable.named(data.get("signals", REAL_SIGNALS.name))
        except (KeyError, TypeError) as error:
            raise PolicyError(f"signals is {data['signals']!r}; leave it out (only a demo's policy has it)") from error
        thresholds, exclude = data.get("thresholds", {}), data.get("exclude", {})
        if not isinstance(thresholds, dict) or not isinstance(exclude, dict):
            raise PolicyError("thresholds and exclude are TOML tables: [thresholds] then explicit = 0.5, for example")
        for signal, value in exclude.items():
            if not isinstance(value, bool):
                raise PolicyError(f"exclude.{signal} is {value!r}; give true or false")
        thresholds = {signal: DEFAULT_THRESHOLD for signal in table.pair if signal not in thresholds} | thresholds
        if unknown := set(exclude) - set(thresholds):
            raise PolicyError(f"unknown signal {sorted(unknown)} in [exclude]; it may name {sorted(thresholds)}, "
                              "or give the signal a threshold")
        return cls(thresholds=thresholds, exclude=(s for s, on in exclude.items() if on), table=table)

    def to_toml(self) -> str:
        """The policy as TOML text that `from_toml` reads back to an equal policy."""
        lines = [] if self.table == REAL_SIGNALS else [f"signals = {json.dumps(self.table.name)}", ""]
        lines += ["[thresholds]", *(f"{_toml_key(s)} = {t!r}" for s, t in self.thresholds.items())]
        lines += ["", "[exclude]              # beyond the co-occurrence rule, which always holds"]
        lines += [f"{_toml_key(s)} = {'true' if s in self.exclude else 'false'}" for s in self.thresholds]
        return "\n".join(lines) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 in hex over everything that decides."""
        what = [self.table.name, sorted(self.thresholds.items()), sorted(self.exclude)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def for_table(self, table: SignalTable) -> Policy:
        """The same policy over another pair: the parts keep their thresholds under the other names.

        >>> from safetyfilter.samples import STANDIN_SIGNALS
        >>> dict(Policy().for_table(STANDIN_SIGNALS).thresholds)
        {'three': 0.5, 'seven': 0.5}
        """
        if table == self.table:
            return self
        renamed = dict(zip(self.table.pair, table.pair, strict=True))
        return replace(self, table=table, exclude={renamed.get(s, s) for s in self.exclude},
                       thresholds={renamed.get(s, s): t for s, t in self.thresholds.items()})

    def require(self, signals: Iterable[str]) -> None:
        """Raise `PolicyError` unless there is a score for every signal this policy names."""
        if missing := set(self.thresholds) - set(signals):
            raise PolicyError(f"the policy has a threshold for {sorted(missing)}, which no probe scores; there are "
                              f"scores for {sorted(signals)}: add a probe for it, or take it out of the policy")

    def present(self, scores: ScoreBatch, signal: str) -> npt.NDArray[np.bool_]:
        """(N,) bool, True where ``score >= threshold``; never True for NaN.

        Scores are float32, and so the threshold's nearest float32 counts as reaching it too: of the two readings of
        "at the threshold", the one that excludes.
        """
        threshold = self.thresholds[signal]
        reached: npt.NDArray[np.bool_] = scores[signal].astype(np.float64) >= min(threshold,
                                                                                 float(np.float32(threshold)))
        return reached

    def decide(self, scores: ScoreBatch) -> DecisionBatch:
        """Decide on each sample.

        Parameters
        ----------
        scores : ScoreBatch
            Scores of at least the signals this policy names. Rows with a failure, NaN or an infinity are excluded.

        Raises
        ------
        PolicyError
            A signal of this policy has no scores.
        """
        self.require(scores.signals)
        bits = np.zeros(len(scores), np.uint16)
        needed = np.stack([scores[signal] for signal in self.thresholds], axis=1)
        unscored: npt.NDArray[np.bool_] = ~np.all(np.isfinite(needed), axis=1)
        unscored[list(scores.failures)] = True
        bits[unscored] |= np.uint16(Reason.UNSCORED)
        present = {signal: self.present(scores, signal) & ~unscored for signal in self.thresholds}
        bits[present[self.table.explicit] & present[self.table.minor]] |= np.uint16(Reason.CO_OCCURRENCE)
        flags = {self.table.explicit: Reason.EXPLICIT, self.table.minor: Reason.MINOR}
        for signal in self.exclude:
            bits[present[signal]] |= np.uint16(flags.get(signal, Reason.OTHER_SIGNAL))
        return DecisionBatch(reason_bits=bits, scores=scores)

    def as_dict(self) -> dict[str, object]:
        """Plain values for `run.json`; `from_dict` reads them back."""
        return {"signals": self.table.name, "thresholds": dict(self.thresholds), "exclude": sorted(self.exclude),
                "digest": self.digest}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Policy:
        """The policy that `as_dict` wrote."""
        thresholds, exclude = data["thresholds"], data["exclude"]
        assert isinstance(thresholds, dict)
        assert isinstance(exclude, list)
        return cls(thresholds=thresholds, exclude=exclude, table=SignalTable.named(str(data["signals"])))


def _policy(thresholds: dict[str, float], exclude: frozenset[str], table: SignalTable) -> Policy:
    return Policy(thresholds=thresholds, exclude=exclude, table=table)


def _toml_key(signal: str) -> str:
    bare = signal.replace("-", "").replace("_", "")
    return signal if bare.isalnum() and bare.isascii() else json.dumps(signal)


