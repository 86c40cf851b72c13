"""The members of a tar, gathered into samples as webdataset does, with no more read of each than is needed."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Self, cast

from safetyfilter.sources.base import CAPTION_BYTES, CAPTION_EXTENSIONS
from safetyfilter.sources.pictures import is_picture_name
from safetyfilter.sources.reading import WatchedFile
from safetyfilter.sources.signatures import BEGINNING, format_of
from safetyfilter.sources.urls import JSON_BYTES

_HEADERS_WITH_CONTENT = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_LONGEST_HEADER = 1 << 20
_BEHIND = 16 << 20
"""The most that is read behind an archive's end, where tar writes some blocks of zeros."""


class EndError(tarfile.ReadError):
    """A tar does not end where its file does, though all that was read of it is whole.

    It ends before: two were written one behind the other, or blocks were lost in between. Or it has no end: it was cut
    between two members, or whoever wrote it did not finish.
    """


class Header(tarfile.TarInfo):
    """A member's header, with damage that tarfile takes for the archive's end, or reads into memory, as an error."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block; ReadError where it speaks of a size that can't be."""
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _HEADERS_WITH_CONTENT and header.size > _LONGEST_HEADER):
            raise tarfile.ReadError("a header has an impossible size")
        return header

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Return the next header of a tar; ReadError where it is damaged."""
        try:
            return super().fromtarfile(tar)
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            if tar.offset:
                raise EndError("the archive has no end") from error
            raise
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError, tarfile.SubsequentHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


@dataclass(slots=True, kw_only=True)
class Group:
    """Consecutive members of a tar with one key.

    Attributes
    ----------
    key : str
        Their names without the extension.
    fields : dict of str to bytes
        Contents by extension; of what need not be read, the beginning; empty where there is a failure.
    cut : set of str
        The extensions of which only the beginning was read.
    size : int
        The bytes of all, with their headers.
    failure : str or None
        Why the sample can't be scored: two members have one name, or it is too large.
    """

    key: str
    fields: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    size: int = 0
    failure: str | None = None


@dataclass(slots=True, kw_only=True)
class TarReader:
    """Reads the members of one tar, sample by sample.

    Parameters
    ----------
    stream : WatchedFile
        The tar, compressed or not, at its start.
    image_field : str or None
        The extension of the image, where it is named; it is read whatever it holds.
    captions, urls, full : bool
        With captions; with descriptions in JSON; with all members whole. Pictures are always read.
    max_bytes : int
        A sample whose members have more bytes together is not read.

    Attributes
    ----------
    left_out : int
        Files that belong to no sample: links, and those whose names have no extension.
    """

    stream: WatchedFile
    image_field: str | None = None
    captions: bool = False
    urls: bool = False
    full: bool = False
    max_bytes: int = 1 << 62
    left_out: int = 0

    def groups(self) -> Iterator[Group]:
        """Yield the samples in the tar's order.

        Raises
        ------
        tarfile.TarError, EOFError, OSError, ValueError
            The tar is damaged here; the sample that was being read is not yielded, but before an `EndError`.
        """
        group: Group | None = None
        from webdataset.tariterators import base_plus_ext  # here: with it comes torch, which few commands need

        end: EndError | None = None
        try:
            for tar, member in members_of(self.stream):
                key, extension = base_plus_ext(member.name)
                if key is None or not member.isreg():
                    self.left_out += 1
                    continue
                if group is None or group.key != key:
                    if group is not None:
                        yield group
                    group = Group(key=key)
                self._add(group, extension, tar, member)
        except EndError as error:
            end = error
        if group is not None:
            yield group
        if end is not None:
            raise end

    def _add(self, group: Group, extension: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        group.size += member.size + tarfile.BLOCKSIZE  # with its header, so that empty ones count too
        if extension in group.fields:
            group.failure = "repeated_key"
        elif group.size > self.max_bytes and group.failure is None:
            group.failure = "too_many_bytes"
        if group.failure is not None:
            group.fields = {}
            return
        file = tar.extractfile(member)
        assert file is not None  # of a regular member
        content = file.read(BEGINNING)
        if len(content) < member.size:
            if self._is_needed(extension, member.size, content):
                content += file.read(member.size - len(content))
                if len(content) != member.size:
                    raise tarfile.ReadError("a member ends too early")
            else:
                group.cut.add(extension)
        group.fields[extension] = content

    def _is_needed(self, extension: str, size: int, beginning: bytes) -> bool:
        if self.full or is_picture_name(extension) or format_of(beginning) is not None:
            return True
        name = extension.lower()
        if self.image_field is not None and name == self.image_field.lower():
            return True
        if self.urls and name == "json":
            return size <= JSON_BYTES
        return self.captions and name in CAPTION_EXTENSIONS and size <= CAPTION_BYTES


def members_of(stream: WatchedFile) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the files and links of a tar, which is at hand to read them; errors as of `TarReader.groups`.

    Two tars written one behind the other are damage: readers of tars stop at the first one's end.
    """
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:*", tarinfo=Header) as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # which would grow with the tar
            if member.isreg() or member.islnk() or member.issym():
                yield tar, member
        behind = tar.fileobj.read(_BEHIND) if tar.fileobj is not None else b""
        if behind.strip(b"\0"):
            raise EndError("there is more behind the archive's end")
