"""Runs without pictures: parts made up of digests and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from safetyfilter import Policy, Run, ScoreBatch
from safetyfilter.batches import STATUS_CODES
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.parts import ScoredPart
from safetyfilter.runs.start import started
from safetyfilter.sources.base import Part
from tests.engine.memory import MemorySource
from tests.runs.test_record import SETUP

Row = tuple[str, str, float, str]
"""Key, content, the score of both signals, and a status."""


class StatedSource(MemorySource):
    """Parts that have the given states and no samples."""

    def parts(self) -> list[Part]:
        return [Part(index=index, state=state) for index, state in enumerate(map(str, self.listed))]


def source_of(states: Sequence[str]) -> StatedSource:
    return StatedSource(listed=states)  # type: ignore[arg-type]


def scored(
    digester: Digester, index: int, state: str, rows: Sequence[Row], *, vectors: np.ndarray | None = None
) -> ScoredPart:
    """A part of these rows; content and score may be empty and NaN."""
    digests = [digester.key(key) + (digester.content(c.encode()) if c else bytes(16)) for key, c, _, _ in rows]
    values = np.array([[score, score] for _, _, score, _ in rows], np.float32).reshape(-1, 2)
    status = np.array([STATUS_CODES[name] for *_, name in rows], np.uint8)
    return ScoredPart.in_order(
        index,
        state,
        np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        ScoreBatch(values=values, signals=SETUP.signals, status=status),
        vectors=vectors,
    )


def run_of(place: Path, parts: Mapping[str, Sequence[Row]], policy: Policy | None = None) -> Run:
    """A run of which all parts are scored, by state; nothing is sealed or decided for good."""
    with started(place, source=source_of(list(parts)), setup=SETUP, policy=policy or Policy()) as run:
        for index, (state, rows) in enumerate(parts.items()):
            run.write(scored(run.digester(), index, state, rows))
    return run
