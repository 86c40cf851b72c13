"""Small scanned runs made of rows, that share a secret so that they can be joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from safetyfilter import Policy, Run, ScoreBatch
from safetyfilter.batches import STATUS_CODES, Reason
from safetyfilter.runs.apply import decide_parts
from safetyfilter.runs.decided import read_decisions
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.parts import ScoredPart
from safetyfilter.runs.record import RunSetup
from safetyfilter.runs.repeated import mark_repeated
from safetyfilter.runs.secret import secret_place
from safetyfilter.runs.start import started
from safetyfilter.storage import Location, Place, replacing
from tests.runs.making import StatedSource
from tests.runs.test_record import SETUP

SECRET = "ab" * 32
NARROW = replace(SETUP, encoder=replace(SETUP.encoder, width=4))
"""A setup whose embeddings have four columns."""
NAN = float("nan")


class Row(NamedTuple):
    """A sample, as a scan leaves it."""

    key: str
    scores: tuple[float, ...] = (0.0, 0.0)
    status: str = "ok"
    content: str = "content"
    vector: Sequence[float] | Sequence[Sequence[float]] | None = None
    known: bool = False


def part_of(digester: Digester, index: int, rows: Sequence[Row], signals: tuple[str, ...]) -> ScoredPart:
    """A scored part of these rows; with embeddings where the first row has one."""
    digests = [
        digester.key(row.key) + (digester.content(row.content.encode()) if row.content else bytes(16)) for row in rows
    ]
    values = [row.scores if row.status == "ok" else (NAN,) * len(signals) for row in rows]
    return ScoredPart.in_order(
        index,
        f"state {index}",
        np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        ScoreBatch(
            values=np.array(values, np.float32).reshape(-1, len(signals)),
            signals=signals,
            status=np.array([STATUS_CODES[row.status] for row in rows], np.uint8),
        ),
        np.array([row.known for row in rows], np.bool_) if any(row.known for row in rows) else None,
        np.array([row.vector for row in rows], np.float16) if rows and rows[0].vector is not None else None,
    )


def scanned(
    place: Place,
    parts: Iterable[Sequence[Row]],
    *,
    policy: Policy | None = None,
    setup: RunSetup = SETUP,
    location: str = "memory",
    secret: str | None = SECRET,
) -> Run:
    """A finished run of these parts, decided by the policy."""
    parts = list(parts)
    if secret is not None:
        with replacing(secret_place(Location.of(place))) as file:
            file.write(secret.encode())
    source = StatedSource(listed=[f"state {index}" for index in range(len(parts))], location=location)  # type: ignore[arg-type]
    with started(place, source=source, setup=setup, policy=policy or Policy()) as run:
        for index, rows in enumerate(parts):
            run.write(part_of(run.digester(), index, rows, setup.signals))
        mark_repeated(run)
        run.seal_scores(source.parts())
        return decide_parts(run, policy or Policy())


def reasons(run: Run, keys: Iterable[str]) -> Mapping[str, Reason]:
    """The reasons of samples by key, from the run's parts; those of all rows of a key that comes twice."""
    run.require_complete()
    found: dict[bytes, int] = {}
    for number in range(run.part_count):
        decided = read_decisions(run.file("decisions", number))
        for key, bits in zip(decided.keys, decided.reason_bits.tolist(), strict=True):
            found[key.tobytes()] = found.get(key.tobytes(), 0) | bits
    return {key: Reason(found[run.digester().key(key)]) for key in keys}
