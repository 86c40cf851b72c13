"""Exports to a folder: image files with their captions beside them, under the samples' keys."""

from __future__ import annotations

import errno
from pathlib import PurePosixPath

from safetyfilter.errors import OutputError
from safetyfilter.exports.kept import Kept
from safetyfilter.exports.writer import FolderOfFiles

_TAKEN = "File exists, of another sample, by this name or on the way to it"
_CAUSES = {
    errno.EEXIST: _TAKEN,
    errno.EISDIR: _TAKEN,
    errno.ENOTDIR: _TAKEN,
    errno.ENAMETOOLONG: "it is longer than this storage takes",
    errno.EINVAL: "this storage takes no such name",
    errno.EILSEQ: "this storage takes no such name",
}


class FolderWriter(FolderOfFiles):
    """Image files with their captions beside them, under the samples' keys."""

    def write(self, kept: Kept) -> None:
        """Write the image and what belongs to it."""
        path = path_of(kept.key, kept.extension)
        if any(part.startswith(".") for part in path.parts):
            raise _unfit("it begins with a dot, and whoever reads a folder leaves hidden files out")
        self._write(path, kept.image)
        stem, _, last = path.name.rpartition(".")
        stem = stem if last else path.name
        for extension, member in kept.beside().items():
            self._write(path.with_name(f"{stem}.{extension}"), member, shared=True)

    def _write(self, name: PurePosixPath, content: bytes, *, shared: bool = False) -> None:
        """Write a new file; `shared` where two images may have the same one beside them: a.txt by a.jpg and a.png."""
        try:
            try:
                with self._files.new(str(name)).open("xb") as file:  # two samples of one name: an error, not one less
                    file.write(content)
                self._files.done(str(name))
            except FileExistsError:
                if not shared or not self._files.holds(str(name), content):
                    raise
        except OSError as error:
            if error.errno not in _CAUSES:
                raise
            raise _unfit(_CAUSES[error.errno]) from None  # its text holds the key
        except ValueError:  # a null character, or half of a surrogate pair
            raise _unfit("it holds a character that no file's name can") from None


def path_of(key: str, extension: str) -> PurePosixPath:
    """Return the place of a sample's image below the destination; a key can't lead out of it.

    >>> str(path_of("../../escaped", "png")), str(path_of("noext", ""))
    ('escaped.png', 'noext')
    """
    path = PurePosixPath(key)
    if extension and not path.name.lower().endswith(f".{extension.lower()}"):
        path = PurePosixPath(f"{key}.{extension}")
    return PurePosixPath(*(part for part in path.parts if part not in ("/", "//", "..", ".")))


def _unfit(cause: str) -> OutputError:
    return OutputError(
        f"can't write a sample under its key, as a file in a folder: {cause}; export as parquet or webdataset, which "
        "take any key"
    )
