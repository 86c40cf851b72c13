"""A model's file held against lists of known content: its digests, in one pass, whatever its size."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SourceError, SourceNotFoundError, StorageError, UsageError
from safetyfilter.hashes.kinds import HashKind
from safetyfilter.hashes.lists import HashLists
from safetyfilter.progress import Progress, Tally, notebook_progress
from safetyfilter.storage import Location, Place, entry_of, shown

_READ = 8 << 20
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFindings:
    """The result of holding a model's file against lists of known content.

    Attributes
    ----------
    lists : tuple of str
        The names of the lists that it is on.
    size_bytes : int
        The file's size, all of which was read.
    kinds : tuple of str
        The kinds of digests by which it was looked up.
    """

    lists: tuple[str, ...]
    size_bytes: int
    kinds: tuple[str, ...]


def check_model(file: Place, hash_lists: HashLists, *, progress: Progress | None = None) -> ModelFindings:
    """Return the lists of known content that a model's file is on, by digests of its bytes.

    It is read once, block by block, and never loaded. Other bytes have other digests: a model that was converted, cast
    to another precision or trained further is another file.

    Parameters
    ----------
    file : path, URL or Location
        The file; of a model in several files, one of them.
    hash_lists : HashLists
        Lists that hold MD5, SHA-1, SHA-256 or SHA-512 digests, each of them.
    progress : callable or None
        Called with the MiB that were read, as ``seen``; where left out, a notebook shows a bar after two seconds.

    Raises
    ------
    UsageError
        A list holds no digest of a file's bytes.
    SourceError
        The file is not there or can't be read.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> import hashlib, tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "model.safetensors").write_bytes(bytes(1000))
    >>> _ = (folder / "listed.txt").write_text("sha256:" + hashlib.sha256(bytes(1000)).hexdigest())
    >>> check_model(folder / "model.safetensors", HashLists.load([str(folder / "listed.txt")]))
    ModelFindings(lists=('listed.txt',), size_bytes=1000, kinds=('sha256',))
    """
    for one in hash_lists.lists:
        if not any(kind.of_bytes for kind in one.kinds):
            raise UsageError(
                f"the hash list {one.name} holds no digest of a file's bytes, by which alone a model is found; give "
                "lists of md5, sha1, sha256 or sha512"
            )
    kinds = sorted(kind for kind in hash_lists.kinds if kind.of_bytes)
    place = Location.of(file)
    with notebook_progress(progress, lambda: _tally(place), after_s=2) as told:
        size, digests = _read(place, kinds, told)
    return ModelFindings(
        lists=tuple(one.name for one in hash_lists.lists if one.having({kind: [digests[kind]] for kind in kinds})),
        size_bytes=size,
        kinds=tuple(kind.value for kind in kinds),
    )


def model_mib(file: Place) -> int | None:
    """Return a file's size in MiB, rounded down, for progress; None where the storage does not tell.

    >>> model_mib("no-such-file") is None
    True
    """
    place = Location.of(file)
    found = entry_of(place) if place.is_file() else None
    return None if found is None or found.size is None else found.size // MIB


def _tally(place: Location) -> Tally:
    return Tally(what="reading", total=model_mib(place), unit="MiB")


def _read(place: Location, kinds: list[HashKind], told: Progress | None) -> tuple[int, dict[HashKind, bytes]]:
    """Return a file's size and its digests."""
    running = {kind: hashlib.new(kind.algorithm, usedforsecurity=False) for kind in kinds}
    size = 0
    name = shown(str(place))
    try:
        with place.open() as stream, ThreadPoolExecutor(len(kinds)) as pool:
            while block := stream.read(_READ):
                list(pool.map(lambda digest, read=block: digest.update(read), running.values()))
                size += len(block)
                if told is not None:
                    told({"seen": size // MIB - (size - len(block)) // MIB})
    except StorageError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFoundError(f"there is no file {name}; give a model's file") from error
    except IsADirectoryError as error:
        raise SourceError(f"{name} is a folder; give the files of the model in it one by one") from error
    except (OSError, ValueError, Unreadable) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceError(f"can't read {name}: {reason}; give a model's file") from error
    return size, {kind: digest.digest() for kind, digest in running.items()}
