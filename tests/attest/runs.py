"""Finished runs without pictures for the tests of attestations."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from safetyfilter import Policy, Run
from safetyfilter.runs.apply import decide_parts
from safetyfilter.sources.base import Part, Sample, SampleBatch, batched
from tests.engine.memory import MemorySource
from tests.runs.making import Row, run_of, scored, source_of

PARTS: dict[str, list[Row]] = {
    f"state-{part}": [
        (
            f"{part}/{row}.jpg",
            f"picture {part} {row}" if row else "",
            (part * 7 + row) % 10 / 10,
            "ok" if row else "empty",
        )
        for row in range(20 + part)
    ]
    for part in range(3)
}
"""Three parts, each of which has rows to keep and rows to exclude, and one that could not be read."""


def finished(place: Path, *, vectors: bool = False, policy: Policy | None = None) -> Run:
    """A complete run of `PARTS`, decided by a policy, maybe with embeddings."""
    run = run_of(place, PARTS, policy)
    parts = source_of(list(PARTS)).parts()
    with run.writing():
        if vectors:
            for index, (state, rows) in enumerate(PARTS.items()):
                embeddings = np.random.default_rng(index).standard_normal((len(rows), 512)).astype(np.float16)
                run.write(scored(run.digester(), index, state, rows, vectors=embeddings))
        run.seal_scores(parts)
        decide_parts(run, run.policy)
    return run


def copied(run: Run, place: Path) -> Run:
    """The same run elsewhere, without its secret: no verification needs it."""
    shutil.copytree(run.path, place)
    return Run.open(place)


class Listed(MemorySource):
    """Samples that an export reads."""

    def batches(self, part: Part, *, max_bytes: int) -> Iterator[SampleBatch]:  # type: ignore[override]
        return batched(self.samples(part))


def source() -> Listed:
    """The samples of `PARTS`."""
    return Listed(
        listed=[[Sample(key=key, image=content.encode()) for key, content, *_ in rows] for rows in PARTS.values()]
    )
