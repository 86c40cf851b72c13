"""The files of a run's parts: their places, their metadata, and all of them read as one."""

from __future__ import annotations

import hashlib
import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import STATUS_CODES
from safetyfilter.errors import RunError
from safetyfilter.runs.parts import read_meta, read_scores, row_count, scores_table
from safetyfilter.runs.record import RunRecord
from safetyfilter.storage import Location, read_npy

T = TypeVar("T")
_AT_ONCE = 16
"""Files on other storage that are looked at at a time."""
FOLDERS = ("scores", "decisions", "embeddings", "sealed")
_EXTENSIONS = {"embeddings": "npy", "sealed": "bin"}
_EMBEDDINGS_AGAIN = "remove it, and scan again with --keep-embeddings"
_PART = re.compile(r"part-(\d{5,})\.(parquet|npy|bin)")


def part_file(root: Location, folder: str, index: int) -> Location:
    """Return the place of one part's file.

    >>> part_file(Location.of("run"), "embeddings", 7).name
    'part-00007.npy'
    """
    return root / folder / f"part-{index:05d}.{_EXTENSIONS.get(folder, 'parquet')}"


def part_metas(root: Location, record: RunRecord) -> list[dict[str, Any]]:
    """Return the metadata of all parts' scores; `RunError` unless they are those that the record vouches for."""
    stored = stored_metas(root, "scores", record.source.parts)
    metas = [meta for meta in stored if meta is not None]
    if len(metas) < record.source.parts:
        missing = next((index for index, meta in enumerate(stored) if meta is None), len(stored))
        raise RunError(
            f"part {missing} of {root} has no scores; run the same scan again, which does only what is missing"
        )
    require_own([vouched(meta) for meta in metas], record.scores, root, checks=record.scores_checks)
    return metas


def stored_metas(root: Location, folder: str, parts: int) -> list[dict[str, Any] | None]:
    """Return the metadata of so many parts' files in a folder; None for one that is missing or not whole.

    The list ends behind the last part that has a file: the number of parts in a damaged record can be any.
    """
    there = {number for number in part_numbers(root, folder) if number < parts}

    def meta_of(index: int) -> dict[str, Any] | None:
        return read_meta(part_file(root, folder, index)) if index in there else None

    numbers = range(max(there, default=-1) + 1)
    if root.is_local:
        return list(map(meta_of, numbers))
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # each waits for the storage
        return list(pool.map(meta_of, numbers))


def in_turn(work: Callable[[int], T], parts: int, *, threads: int, ahead: int) -> Iterator[T]:
    """Yield what is made of each part by its number, in order, while so many more are in work or wait to be taken.

    >>> list(in_turn(lambda number: number * number, 5, threads=2, ahead=2))
    [0, 1, 4, 9, 16]
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for number in range(parts):
                waiting.append(pool.submit(work, number))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def load_scores(root: Location, record: RunRecord) -> pa.Table:
    """Return the scores of all samples; errors as of `Run.read_scores`."""
    tables, parts = [], []
    for index in range(record.source.parts):
        part, meta = read_scores(part_file(root, "scores", index), record.setup.signals)
        tables.append(scores_table(part))
        parts.append(vouched(meta))
    require_own(parts, record.scores, root, checks=record.scores_checks)
    return pa.concat_tables(tables, promote_options="default")  # parts may lack matches on lists of known content


def load_embeddings(root: Location, record: RunRecord) -> npt.NDArray[np.float16]:
    """Return the embeddings of all samples; errors as of `Run.read_embeddings`."""
    arrays: list[npt.NDArray[np.float16]] = []
    for index, meta in enumerate(part_metas(root, record)):
        rows, width = row_count(part_file(root, "scores", index)), record.setup.encoder.width
        array = part_embeddings(root, index, meta.get("embeddings"), shape=(rows, width))
        if meta["repeated"] is not None:  # samples that no key tells apart have no embedding of their own
            part, _ = read_scores(part_file(root, "scores", index), record.setup.signals)
            array = np.array(array)
            array[part.scores.status == STATUS_CODES["repeated_key"]] = np.nan
        arrays.append(array)
    filled = [array for array in arrays if len(array)] or arrays[:1]  # a part without samples has no views
    return filled[0] if len(filled) == 1 else np.concatenate(filled)


def part_embeddings(
    root: Location, index: int, digest: str | None, *, shape: tuple[int, int], known: bool = False
) -> npt.NDArray[np.float16]:
    """Return (N, D) or (N, V, D) float16, the embeddings of one part, mapped into memory where they are local.

    Parameters
    ----------
    root : Location
        The run directory.
    index : int
        The part's number.
    digest : str or None
        Of the embeddings, as the part's scores have it; None where there are none.
    shape : tuple of int
        The part's rows, and the encoder's width D; a row with a caption is of 2 D.
    known : bool
        They were compared with the digest before.

    Raises
    ------
    RunError
        There are none, or not those of the part's scores.
    """
    if digest is None:
        raise RunError(f"{root} holds no embeddings; scan again with --keep-embeddings")
    place = part_file(root, "embeddings", index)
    if place.is_local:
        if known or holds(place, digest):
            return _of_shape(lambda: read_npy(place), shape, place)
    elif place.is_file():
        data = place.read_bytes()  # fetched once, and compared whenever it is
        if hashlib.sha256(data).hexdigest() == digest:
            return _of_shape(lambda: np.load(io.BytesIO(data), allow_pickle=False), shape, place)
    raise RunError(f"{place} does not hold the embeddings of its scores; {_EMBEDDINGS_AGAIN}")


def _of_shape(
    read: Callable[[], npt.NDArray[np.float16]], shape: tuple[int, int], place: Location
) -> npt.NDArray[np.float16]:
    """The array that is read; `RunError` where it is none, or not that of a part's rows."""
    rows, width = shape
    try:
        array = read()
        said = f"{array.dtype} of the shape {array.shape}"
    except ValueError as error:
        raise RunError(f"{place} holds no embeddings ({error}); {_EMBEDDINGS_AGAIN}") from error
    if array.dtype != np.float16 or array.ndim not in (2, 3) or len(array) != rows or array.shape[-1] % width:
        raise RunError(f"{place} holds {said}, and not float16 of {rows:,} rows {width} wide; {_EMBEDDINGS_AGAIN}")
    return array


def vouched(meta: Mapping[str, Any]) -> str:
    """Return what a record vouches for of a part's scores: what they depend on, and what they are.

    >>> vouched({"fingerprint": "f", "content": "c", "signals": ["minor"]})
    'f c'
    """
    return f"{meta['fingerprint']} {meta['content']}"


def digest_of(parts: Iterable[str]) -> str:
    """Return the SHA-256 in hex over a text for each part, in order.

    >>> digest_of(["a", "b"]) == digest_of(["b", "a"])
    False
    """
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def checks_of(parts: Iterable[str]) -> str:
    """Return four hexadecimal digits for a text for each part, in order, by which one that was altered can be named.

    >>> checks_of(["a", "b"])
    'ca973e23'
    """
    return "".join(hashlib.sha256(part.encode()).hexdigest()[:4] for part in parts)


def require_own(parts: Iterable[str], expected: str, root: object, *, what: str = "scores", checks: str = "") -> None:
    """Raise `RunError` unless parts are those that the record vouches for, by the digest in it.

    Parameters
    ----------
    parts : iterable of str
        A text for each part, in order.
    expected : str
        Their digest, as the record has it (`digest_of`).
    root : object
        The run, for the error.
    what : str
        ``scores`` or ``decisions``.
    checks : str
        As the record has them (`checks_of`), by which the error names the first part that differs; empty where the
        record was written without.
    """
    parts = list(parts)
    if digest_of(parts) == expected:
        return
    found = checks_of(parts)
    numbers = (at // 4 for at in range(0, max(len(found), len(checks)), 4) if found[at : at + 4] != checks[at : at + 4])
    altered = next(numbers, None) if checks else None
    which = f"the {what} in {root}" if altered is None else f"the {what} of part {altered} in {root}"
    remedy = {
        "scores": "run the same scan again, which does only what is missing",
        "decisions": "run `safetyfilter decide` again",
    }
    raise RunError(f"{which} are not those that its run.json speaks of; {remedy[what]}")


def file_digest(place: Location) -> str:
    """Return the SHA-256 in hex of a file."""
    with place.open() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seems_to_hold(place: Location, digest: str) -> bool:
    """Return True as `holds` does; on object storage, where a file appears whole, for one that is there.

    Else a scan that goes on would fetch all embeddings. They are compared with their digest when they are read.
    """
    return place.is_file() if place.is_object_storage else holds(place, digest)


def holds(place: Location, digest: str) -> bool:
    """Return True for a file that is there and has this SHA-256."""
    return place.is_file() and file_digest(place) == digest


def part_numbers(root: Location, folder: str) -> list[int]:
    """Return the numbers of the parts that have a file in a folder, in ascending order."""
    return sorted({int(match[1]) for name in (root / folder).names() if (match := _PART.fullmatch(name))})


def remove_parts(root: Location, first: int) -> None:
    """Remove the files of the parts from number `first` on; others in the folders are left alone."""
    for folder in FOLDERS:
        for number in part_numbers(root, folder):
            if number >= first:
                part_file(root, folder, number).remove()
