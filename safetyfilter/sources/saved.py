"""Data sets as `Dataset.save_to_disk` writes them: loaded, with what is wrong with one told from faults of storage."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path, PurePosixPath
from traceback import walk_tb
from typing import Any

from safetyfilter.errors import SourceError
from safetyfilter.sources.datasets import Rows
from safetyfilter.sources.files import Listing
from safetyfilter.sources.paths import PathRule
from safetyfilter.storage import is_fault, parse_json, retried

_COPIES: list[tempfile.TemporaryDirectory[str]] = []
"""Copies of data sets on other storage, which are removed when the process ends."""
_READERS = ("datasets", "json", "pyarrow")
"""Packages that read a saved data set's files, and raise errors of their own for damaged ones."""


def load_saved(listing: Listing, *, root: str | None = None) -> Rows:
    """Return the data set that `Dataset.save_to_disk` wrote; its rows may name files in its folder, or below `root`.

    One on other storage is copied to the folder of temporary files, for as long as the process lives. datasets' own way
    of copying takes an earlier copy for the data set, whatever has become of it since.

    Raises
    ------
    SourceError
        It can't be loaded, or names files that are not its own.
    StorageError
        The storage failed each time it was asked.
    """
    place = listing.location
    if "::" in place:
        raise SourceError(f"datasets can't load a data set from {place}, whose name holds '::'; rename the folder")
    _check_files(listing)
    folder = place if listing.root.is_local else _copied(listing)
    data = retried(lambda: _load(folder, place), place)
    return Rows(
        data=data,
        location=place,
        rule=PathRule(folder=listing.root, within=listing.root, root=root),
        state=hashlib.blake2b(
            listing.state(listing.names).encode("utf-8", "surrogatepass"), digest_size=16
        ).hexdigest(),
        extents=listing.extents,
    )


def _check_files(listing: Listing) -> None:
    """Raise `SourceError` where a data set's description names splits or files outside the folder that it lies in."""
    if "dataset_dict.json" in listing:
        try:
            splits = [str(split) for split in parse_json(listing.place("dataset_dict.json").read_bytes())["splits"]]
        except (ValueError, LookupError, TypeError):
            splits = []  # damaged in a way that datasets itself tells of
        if any(split in ("", ".", "..") or "/" in split for split in splits):
            raise SourceError(
                "dataset_dict.json names splits that are not folders beside it; save the data set again with "
                "DatasetDict.save_to_disk"
            )
    for name in (name for name in listing.names if PurePosixPath(name).name == "state.json"):
        try:
            files = parse_json(listing.place(name).read_bytes()).get("_data_files") or []
            named = [str(file["filename"]) for file in files]
        except (ValueError, AttributeError, LookupError, TypeError):
            continue  # damaged in a way that datasets itself tells of
        if any(PurePosixPath(file).name != file for file in named):
            raise SourceError(
                f"{name} names data files that do not lie beside it; save the data set again with Dataset.save_to_disk"
            )


def _copied(listing: Listing) -> str:
    """Return a folder of this machine with a copy of the listed files; OutputError where there is no room."""
    copy = tempfile.TemporaryDirectory(prefix="safetyfilter-", ignore_cleanup_errors=True)
    _COPIES.append(copy)
    for name in listing.names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise SourceError(f"a file of the data set saved at {listing.location} has '..' in its name; save it again")
        listing.place(name).copy_to(Path(copy.name) / name)
    return copy.name


def _load(folder: str, place: str) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(folder)
    except Exception as error:  # datasets raises many kinds for a damaged folder
        if is_fault(error) and not _is_damage(error):
            raise
        raise SourceError(
            f"can't load the data set saved at {place}: {error}; save it again with Dataset.save_to_disk"
        ) from error


def _is_damage(error: Exception) -> bool:
    """Return True for what pyarrow, json or datasets say of a file's content: the last to run was their code."""
    if isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError):
        return False
    module = type(error).__module__
    if type(error) is OSError:  # pyarrow's, for a file that ends too early, and that of many storage clients
        frames = list(walk_tb(error.__traceback__))
        module = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    return module.partition(".")[0] in _READERS
