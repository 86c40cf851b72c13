"""Changes to a run's files, made by somebody who knows their form and lets digests and counts agree with them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter import Run
from safetyfilter.batches import ScoreBatch, count_decisions
from safetyfilter.runs.decided import read_decisions, write_decisions
from safetyfilter.runs.index import DecisionIndex
from safetyfilter.runs.index_file import records, write_index
from safetyfilter.runs.indexed import index_of, own_index
from safetyfilter.runs.parts import PART_METADATA, read_meta, read_scores, write_scores
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.stored import checks_of, digest_of, vouched

Rows = np.ndarray
Change = Callable[[Run], None]


def agree(run: Run) -> None:
    """Write a ``run.json`` whose digests, checks and counts are those of the files."""
    scores, decisions = (
        [read_meta(run.file(folder, number)) or {} for number in range(run.part_count)]
        for folder in ("scores", "decisions")
    )
    texts = [vouched(meta) for meta in scores], [meta["content"] for meta in decisions]
    bits = [read_decisions(run.file("decisions", number)).reason_bits for number in range(run.part_count)]
    record = replace(
        run.record,
        scores=digest_of(texts[0]),
        scores_checks=checks_of(texts[0]),
        decisions=digest_of(texts[1]),
        decisions_checks=checks_of(texts[1]),
        counts=dict(count_decisions(np.concatenate(bits))),
    )
    run.write_record(record)


def rewrite(
    run: Run,
    number: int,
    *,
    rows: Callable[[Rows], Rows] = lambda numbers: numbers,
    bits: Callable[[Rows], Rows] = lambda found: found,
    scores: Callable[[Rows], Rows] = lambda found: found,
) -> None:
    """Write a part's scores and decisions anew, with other rows, reasons or scores; its own digests agree."""
    part, meta = read_scores(run.file("scores", number), run.record.setup.signals)
    decided = read_decisions(run.file("decisions", number))
    taken = rows(np.arange(len(part)))
    columns = ScoreBatch(
        values=scores(part.scores.values.copy())[taken], signals=part.scores.signals, status=part.scores.status[taken]
    )
    there = ScoredPart(index=number, state="", keys=part.keys[taken], contents=part.contents[taken], scores=columns)
    content = write_scores(there, run.file("scores", number), meta)
    told = {"fingerprint": meta["fingerprint"], "scores": content, "policy": decided.policy, **decided.shards}
    write_decisions(there, bits(decided.reason_bits.copy())[taken], run.file("decisions", number), told)


def swap_signals(run: Run, number: int) -> None:
    """Give each of a part's two signals the other's scores by swapping their names alone, wherever they stand."""
    place = Path(run.file("scores", number))
    table = pq.read_table(place)
    meta = json.loads(table.schema.metadata[PART_METADATA])
    one, two = meta["signals"]
    other = {one: two, two: one}
    told = json.dumps(meta | {"signals": [two, one]}).encode()
    renamed = table.rename_columns([other.get(name, name) for name in table.column_names])
    pq.write_table(renamed.replace_schema_metadata({**table.schema.metadata, PART_METADATA: told}), place)


def rewrite_raw(run: Run, folder: str, number: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a part's table and leave all that is said of it in its metadata."""
    place = Path(run.file(folder, number))
    table = pq.read_table(place)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), place)


def swap_files(run: Run, folder: str, one: int, other: int) -> None:
    """Let two parts have each other's file."""
    places = [Path(run.file(folder, number)) for number in (one, other)]
    contents = [place.read_bytes() for place in places]
    for place, content in zip(places, reversed(contents), strict=True):
        place.write_bytes(content)


def edit_json(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a file of JSON holds."""
    content = json.loads(place.read_text())
    change(content)
    place.write_text(json.dumps(content, indent=2) + "\n")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each number, text and truth value in an object of JSON."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, name))
    else:
        yield path


def edited(content: Any, path: tuple[Any, ...]) -> None:
    """Change one leaf, to one of the same kind where there is such a thing."""
    for name in path[:-1]:
        content = content[name]
    value = content[path[-1]]
    if isinstance(value, bool) or value is None:
        content[path[-1]] = not value
    elif isinstance(value, int | float):
        content[path[-1]] = value + 1
    else:
        digits = re.fullmatch("[0-9a-f]+", value)
        content[path[-1]] = ("0" if value[:1] != "0" else "1") + value[1:] if digits else f"{value}x"


def flip_a_keep(bits: np.ndarray) -> np.ndarray:
    """Keep the first row that is excluded."""
    bits[np.flatnonzero(bits)[0]] = 0
    return bits


def forge(run: Run) -> None:
    """Let the index keep everything; its checksums and its fingerprint are those of a whole one."""
    index = own_index(run) or index_of(run)
    assert isinstance(index.place, Path)
    parts = [read_decisions(run.file("decisions", number)) for number in range(run.part_count)]
    rows = [records(part.keys, part.contents, np.zeros_like(part.reason_bits)) for part in parts]
    write_index(index.place, rows, rows=sum(map(len, rows)), fingerprint=index.fingerprint)
    assert DecisionIndex(index.place).fingerprint == index.fingerprint
