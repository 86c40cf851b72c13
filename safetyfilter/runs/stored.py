"""The files of a run's parts: their places, their metadata, and all of them read as one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import STATUS_CODES
from safetyfilter.errors import RunError
from safetyfilter.runs.parts import read_meta, read_scores, scores_table
from safetyfilter.runs.record import RunRecord
from safetyfilter.storage import Location, read_npy

FOLDERS = ("scores", "decisions", "embeddings")
_PART = re.compile(r"part-(\d{5,})\.(parquet|npy)")


def part_file(root: Location, folder: str, index: int) -> Location:
    """Return the place of one part's file.

    >>> part_file(Location.of("run"), "embeddings", 7).name
    'part-00007.npy'
    """
    return root / folder / f"part-{index:05d}.{'npy' if folder == 'embeddings' else 'parquet'}"


def part_metas(root: Location, record: RunRecord) -> list[dict[str, Any]]:
    """Return the metadata of all parts' scores; `RunError` unless they are those that the record vouches for."""
    metas = []
    for index in range(record.source.parts):
        meta = read_meta(part_file(root, "scores", index))
        if meta is None:
            raise RunError(
                f"part {index} of {root} has no scores; run the same scan again, which does only what is missing"
            )
        metas.append(meta)
    require_own([vouched(meta) for meta in metas], record.scores, root)
    return metas


def load_scores(root: Location, record: RunRecord) -> pa.Table:
    """Return the scores of all samples; errors as of `Run.read_scores`."""
    tables, parts = [], []
    for index in range(record.source.parts):
        part, meta = read_scores(part_file(root, "scores", index))
        tables.append(scores_table(part))
        parts.append(vouched(meta))
    require_own(parts, record.scores, root)
    return pa.concat_tables(tables)


def load_embeddings(root: Location, record: RunRecord) -> npt.NDArray[np.float16]:
    """Return the embeddings of all samples; errors as of `Run.read_embeddings`."""
    arrays: list[npt.NDArray[np.float16]] = []
    for index, meta in enumerate(part_metas(root, record)):
        array = part_embeddings(root, index, meta.get("embeddings"))
        if meta["repeated"] is not None:  # samples that no key tells apart have no embedding of their own
            part, _ = read_scores(part_file(root, "scores", index))
            array = np.array(array)
            array[part.scores.status == STATUS_CODES["repeated_key"]] = np.nan
        arrays.append(array)
    filled = [array for array in arrays if len(array)] or arrays[:1]  # a part without samples has no views
    return filled[0] if len(filled) == 1 else np.concatenate(filled)


def part_embeddings(root: Location, index: int, digest: str | None, *, known: bool = False) -> npt.NDArray[np.float16]:
    """Return (N, D) or (N, V, D) float16, the embeddings of one part, mapped into memory where they are local.

    Parameters
    ----------
    root : Location
        The run directory.
    index : int
        The part's number.
    digest : str or None
        Of the embeddings, as the part's scores have it; None where there are none.
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
    if not known and not holds(place, digest):
        raise RunError(f"{place} does not hold the embeddings of its scores; scan again with --keep-embeddings")
    return read_npy(place)


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


def require_own(parts: Iterable[str], expected: str, root: object, *, what: str = "scores") -> None:
    """Raise `RunError` unless parts are those that the record vouches for, by the digest in it."""
    if digest_of(parts) != expected:
        remedy = {
            "scores": "run the same scan again, which does only what is missing",
            "decisions": "run `safetyfilter decide` again",
        }
        raise RunError(f"the {what} in {root} are not those that its run.json speaks of; {remedy[what]}")


def file_digest(place: Location) -> str:
    """Return the SHA-256 in hex of a file."""
    with place.open() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
