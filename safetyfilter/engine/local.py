"""The local engine: scans a source on this machine's device, and re-decides a run without an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from safetyfilter.data.parts import ScorePart
from safetyfilter.data.runs import Run, RunSetup
from safetyfilter.data.sources import Part, Sample, Source
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import RunError
from safetyfilter.filter import SafetyFilter
from safetyfilter.samples import OK, STANDIN_SIGNALS, Digester, Floats, SignalTable, Unreadable

Progress = Callable[[Mapping[str, int]], None]
"""Called with counts to add: ``seen``, ``kept``, ``excluded``, ``unscored``, ``parts`` and ``resumed``."""


@dataclass(frozen=True, slots=True)
class _Record:
    """What a scan keeps of a sample while its image is embedded; printed as its key digest and nothing else."""

    part: int
    key: bytes
    content: bytes | None

    def __str__(self) -> str:
        return self.key.hex()


@dataclass(slots=True)
class _OpenPart:
    """The rows of a part so far."""

    keys: list[bytes] = field(default_factory=list)
    contents: list[bytes | None] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    vectors: list[Floats] = field(default_factory=list)


def scan(source: Source, out: str | Path, safety_filter: SafetyFilter, *, keep_embeddings: bool = False,
         progress: Progress | None = None) -> Run:
    """Score and decide on every sample of a source, and leave a run directory.

    A scan that was interrupted goes on where it stopped: a part whose source, encoder and probes are unchanged is not
    done again.

    Parameters
    ----------
    source : Source
        From `open_source`.
    out : path
        The run directory: new, empty, or that of the same scan.
    safety_filter : SafetyFilter
        Encoder, probes, policy and how images are prepared.
    keep_embeddings : bool
        Also keep the embeddings, in float16.
    progress : callable or None
        Called as the scan goes on.

    Returns
    -------
    Run
        Complete, with counts that add up.

    Raises
    ------
    OtherRunError, OutputError
        See `Run.start`.
    """
    run = Run.start(out, source=source, setup=run_setup(safety_filter), policy=safety_filter.policy)
    with run.writing():
        digester = run.digester()
        report = progress or _silent
        todo = [p for p in source.parts() if not run.is_scored(p, digester, embeddings=keep_embeddings)]
        _score(run, source, todo, safety_filter, digester, keep_embeddings, report)
        return apply_policy(run, safety_filter.policy, progress=_only_resumed(report, {part.index for part in todo}))


def apply_policy(run: Run, policy: Policy, *, progress: Progress | None = None) -> Run:
    """Apply a policy to a run's stored scores; no image is touched.

    Parameters
    ----------
    run : Run
        With all its parts scored.
    policy : Policy
        In the real signals' names, or in the run's own.
    progress : callable or None
        Called after each part.

    Raises
    ------
    PolicyError
        The policy names a signal that the run has no scores of.
    RunError
        A part has no scores; scan again.
    """
    table = SignalTable.of(run.info["signals"])
    policy = policy.for_table(table) if table else policy
    policy.require(run.info["signals"])
    run.info |= {"complete": False}
    run.write_info()
    total: Counter[str] = Counter()
    for index in range(run.part_count):
        if not run.file("scores", index).exists():
            raise RunError(f"part {index} of {run.path} has no scores; run the same scan again, which does only what "
                           "is missing")
        counts = run.decide_part(index, policy)
        total.update(counts)
        if progress:
            progress({name: counts[name] for name in ("seen", "kept", "excluded", "unscored")} | {"parts": index})
    run.finish(total, policy)
    return run


def run_setup(safety_filter: SafetyFilter) -> RunSetup:
    """What the scores of a scan with this filter depend on."""
    encoder, probes, options = safety_filter.encoder, safety_filter.probes, safety_filter.options
    return RunSetup(encoder=encoder.spec.as_dict(), stand_in=SignalTable.of(probes.signals) == STANDIN_SIGNALS,
                    probes=probes.digests, signals=probes.signals, views=options.views, decode=options.decode,
                    precision=str(encoder.dtype).removeprefix("torch."))


def _score(run: Run, source: Source, todo: list[Part], safety_filter: SafetyFilter, digester: Digester,
           keep_embeddings: bool, report: Progress) -> None:
    """Score the parts that are to do, in one stream, and write each as soon as its last sample is scored."""
    def items() -> Iterator[tuple[int, Sample]]:
        for part in todo:
            for sample in source.samples(part):
                yield part.index, sample

    def load(item: tuple[int, Sample]) -> tuple[_Record, bytes | Unreadable]:
        index, sample = item
        key = digester.key(sample.key)
        try:
            content = sample.read()
        except Unreadable as failure:
            return _Record(index, key, None), failure
        return _Record(index, key, digester.content(content)), content

    waiting = list(todo)
    rows = _OpenPart()

    def write_first() -> _OpenPart:
        part = waiting.pop(0)
        values = np.concatenate([np.empty((0, len(safety_filter.probes.signals)), np.float32), *rows.values])
        written = ScorePart.of(keys=rows.keys, contents=rows.contents, values=values, status=rows.status,
                               signals=safety_filter.probes.signals, fingerprint=run.fingerprint(part, digester))
        run.write_scores(part.index, written, _stack(rows.vectors, safety_filter) if keep_embeddings else None)
        return _OpenPart()

    for records, batch, decisions in safety_filter.stream(items(), load):
        keep = decisions.keep
        for row, record in enumerate(records):
            while record.part != waiting[0].index:
                rows = write_first()
            rows.keys.append(record.key)
            rows.contents.append(record.content)
            rows.status.append(batch.failures.get(row, OK))
            rows.values.append(decisions.scores.values[row:row + 1])
            if keep_embeddings:
                rows.vectors.append(batch.vectors[row:row + 1])
        report({"seen": len(records), "kept": int(keep.sum()), "excluded": int((~keep).sum()),
                "unscored": len(batch.failures)})
    while waiting:
        rows = write_first()


def _stack(vectors: list[Floats], safety_filter: SafetyFilter) -> Floats:
    return np.concatenate(vectors) if vectors else np.empty((0, safety_filter.probes.width), np.float32)


def _silent(_: Mapping[str, int]) -> None:
    pass


def _only_resumed(report: Progress, scored: set[int]) -> Progress:
    """Reports the parts that were already there; those just scored were reported batch by batch."""
    def resumed(counts: Mapping[str, int]) -> None:
        if counts["parts"] not in scored:
            report({**counts, "resumed": counts["seen"]})

    return resumed
