"""What a source is: samples in a fixed order, in parts that can be read one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from safetyfilter.batches import Unreadable

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
CAPTION_EXTENSIONS = ("txt", "caption")
PART_SIZE = 10_000
"""Samples in a part, where the source does not set it by its own shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch of a source, read and recorded as a whole.

    Attributes
    ----------
    index : int
        Its number, which is also that of its files in the run directory.
    state : str
        Names, sizes and times of what it is read from: while this is unchanged, so are the samples.
    count : int or None
        Its samples, where the source knows without reading them.
    """

    index: int
    state: str
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample as its source holds it.

    Attributes
    ----------
    key : str
        Stable name within the source.
    image : bytes or None
        The encoded image; None where it is read from `path`, or where there is none.
    path : str or None
        A file to read the image from, in the thread that decodes it.
    failure : str or None
        Why there is no image, as a status.
    extension : str
        The image file's extension, without the dot, as it came.
    members : mapping of str to bytes
        Everything else that belongs to the sample, by extension, byte for byte; only where it was asked for.
    """

    key: str
    image: bytes | None = None
    path: str | None = None
    failure: str | None = None
    extension: str = "jpg"
    members: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))

    def read(self) -> bytes:
        """The encoded image; `Unreadable` with the reason where there is none."""
        if self.failure is not None:
            raise Unreadable(self.failure)
        if self.image is not None:
            return self.image
        if self.path is None:
            raise Unreadable("missing")
        import fsspec

        try:
            with fsspec.open(self.path, "rb") as file:
                content: bytes = file.read()
        except OSError as error:
            raise Unreadable("missing") from error
        return content

    @property
    def caption(self) -> str | None:
        """The caption as text, where there is one."""
        for extension in CAPTION_EXTENSIONS:
            if extension in self.members:
                return self.members[extension].decode("utf-8", "replace")
        return None


@runtime_checkable
class Source(Protocol):
    """Where samples come from. Every source passes the same contract tests."""

    kind: str
    location: str

    def parts(self) -> Sequence[Part]:
        """The parts, in order; the same for an unchanged source."""

    def samples(self, part: Part, *, full: bool = False) -> Iterator[Sample]:
        """The part's samples in order; with `full`, with everything that belongs to them."""


@runtime_checkable
class TableSource(Source, Protocol):
    """A source of rows, which can be given back as rows."""

    def batches(self, part: Part) -> Iterator[tuple[Any, list[Sample]]]:
        """The part's rows as Arrow tables with all columns, each with its samples."""
