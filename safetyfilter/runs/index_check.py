"""Holds an index against the decisions that it was made from: its checksums tell of damage, and not of a forgery."""

from __future__ import annotations

import numpy as np

from safetyfilter.errors import RunError
from safetyfilter.runs.decided import read_decisions
from safetyfilter.runs.index import DecisionIndex, number_column
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import in_turn, require_own

_THREADS = 4


def require_index_of(run: Run, index: DecisionIndex) -> None:
    """Raise `RunError` unless an index has the rows of a run's decisions, and no others; needs no secret.

    All decisions are read, and held against the digest in the run's record.

    Parameters
    ----------
    run : Run
        Complete.
    index : DecisionIndex
        Of it, as it says.

    Raises
    ------
    RunError
        A key is missing in the index, or has other reasons or another content, or is in no part of the run; or a part
        is missing, damaged or not of the run.
    """
    found = np.zeros(len(index), np.uint16)
    there = np.zeros(len(index), np.bool_)
    contents: list[str] = []
    wrong = False
    read = in_turn(
        lambda number: read_decisions(run.file("decisions", number)),
        run.part_count,
        threads=_THREADS,
        ahead=2 * _THREADS,
    )
    for part in read:
        contents.append(part.content)
        rows = index.find(part.keys)
        if (rows < 0).any():
            wrong = True
            continue
        np.bitwise_or.at(found, rows, part.reason_bits)
        there[rows] = True
        held = index.contents[rows]  # 0 where a key has several, which matches nothing
        wrong |= bool(((held != 0) & (held != number_column(part.contents, 0, "<u8"))).any())
    require_own(contents, run.record.decisions, run.path, what="decisions", checks=run.record.decisions_checks)
    if wrong or not there.all() or not np.array_equal(found, index.reasons):
        raise RunError(
            f"the index of {run.path} does not hold its decisions: it was changed; remove {run.path / 'index'} and the "
            "cache (XDG_CACHE_HOME), and it is made again"
        )
