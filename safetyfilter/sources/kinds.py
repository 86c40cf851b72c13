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


def kind_of(listing: Listing) -> str:
    """Return the kind of source that lies at a place: ``datasets``, ``webdataset``, ``parquet`` or ``folder``.

    Files that would be left out are warned of with their number, and an error where they may hold samples.

    Raises
    ------
    SourceError
        There is more than one kind, a format that is not read, or nothing that is a source.
    """
    names = listing.names
    if "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= set(names):
        return "datasets"
    tars, tables = [n for n in names if is_tar(n)], [n for n in names if is_table(n)]
    unread = [n for n in names if n.lower().endswith(_NOT_READ) and not _is_hidden(n)]
    images = [n for n in names if n.rpartition(".")[2].lower() in PICTURE_EXTENSIONS and not _is_hidden(n)]
    if tars:
        stems = {_stem(name) for name in tars}
        # img2dataset lays a Parquet file of metadata beside each tar
        strays = [name for name in tables if _stem(name) not in stems]
        _require_one_kind(listing, {"tars": tars, "Parquet files": strays, "images": images})
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
            "%d files among the images are archives or tables (%s): each is on record as a sample that is not an "
            "image, and what is in it is not read",
            len(unread) + len(tables),
            _extensions([*unread, *tables]),
        )
    return "folder"


def _require_one_kind(listing: Listing, kinds: dict[str, Sequence[str]]) -> None:
    there = {kind: len(names) for kind, names in kinds.items() if names}
    if len(there) > 1:
        found = " and ".join(f"{count} {kind}" for kind, count in there.items())
        raise SourceError(f"{listing.location} holds {found}; pass one kind, for example a pattern like '*.tar'")


def _require_read(listing: Listing, names: Sequence[str]) -> None:
    if names:
        raise SourceError(
            f"{listing.location} holds {len(names)} files of a format that is not read ({_extensions(names)}); unpack "
            "them or write them as tars or Parquet, or leave them out by a pattern like '*.tar'"
        )


def _warn_of(names: Iterable[str], kind: str) -> None:
    left = [name for name in names if not _is_hidden(name) and name.rpartition(".")[2].lower() not in _BESIDE]
    if left:
        _log.warning("%d other files beside the %s are not read (%s)", len(left), kind, _extensions(left))


def _extensions(names: Iterable[str]) -> str:
    """Return the extensions of files with their numbers; names may say something of samples, extensions do not."""
    last = (name.rpartition("/")[2].rpartition(".") for name in names)
    counts = Counter(f".{extension.lower()}" if dot else "no extension" for _, dot, extension in last)
    return ", ".join(f"{count} {extension}" for extension, count in counts.most_common(8))


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
