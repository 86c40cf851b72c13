"""The policy: thresholds and rules that turn scores into keep or exclude, with reasons."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import REAL_SIGNALS, DecisionBatch, Floats, Reason, ScoreBatch, SignalTable
from safetyfilter.errors import PolicyError

PRESETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "co-occurrence": (),
        "separate": ("explicit",),
        "no-minors": ("minor",),
        "strict": ("explicit", "minor"),
    }
)
"""Preset names, and what each excludes beyond the co-occurrence rule; `preset_names` has those in files too."""

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
    exclude_at : mapping of str to float
        Signals that alone exclude a sample at or above a cut of their own, in [0, 1]; the co-occurrence rule keeps
        the signal's threshold. Each is in `exclude` too, given there or not.
    table : SignalTable
        The pair. Only the stand-ins use another than the real one.

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
    table: SignalTable = REAL_SIGNALS

    def __post_init__(self) -> None:
        thresholds = dict(self.thresholds) or dict.fromkeys(self.table.pair, DEFAULT_THRESHOLD)
        cuts = dict(self.exclude_at)
        for what, numbers in (("threshold", thresholds), ("cut in exclude", cuts)):
            for signal, value in numbers.items():
                number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
                if not number or not 0 <= value <= 1:
                    raise PolicyError(f"the {what} of {signal!r} is {value!r}; give a number from 0 to 1")
        for signal in self.table.pair:
            if signal not in thresholds:
                raise PolicyError(
                    f"no threshold for {signal!r}, got {sorted(thresholds)}; the co-occurrence rule "
                    f"needs one for each of {self.table.pair}"
                )
        exclude = frozenset([self.exclude] if isinstance(self.exclude, str) else self.exclude) | set(cuts)
        if unknown := exclude - set(thresholds):
            raise PolicyError(
                f"unknown signal {sorted(unknown)} in exclude; it may name {sorted(thresholds)}, "
                "or give the signal a threshold"
            )
        object.__setattr__(self, "thresholds", MappingProxyType({k: float(v) for k, v in thresholds.items()}))
        object.__setattr__(self, "exclude", exclude)
        object.__setattr__(self, "exclude_at", MappingProxyType({k: float(v) for k, v in cuts.items()}))

    def __reduce__(self) -> tuple[object, ...]:
        return (_policy, (dict(self.thresholds), frozenset(self.exclude), dict(self.exclude_at), self.table))

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def preset(cls, name: str, *, thresholds: Mapping[str, float] | None = None) -> Policy:
        """A policy by name: ``co-occurrence``, ``separate``, ``no-minors``, ``strict``, or one of the package's files.

        The files hold the published cuts on LAION's detector, each on top of the co-occurrence rule: ``laion-0.1``
        (Stable Diffusion 2.0), ``laion-0.5`` (NeMo Curator) and ``laion-0.98`` (Stable Diffusion 2.1).

        >>> sorted(Policy.preset("strict").exclude)
        ['explicit', 'minor']
        >>> dict(Policy.preset("laion-0.98").exclude_at), dict(Policy.preset("laion-0.98").thresholds)
        ({'explicit': 0.98}, {'explicit': 0.5, 'minor': 0.5})
        """
        if name not in preset_names():
            raise PolicyError(
                f"no policy is called {name!r}; there are {', '.join(preset_names())}, or pass a TOML file"
            )
        if name in PRESETS:
            return cls(thresholds=thresholds or {}, exclude=PRESETS[name])
        policy = cls.from_toml(_PRESET_FILES.joinpath(f"{name}.toml").read_text(encoding="utf-8"))
        return replace(policy, thresholds=thresholds) if thresholds else policy

    @classmethod
    def load(cls, name_or_file: str | Path) -> Policy:
        """A preset by name, or a policy from a TOML file."""
        if str(name_or_file) in preset_names():
            return cls.preset(str(name_or_file))
        path = Path(name_or_file)
        if not path.is_file():
            raise PolicyError(
                f"{str(name_or_file)!r} is neither a policy file nor a preset; the presets are "
                f"{', '.join(preset_names())}"
            )
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(f"can't read the policy {path}: {error}; it must be a UTF-8 TOML file") from error

    @classmethod
    def from_toml(cls, text: str) -> Policy:
        """A policy from TOML text; every key must be known.

        In ``[exclude]``, ``true`` excludes a signal at its threshold, and a number at that cut.

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
            if not isinstance(value, bool | int | float):
                raise PolicyError(f"exclude.{signal} is {value!r}; give true, false, or a number from 0 to 1")
        thresholds = {signal: DEFAULT_THRESHOLD for signal in table.pair if signal not in thresholds} | thresholds
        if unknown := set(exclude) - set(thresholds):
            raise PolicyError(
                f"unknown signal {sorted(unknown)} in [exclude]; it may name {sorted(thresholds)}, "
                "or give the signal a threshold"
            )
        return cls(
            thresholds=thresholds,
            exclude=(s for s, value in exclude.items() if value is True),
            table=table,
            exclude_at={s: value for s, value in exclude.items() if not isinstance(value, bool)},
        )

    def to_toml(self) -> str:
        """The policy as TOML text that `from_toml` reads back to an equal policy."""
        lines = [] if self.table == REAL_SIGNALS else [f"signals = {json.dumps(self.table.name)}", ""]
        lines += ["[thresholds]", *(f"{_toml_key(s)} = {t!r}" for s, t in self.thresholds.items())]
        lines += ["", "[exclude]              # beyond the co-occurrence rule, which always holds"]
        excluded = {s: repr(self.exclude_at[s]) if s in self.exclude_at else "true" for s in self.exclude}
        lines += [f"{_toml_key(s)} = {excluded.get(s, 'false')}" for s in self.thresholds]
        return "\n".join(lines) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 in hex over everything that decides."""
        what = [
            self.table.name,
            sorted(self.thresholds.items()),
            sorted(self.exclude),
            *([sorted(self.exclude_at.items())] if self.exclude_at else []),
        ]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def for_table(self, table: SignalTable) -> Policy:
        """The same policy over another pair: the parts keep their thresholds under the other names.

        >>> from safetyfilter.batches import STANDIN_SIGNALS
        >>> dict(Policy().for_table(STANDIN_SIGNALS).thresholds)
        {'three': 0.5, 'seven': 0.5}
        """
        if table == self.table:
            return self
        renamed = dict(zip(self.table.pair, table.pair, strict=True))
        return replace(
            self,
            table=table,
            exclude={renamed.get(s, s) for s in self.exclude},
            exclude_at={renamed.get(s, s): cut for s, cut in self.exclude_at.items()},
            thresholds={renamed.get(s, s): t for s, t in self.thresholds.items()},
        )

    def require(self, signals: Iterable[str]) -> None:
        """Raise `PolicyError` unless there is a score for every signal this policy names."""
        if missing := set(self.thresholds) - set(signals):
            raise PolicyError(
                f"the policy has a threshold for {sorted(missing)}, which no probe scores; there are "
                f"scores for {sorted(signals)}: add a probe for it, or take it out of the policy"
            )

    def present(self, scores: ScoreBatch, signal: str) -> npt.NDArray[np.bool_]:
        """(N,) bool, True where ``score >= threshold``; never True for NaN.

        Scores are float32, and so the threshold's nearest float32 counts as reaching it too: of the two readings of
        "at the threshold", the one that excludes.
        """
        return _reached(scores[signal], self.thresholds[signal])

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
            alone = present[signal]
            if signal in self.exclude_at:
                alone = _reached(scores[signal], self.exclude_at[signal]) & ~unscored
            bits[alone] |= np.uint16(flags.get(signal, Reason.OTHER_SIGNAL))
        return DecisionBatch(reason_bits=bits, scores=scores)

    def as_dict(self) -> dict[str, object]:
        """Plain values for `run.json`; `from_dict` reads them back."""
        return {
            "signals": self.table.name,
            "thresholds": dict(self.thresholds),
            "exclude": sorted(self.exclude),
            "exclude_at": dict(self.exclude_at),
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Policy:
        """The policy that `as_dict` wrote."""
        thresholds, exclude = data["thresholds"], data["exclude"]
        assert isinstance(thresholds, dict)
        assert isinstance(exclude, list)
        exclude_at = data.get("exclude_at", {})
        assert isinstance(exclude_at, dict)
        return cls(
            thresholds=thresholds, exclude=exclude, exclude_at=exclude_at, table=SignalTable.named(str(data["signals"]))
        )


_PRESET_FILES = files("safetyfilter.decide").joinpath("presets")


def preset_names() -> tuple[str, ...]:
    """The names that `Policy.preset` and `Policy.load` know.

    >>> preset_names()
    ('co-occurrence', 'separate', 'no-minors', 'strict', 'laion-0.1', 'laion-0.5', 'laion-0.98')
    """
    names = [file.name for file in _PRESET_FILES.iterdir()]
    return (*PRESETS, *sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def _reached(scores: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """(N,) bool, True where a float32 score is at or above a threshold, by either reading of "at"."""
    reached: npt.NDArray[np.bool_] = scores.astype(np.float64) >= min(threshold, float(np.float32(threshold)))
    return reached


def _policy(
    thresholds: dict[str, float], exclude: frozenset[str], exclude_at: dict[str, float], table: SignalTable
) -> Policy:
    return Policy(thresholds=thresholds, exclude=exclude, exclude_at=exclude_at, table=table)


def _toml_key(signal: str) -> str:
    bare = signal.replace("-", "").replace("_", "")
    return signal if bare.isalnum() and bare.isascii() else json.dumps(signal)
