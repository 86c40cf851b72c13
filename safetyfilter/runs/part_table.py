"""The table of a complete run's parts: which decisions each holds, and from which shards it was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.errors import RunError, SafetyFilterError, SchemaError
from safetyfilter.runs.held import INDEX_FOLDER
from safetyfilter.runs.index_place import cache_folder_of
from safetyfilter.runs.parts import read_meta, read_table, write_table
from safetyfilter.runs.run import Run
from safetyfilter.runs.shards import shards_in
from safetyfilter.runs.stored import digest_of
from safetyfilter.storage import Location, locked

_NAME = "parts.parquet"
_AT_ONCE = 16
"""Parts whose metadata is read at a time."""
_COLUMNS = {"content": pa.binary(32), "shards": pa.large_list(pa.binary(8))}
_REMEDY = "run `safetyfilter decide` again"


@dataclass(frozen=True, slots=True, eq=False)
class PartTable:
    """The parts of a complete run, found by the shards that they were read from.

    Attributes
    ----------
    contents : ndarray
        (P, 32) uint8, the digest of each part's decisions: ``run.json`` vouches for all of them together.
    in_keys : bool
        True where each key of the run is its shard's name and more.
    digests : ndarray
        (M,) uint64, ascending, the keyed digests of shards' names.
    parts : ndarray
        (M,) uint32, the part that was read from each; a shard stands there as often as it is in parts.
    """

    contents: npt.NDArray[np.uint8]
    in_keys: bool
    digests: npt.NDArray[np.uint64]
    parts: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, parts: Iterable[tuple[str, Mapping[str, Any]]]) -> PartTable:
        """Return the table of parts in the order of their numbers.

        Parameters
        ----------
        parts : iterable of str and mapping
            The digest of each part's decisions, in hex, and the metadata of one of the part's files.

        Examples
        --------
        >>> meta = {"shards": ["00" * 7 + "01"], "shards_in_keys": True}
        >>> PartTable.of([("00" * 32, meta), ("11" * 32, meta)]).parts_of("00" * 7 + "01")
        (0, 1)
        """
        contents: list[bytes] = []
        digests, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint32)]
        in_keys = True
        for number, (content, meta) in enumerate(parts):
            names, named = shards_in(meta)
            contents.append(bytes.fromhex(content))
            own = np.frombuffer(b"".join(names), ">u8").astype(np.uint64)
            digests.append(own)
            owners.append(np.full(len(own), number, np.uint32))
            in_keys &= named
        every, parts_of = np.concatenate(digests), np.concatenate(owners)
        order = np.argsort(every, kind="stable")
        rows = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 32)
        return cls(rows, in_keys and len(every) > 0, every[order], parts_of[order])

    @property
    def knows_shards(self) -> bool:
        """True where the shards are known from which the run's samples were read."""
        return len(self.digests) > 0

    @property
    def digest(self) -> str:
        """As `RunRecord.decisions` of the same parts."""
        return digest_of(map(self.content, range(len(self.contents))))

    def content(self, part: int) -> str:
        """Return the digest of a part's decisions, in hex."""
        return bytes(self.contents[part]).hex()

    def parts_of(self, shard: str) -> tuple[int, ...]:
        """Return the numbers of the parts read from a shard, by the digest of its name in hex; maybe none."""
        wanted = np.uint64(int(shard, 16))
        start, stop = (int(np.searchsorted(self.digests, wanted, side)) for side in ("left", "right"))
        return tuple(self.parts[start:stop].tolist())

    def write(self, place: Location) -> None:
        """Write the table, whole or not at all."""
        order = np.argsort(self.parts, kind="stable")
        counts = np.bincount(self.parts, minlength=len(self.contents))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        names = _column(self.digests[order].astype(">u8").view(np.uint8).reshape(-1, 8))
        shards = pa.LargeListArray.from_arrays(offsets, names)
        table = pa.table({"content": _column(self.contents), "shards": shards})
        meta = {"fingerprint": self.digest, "content": self.digest, "shards_in_keys": self.in_keys}
        write_table(table, place, meta)

    @classmethod
    def read(cls, place: Location) -> PartTable:
        """Return a table that was written.

        Raises
        ------
        RunError
            It is missing or damaged.
        """
        table, meta = read_table(place, _fault, row_bytes=32)
        try:
            contents = table.column("content").combine_chunks()
            lists = table.column("shards").combine_chunks()
            counts = np.diff(lists.offsets.to_numpy())
            rows, names = _values(contents, 32), _values(lists.flatten(), 8)
        except (KeyError, AttributeError, ValueError, pa.ArrowException) as error:
            raise RunError(f"{place} does not hold a table of parts ({error}); {_REMEDY}") from error
        owners = np.repeat(np.arange(len(rows), dtype=np.uint32), counts)
        digests = names.view(">u8").ravel().astype(np.uint64)
        order = np.argsort(digests, kind="stable")
        in_keys = meta.get("shards_in_keys") is True and len(digests) > 0
        return cls(rows, in_keys, digests[order], owners[order])


def _fault(schema: pa.Schema) -> str:
    found = {field.name: field.type for field in schema}
    return "" if found == _COLUMNS else f"a table of parts; {_REMEDY}"


def part_table_of(run: Run) -> PartTable:
    """Return the table of a complete run's parts, made where it is missing or of other decisions; needs no secret.

    It lies in ``index/`` of the run, or in the user's cache where the run can't be written; where nothing can, it is
    made anew each time.

    Raises
    ------
    RunError
        A part's decisions are missing or not those of the run.
    """
    cached = Location.local(str(cache_folder_of(run) / _NAME))
    places = [run.path / INDEX_FOLDER / _NAME, cached]
    for place in places:
        if (found := _read_own(run, place)) is not None:
            return found
    table = PartTable.of(_metas(run))
    if table.digest != run.record.decisions:
        raise RunError(f"the decisions in {run.path} are not those that its run.json speaks of; {_REMEDY}")
    for place in places if run.path.is_local else [cached]:
        if _written(table, place):
            break
    return table


def keep_part_table(run: Run, table: PartTable) -> None:
    """Write the table of a run that was just decided, and is held, into its ``index/``; where it can't, readers do."""
    _written(table, run.path / INDEX_FOLDER / _NAME)


def _read_own(run: Run, place: Location) -> PartTable | None:
    try:
        found = PartTable.read(place)
    except (RunError, SchemaError):
        return None
    return found if found.digest == run.record.decisions else None


def _written(table: PartTable, place: Location) -> bool:
    try:
        if not place.is_local:
            table.write(place)
            return True
        folder = Path(place).parent
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock", wait=True):
            for left in folder.glob(f".{_NAME}.*.tmp"):  # by a process that was killed
                left.unlink()
            table.write(place)
    except (SafetyFilterError, OSError):
        return False
    return True


def _metas(run: Run) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the digest and the metadata of each part's decisions, read in a few threads."""
    numbers = iter(range(run.part_count))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while several := list(islice(numbers, 64 * _AT_ONCE)):
            places = [run.file("decisions", number) for number in several]
            for place, meta in zip(places, pool.map(read_meta, places), strict=True):
                if meta is None:
                    raise RunError(f"{place} is missing or damaged; {_REMEDY}")
                yield str(meta["content"]), meta


def _column(values: npt.NDArray[np.uint8]) -> pa.Array:
    """A column of (N, W) bytes, W in each row."""
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(values.shape[1]), len(values), [None, data])


def _values(column: Any, width: int) -> npt.NDArray[np.uint8]:
    """The bytes of such a column; ValueError for another one."""
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    if column.type != pa.binary(width) or column.null_count:
        raise ValueError("other columns")
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset * width :]
    return data[: len(column) * width].reshape(-1, width)
