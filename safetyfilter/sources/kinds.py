"""The kinds of source that files make up, by their names, and what among them would be left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from safetyfilter.errors import SourceError
from safetyfilter.sources.files import Listing
from safetyfilter.sources.pictures import PICTURE_EXTENSIONS

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_TABLES = (".parquet", ".parq", ".pq")
_NOT_READ = (
    *(".zip", ".7z", ".rar", ".tar.zst", ".tzst", ".tar.lz4", ".tar.z", ".arrow", ".feather", ".orc", ".avro"),
    *(".tfrecord", ".tfrecords", ".lmdb", ".mdb", ".h5", ".hdf5", ".npz", ".beton", ".mds", ".lance", ".rec"),
)
"""Files that hold many samples, in formats that are not read."""
_BESIDE = frozenset(
    {
        *("json", "jsonl", "txt", "csv", "tsv", "md", "rst", "yaml", "yml", "toml", "log", "idx", "index", "lock"),
        *("crc", "md5", "sha1", "sha256", "html", "py", "ipynb", "pdf"),
    }
)
"""Extensions of what lies beside tars and tables, and holds no picture."""

_log = logging.getLogger(__name__)


def is_tar(name: str) -> bool:
    """Return True for the name of a tar, compressed or not, in a format that Python's standard library reads.

    >>> is_tar("a/0.TAR"), is_tar("0.tar.gz"), is_tar("0.tgz"), is_tar("0.tar.zst")
    (True, True, True, False)
    """
    return name.lower().endswith(_TARS)


def is_table(name: str) -> bool:
    """Return True for the name of a Parquet file.

    >>> is_table("0.PARQUET"), is_table("0.pq"), is_table("0.csv")
    (True, True, False)
    """
    return name.lower().endswith(_TABLES)


def shards_of(listing: Listing) -> list[str]:
    """Return the names of the tars of a listing; hidden ones, as of other systems' doing, only where one is named."""
    return [name for name in _ending(listing, _TARS) if not (listing.is_folder and is_hidden(name))]


def tables_of(listing: Listing) -> list[str]:
    """Return the names of the Parquet files of a listing; hidden ones as of `shards_of`."""
    return [name for name in _ending(listing, _TABLES) if not (listing.is_folder and is_hidden(name))]


def _ending(listing: Listing, endings: tuple[str, ...]) -> list[str]:
    """Return the names with these endings; one look at a listing of millions tells that there are none."""
    if listing.extensions.isdisjoint(ending.rpartition(".")[2] for ending in endings):
        return []
    return [name for name in listing.names if name.lower().endswith(endings)]


def kind_of(listing: Listing) -> str:
    """Return the kind of source that lies at a place: ``datasets``, ``webdataset``, ``parquet`` or ``folder``.

    Files that would be left out are warned of with their number, and an error where they may hold samples.

    Raises
    ------
    SourceError
        There is more than one kind, a format that is not read, or nothing that is a source.
    """
    names = listing.names
    if "dataset_dict.json" in listing or ("state.json" in listing and "dataset_info.json" in listing):
        return "datasets"
    tars, tables = shards_of(listing), tables_of(listing)
    unread = [name for name in _ending(listing, _NOT_READ) if not is_hidden(name)]
    images = sum(n.rpartition(".")[2].lower() in PICTURE_EXTENSIONS and not is_hidden(n) for n in names)
    if tars:
        stems = {_stem(name) for name in tars}
        # img2dataset lays a Parquet file of metadata beside each tar
        strays = [name for name in tables if _stem(name) not in stems]
        _require_one_kind(listing, {"tars": len(tars), "Parquet files": len(strays), "images": images})
        _require_read(listing, unread)
        _warn_of({*names} - {*tars, *tables}, "tars")
        return "webdataset"
    if tables and not images:
        _require_read(listing, unread)
        _warn_of({*names} - {*tables}, "Parquet files")
        return "parquet"
    if not images:
        _require_read(listing, unread)
        if not listing.is_folder:
            raise SourceError(
                f"{listing.location} is not a source; give a folder of images, .tar or .parquet files, or a "
                "data set saved to disk"
            )
    elif unread or tables:
        _log.warning(
            "%s among the images %s (%s): each is on record as a sample that is not an image, and what is in it is "
            "not read%s%s",
            _number_of("file", len(unread) + len(tables)),
            "is an archive or a table" if len(unread) + len(tables) == 1 else "are archives or tables",
            _extensions([*unread, *tables]),
            f"; {remedy_for_tables(listing)}" if tables else "",
            "; unpack archives" if unread else "",
        )
    return "folder"


def remedy_for_tables(listing: Listing) -> str:
    """Return how the tables in a folder of images are read, by the name of the first; empty where there is none."""
    first = next((listing.place(name) for name in _ending(listing, _TABLES)), None)
    return "" if first is None else f"to read a table, name it as the source itself: {first}"


def _require_one_kind(listing: Listing, kinds: dict[str, int]) -> None:
    there = {kind: count for kind, count in kinds.items() if count}
    if len(there) > 1:
        found = " and ".join(_number_of(kind.removesuffix("s"), count) for kind, count in there.items())
        raise SourceError(f"{listing.location} holds {found}; pass one kind, for example a pattern like '*.tar'")


def _require_read(listing: Listing, names: Sequence[str]) -> None:
    if names:
        raise SourceError(
            f"{listing.location} holds {_number_of('file', len(names))} of a format that is not read "
            f"({_extensions(names)}); unpack what is in it or write it as tars or Parquet, or leave it out by a "
            "pattern like '*.tar'"
        )


def _warn_of(names: Iterable[str], kind: str) -> None:
    left = [name for name in names if not is_hidden(name) and name.rpartition(".")[2].lower() not in _BESIDE]
    if left:
        _log.warning(
            "%s beside the %s %s not read (%s)",
            _number_of("other file", len(left)),
            kind,
            "is" if len(left) == 1 else "are",
            _extensions(left),
        )


def _number_of(what: str, count: int) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _extensions(names: Iterable[str]) -> str:
    """Return the extensions of files with their numbers; names may say something of samples, extensions do not."""
    last = (name.rpartition("/")[2].rpartition(".") for name in names)
    counts = Counter(f".{extension.lower()}" if dot else "no extension" for _, dot, extension in last)
    return ", ".join(f"{count} {extension}" for extension, count in counts.most_common(8))


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def is_hidden(name: str) -> bool:
    """Return True for a path of which a part begins with a dot.

    >>> is_hidden(".cache/a.jpg"), is_hidden("a/._b.tar"), is_hidden("a/b.jpg")
    (True, True, False)
    """
    return name.startswith(".") or "/." in name
