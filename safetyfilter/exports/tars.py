"""Exports to WebDataset tars."""

from __future__ import annotations

import io
import tarfile
from pathlib import PurePosixPath

from safetyfilter.errors import OutputError
from safetyfilter.exports.files import Files
from safetyfilter.exports.kept import Kept
from safetyfilter.exports.writer import FolderOfFiles

_SHARD_SIZE = 10_000
"""Samples in a tar, where the source is not made of tars itself."""
_COMPRESSIONS = {".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz"}


class WebDatasetWriter(FolderOfFiles):
    """Tars; with the names of the source's shards where samples lie in some, numbered otherwise.

    Members of the source's tars keep their names to the letter, which `webdataset.TarWriter` does not do: it leaves
    out those that begin with an underscore, and adds a dot where there is no extension.
    """

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._tar: tarfile.TarFile | None = None
        self._name: str | None = None
        self._file = ""
        self._written = 0

    def start_shard(self, name: str) -> None:
        """Begin the tar that answers to the source's, which is there even if none of its samples is kept."""
        if name != self._name:
            self._tar, self._name = self._opened(name), name

    def write(self, kept: Kept) -> None:
        """Write the image and what belongs to it, under the sample's key."""
        if kept.shard is not None:
            self.start_shard(kept.shard)
            self._add(kept.key.removeprefix(f"{kept.shard}/"), {kept.extension: kept.image, **kept.beside()})
            return
        if self._written % _SHARD_SIZE == 0:
            self.start_shard(f"{self._written // _SHARD_SIZE:05d}.tar")
        members = {kept.image_extension(): kept.image, **kept.beside(), "key": _text(kept.key)}
        self._add(f"{self._written:09d}", members)
        self._written += 1

    def _add(self, name: str, members: dict[str, bytes]) -> None:
        if self._tar is None:
            raise RuntimeError("a sample was written before its shard was begun; this is a fault of the library")
        for extension, content in members.items():
            member = tarfile.TarInfo(f"{name}.{extension}")
            if "\0" in member.name:
                raise OutputError(
                    "a sample's name holds a null character, which no tar can hold; export it as parquet, which takes "
                    "any key"
                )
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))

    def _opened(self, name: str) -> tarfile.TarFile:
        """Open a new tar; its name, which a listing gave, can't lead out of the destination."""
        self._finish()
        path = PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("/", "//", "..")))
        self._file, mode = str(path), f"x:{_COMPRESSIONS.get(path.suffix.lower(), '')}"
        # GNU's format holds names of any length and any bytes as they are.
        options = {"format": tarfile.GNU_FORMAT, "encoding": "utf-8", "errors": "surrogateescape"}
        return tarfile.open(self._files.new(self._file), mode, **options)  # type: ignore[call-overload,no-any-return]

    def _finish(self) -> None:
        if self._tar is not None:
            self._close()
            self._files.done(self._file)

    def _close(self) -> None:
        tar, self._tar = self._tar, None
        if tar is not None:
            tar.close()


def _text(key: str) -> bytes:
    """Return a key as bytes: a file's name as the disk has it, whatever else as near to UTF-8 as can be."""
    try:
        return key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogatepass")
