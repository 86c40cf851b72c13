"""The protocol of sources: samples in a fixed order, in parts that can be read one by one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
from safetyfilter.errors import UsageError
from safetyfilter.sources.files import Extent, require_folder
from safetyfilter.sources.signatures import format_of
from safetyfilter.storage import Location, read_image

CAPTION_EXTENSIONS = ("txt", "caption")
PART_SIZE = 10_000
"""Samples in a part, where the source does not set it by its own files."""
BATCH_SIZE, BATCH_BYTES = 256, 64 << 20
"""Samples read at a time, and about the most bytes of them, so that memory does not grow with a part."""
MAX_BYTES = DEFAULT_LIMITS.max_bytes
"""The most that is read of one sample, where nobody says otherwise."""
CAPTION_BYTES = 1 << 20
"""The largest caption: beyond, a text is not one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """The tars, tables or folders that a part's samples lie in: whoever reads these needs no other part's decisions.

    Attributes
    ----------
    names : tuple of str
        Relative to the source, each once; empty where samples lie in no such thing.
    in_keys : bool
        True where each sample's key is its shard's name, ``/`` or ``#``, and more; of the folder that is the source
        itself, which has no name, a key without ``/``.
    """

    names: tuple[str, ...] = ()
    in_keys: bool = False


NO_SHARDS = Shards()
"""Stands for none of which a source knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch of a source, read and recorded as a whole.

    Attributes
    ----------
    index : int
        Its number, which is also that of its files in the run directory.
    state : str
        Names, sizes and times, or a digest of these, of all that it is read from, the files that rows name among them,
        and the columns or the extension chosen: while this is unchanged, so are the samples. It has no word of other
        parts, nor of the part's own number.
    count : int or None
        Its samples, where the source knows without reading them.
    shards : Shards
        The shards that its samples lie in.
    url_state : str
        The same of files that only URLs and references are read from; empty where there are none. See `with_urls`.
    """

    index: int
    state: str
    count: int | None = None
    shards: Shards = NO_SHARDS
    url_state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample as its source holds it.

    Attributes
    ----------
    key : str
        Stable name within the source.
    image : bytes or None
        The encoded image; None where it is read from `place`, or where there is none.
    place : Location or None
        A file to read the image from, in the thread that decodes it: of the listing, or as `PathRule` allows.
    others : tuple of bytes or Location
        Every other picture that belongs to the sample: all are scored, and the highest score counts; where there is a
        failure, none is scored, and these are the pictures that are there all the same.
    listed : bool
        True for a `place` that was there when the source was listed, by which a file that is missing is told from
        storage that went away.
    failure : str or None
        Why there is no image, as a status.
    extension : str
        The image file's extension, without the dot, as it came.
    caption : str or None
        The caption, where there is one and it was asked for.
    url : str or None
        Where the image was found, where the source has it and it was asked for; never opened.
    crawl : mapping of str to str
        References to the crawl that found it, by the names that the source has for them, where they were asked for.
    members : mapping of str to bytes
        Everything else that belongs to the sample, by extension, byte for byte, other pictures among it; only from
        `Source.batches`.
    shard : str or None
        The source's own file that the sample lies in, where samples are to be given back in files of these names.
    vector : ndarray or None
        (D,) floats, a stored embedding in the place of an image.

    Examples
    --------
    >>> Sample(key="a.jpg", image=b"encoded").read(max_bytes=1 << 20)
    b'encoded'
    """

    key: str
    image: bytes | None = None
    place: Location | None = None
    others: tuple[bytes | Location, ...] = ()
    listed: bool = False
    failure: str | None = None
    extension: str = "jpg"
    caption: str | None = None
    url: str | None = None
    crawl: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, bytes] = field(default_factory=dict)
    shard: str | None = None
    vector: npt.NDArray[np.floating] | None = None

    def read(self, max_bytes: int) -> bytes:
        """Return the encoded image.

        Parameters
        ----------
        max_bytes : int
            The most that is read.

        Raises
        ------
        Unreadable
            There is none, or it is larger; with the failure.
        StorageError
            The storage failed each time it was asked, or the file's folder went away since it was listed.
        """
        if self.failure is not None:
            raise Unreadable(self.failure)
        if self.image is not None:
            return _read(self.image, max_bytes)
        if self.place is None:
            raise Unreadable("missing")
        try:
            return read_image(self.place, max_bytes)
        except Unreadable as finding:
            if self.listed and finding.failure == "missing":
                require_folder(self.place)
            raise

    def read_all(self, max_bytes: int) -> tuple[bytes, ...]:
        """Return the encoded image, and every other picture of the sample; arguments and errors as of `read`.

        >>> Sample(key="a", image=b"one", others=(b"two",)).read_all(max_bytes=10)
        (b'one', b'two')
        """
        return self.read(max_bytes), *(_read(other, max_bytes) for other in self.others)


def _read(picture: bytes | Location, max_bytes: int) -> bytes:
    if isinstance(picture, Location):
        return read_image(picture, max_bytes)
    if len(picture) > max_bytes:
        raise Unreadable("too_many_bytes")
    return picture


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBatch:
    """Consecutive samples of one part.

    Attributes
    ----------
    samples : tuple of Sample
        With captions and members.
    rows : pa.Table or None
        The samples' rows with all their columns, row by row, where the source is a table.
    image_column : str
        The rows' column that holds the sample's own image.
    split : str
        The split that the rows belong to, where the source has splits.
    """

    samples: tuple[Sample, ...]
    rows: pa.Table | None = None
    image_column: str = ""
    split: str = ""

    def __post_init__(self) -> None:
        if self.rows is not None and len(self.rows) != len(self.samples):
            raise ValueError(f"{len(self.samples)} samples need as many rows, not {len(self.rows)}")


def require_source(source: object) -> None:
    """Raise `UsageError` for a path in the place of a source.

    >>> require_source("pictures")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: 'pictures' is not a source; open it with open_source
    """
    if isinstance(source, str | os.PathLike):
        raise UsageError(f"{source!r} is not a source; open it with open_source")


class Source(Protocol):
    """Samples in a fixed order. Every source passes the same contract tests.

    Attributes
    ----------
    kind : str
        ``folder``, ``webdataset``, ``parquet`` or ``datasets``.
    location : str
        The place it lies at, or a name for it.
    keys : str
        A sentence fragment that says what the samples' keys are, for error messages and `run.json`.
    form : str
        The export format in which it is given back.
    extents : tuple of Extent
        The places whose files are the source's.
    """

    kind: str
    location: str
    keys: str
    form: str
    extents: tuple[Extent, ...]

    def parts(self) -> Sequence[Part]:
        """Return the parts, in order; the same for an unchanged source."""

    def samples(
        self, part: Part, *, captions: bool = False, urls: bool = False, max_bytes: int = MAX_BYTES
    ) -> Iterator[Sample]:
        """Yield a part's samples in order, for scans; captions, and URLs with crawl references, only where asked for.

        Of one sample in a tar, `max_bytes` are read at most, or `MAX_BYTES` where that is more.
        """

    def batches(self, part: Part, *, max_bytes: int = MAX_BYTES) -> Iterator[SampleBatch]:
        """Yield a part's samples in order with everything that belongs to them, for exports."""


def samples_of(source: Source) -> int | None:
    """Return the number of a source's samples; None where one of its parts does not tell."""
    counts = [part.count for part in source.parts()]
    return None if None in counts else sum(count or 0 for count in counts)


def batched(samples: Iterable[Sample]) -> Iterator[SampleBatch]:
    """Yield samples in batches of at most `BATCH_SIZE`, ended when they hold `BATCH_BYTES`.

    >>> [len(batch.samples) for batch in batched(Sample(key=str(number)) for number in range(300))]
    [256, 44]
    """
    batch: list[Sample] = []
    held = 0
    for sample in samples:
        batch.append(sample)
        held += len(sample.image or b"") + sum(map(len, sample.members.values()))
        if len(batch) == BATCH_SIZE or held >= BATCH_BYTES:
            yield SampleBatch(samples=tuple(batch))
            batch, held = [], 0
    if batch:
        yield SampleBatch(samples=tuple(batch))


def caption_of(members: Mapping[str, bytes]) -> str | None:
    """Return the caption among a sample's members as text, where there is one; what begins as a picture is none.

    >>> caption_of({"json": b"{}", "TXT": b"a boat"}), caption_of({"txt": b"GIF89a"})
    ('a boat', None)
    """
    for wanted in CAPTION_EXTENSIONS:
        for name, content in members.items():
            if name.lower() == wanted and len(content) <= CAPTION_BYTES and not format_of(content):
                return content.decode("utf-8", "replace")
    return None
