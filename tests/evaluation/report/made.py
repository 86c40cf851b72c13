"""Summaries of runs, made from scores, so that a page can be had of any run without one on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from safetyfilter import EncoderSpec, Policy, ScoreBatch
from safetyfilter.batches import OK, STATUS_CODES, STATUS_NAMES, Reason, count_decisions
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
from safetyfilter.evaluation.grid import Grid
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.runs.decided_with import DecidedWith
from safetyfilter.runs.record import COUNT_NAMES, RunRecord, RunSetup, SourceRecord

SPEC = EncoderSpec(
    architecture="ViT-L-14-quickgelu",
    tag="openai",
    weights_sha256="7a" * 32,
    config_sha256="3c" * 32,
    image_size=(224, 224),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    interpolation="bicubic",
    resize_mode="shortest",
    width=768,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A run to be.

    Attributes
    ----------
    scores : mapping of str to ndarray
        (N,) each, by signal.
    policy : Policy
        The one that decides.
    status : ndarray or None
        (N,) uint8, codes of failures.
    bits : ndarray or None
        (N,) uint16, reasons beyond the policy's.
    part_sizes : tuple of int
        Samples of each part, together N; one part where empty.
    spec, source : EncoderSpec, SourceRecord
        What the record says.
    decided_with : DecidedWith
        As of a record.
    """

    scores: Mapping[str, npt.NDArray[np.float32]]
    policy: Policy = field(default_factory=Policy)
    status: npt.NDArray[np.uint8] | None = None
    bits: npt.NDArray[np.uint16] | None = None
    part_sizes: tuple[int, ...] = ()
    spec: EncoderSpec = SPEC
    kind: str = "folder"
    decided_with: DecidedWith = field(default_factory=DecidedWith)

    def batch(self) -> ScoreBatch:
        """All rows."""
        return ScoreBatch(
            values=np.stack(list(self.scores.values()), axis=1).astype(np.float32).reshape(-1, len(self.scores)),
            signals=tuple(self.scores),
            status=self.status,
        )

    def decided(self, policy: Policy) -> npt.NDArray[np.uint16]:
        """The reasons for each row under a policy."""
        found = policy.decide(self.batch()).reason_bits
        return found if self.bits is None else found | self.bits

    def counts(self, policy: Policy) -> dict[str, int]:
        """What a policy counts, row by row."""
        counted = count_decisions(self.decided(policy))
        return {name: counted[name] for name in COUNT_NAMES}

    def summary(self) -> RunSummary:
        """The summary, as it is made of a run."""
        batch, bits = self.batch(), self.decided(self.policy)
        grid = Grid.of(self.policy.thresholds.values())
        spread = {
            signal: np.bincount(grid.cells(values[~np.isnan(values)]), minlength=len(grid.thresholds) + 1)
            for signal in batch.signals
            if (values := batch[signal]) is not None
        }
        ends = np.cumsum(self.part_sizes or (len(batch),))[:-1]
        parts = [[count_decisions(part)[name] for name in COUNT_NAMES] for part in np.split(bits, ends)]
        codes = np.bincount(batch.status, minlength=len(STATUS_NAMES))
        failures = {name: int(codes[code]) for name, code in STATUS_CODES.items() if codes[code] and code != OK}
        failures.pop("unknown", None)
        return RunSummary(
            record=self._record(len(parts)),
            plane=ScorePlane.empty(self.policy).with_rows(batch, bits),
            labels=None,
            grid=grid,
            spread=spread,
            parts=np.array(parts, np.int64).reshape(-1, len(COUNT_NAMES)),
            failures=failures,
            movable=not self.decided_with.runs,
        )

    def _record(self, parts: int) -> RunRecord:
        return RunRecord(
            created="2026-11-20T10:00:00+00:00",
            run_id="5f" * 16,
            setup=RunSetup(
                encoder=self.spec,
                pair=self.policy.pair,
                probes=("1d" * 32, "2e" * 32),
                signals=tuple(self.scores),
                views="five crops",
                decode="reduced",
                precision="bf16",
                limits=DEFAULT_LIMITS,
            ),
            policy=self.policy,
            source=SourceRecord(kind=self.kind, keys="path", location="8a" * 16, fingerprint="9b" * 16, parts=parts),
            secret_check="c0" * 16,
            versions={"safetyfilter": "0.3.0", "torch": "2.9.0", "open_clip_torch": "3.1.0"},
            complete=True,
            scores="ab" * 32,
            decisions="cd" * 32,
            counts=self.counts(self.policy),
            decided_with=self.decided_with,
        )


def drawn(count: int, *, seed: int = 0, policy: Policy | None = None, **further: object) -> Made:
    """A run of so many samples, some unscored, some on a list of known content, in parts of a thousand."""
    rng = np.random.default_rng(seed)
    policy = policy or Policy(thresholds={"explicit": 0.3, "minor": 0.25})
    scores = {
        signal: (1 / (1 + np.exp(-rng.normal(-4.5 + 6 * (rng.random(count) < 0.1), 1.6)))).astype(np.float32)
        for signal in policy.thresholds
    }
    names = ("truncated", "undecodable", "missing", "too_many_pixels")
    failed = rng.random(count) < 0.02
    status = np.where(failed, [STATUS_CODES[name] for name in rng.choice(names, count, p=[0.6, 0.2, 0.15, 0.05])], OK)
    for values in scores.values():
        values[failed] = np.nan
    bits = np.where(rng.random(count) < 0.001, Reason.KNOWN_HASH, 0)
    sizes = tuple(len(part) for part in np.array_split(np.arange(count), max(1, count // 1000)))
    made = {"status": status.astype(np.uint8), "bits": bits.astype(np.uint16), "part_sizes": sizes, **further}
    return Made(scores=scores, policy=policy, **made)  # type: ignore[arg-type]
