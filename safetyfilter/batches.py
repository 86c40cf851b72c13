"""Frozen batches of arrays that pass between packages: embeddings, scores, decisions; statuses and reasons."""

from __future__ import annotations

import enum
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

ImageInput: TypeAlias = "bytes | bytearray | memoryview | str | os.PathLike[str] | Image.Image"
Floats: TypeAlias = npt.NDArray[np.float32]
StatusCodes: TypeAlias = npt.NDArray[np.uint8]
ReasonBits: TypeAlias = npt.NDArray[np.uint16]

FAILURES: Mapping[str, str] = MappingProxyType(
    {
        "missing": "there is no such file",
        "unreadable": "the file can't be read, or is not a regular file",
        "empty": "no bytes",
        "not_an_image": "none of JPEG, PNG, WebP, GIF, BMP and TIFF",
        "truncated": "the file ends too early",
        "undecodable": "damaged, or a variant that Pillow does not read",
        "too_many_bytes": "more bytes than DecodeLimits.max_bytes",
        "too_many_pixels": "more pixels than DecodeLimits.max_pixels",
        "too_many_scans": "a JPEG with more scans than DecodeLimits.max_jpeg_scans",
        "too_many_segments": "more chunks, blocks or segments than DecodeLimits.max_segments",
        "too_many_frames": "a file of more frames, pages or pictures than DecodeLimits.max_frames, or too large in all",
        "too_narrow": "so long and narrow that open_clip's resizing leaves nothing of the short side",
        "out_of_memory": "decoding ran out of memory",
        "several_images": "a sample with more than one image, and none of them named as its own",
        "no_key": "the key column is null in this row",
        "repeated_key": "the same key belongs to several samples that differ",
        "not_fetched": "a link in the place of an image; links are never fetched",
        "damaged_shard": "the rest of a tar, or rows of a table, that can't be read",
        "no_caption": "the probes judge images with their captions, and the sample has none",
        "non_finite": "the embedding is not finite, or has no direction: its norm is zero",
        "unknown": "no sample of the run that was applied has this content",
        "decoder_crashed": "the process that decoded the image ended at it",
        "internal_error": "a fault of the library, which the log describes",
    }
)
"""Each reason for which a sample can't be scored, and its meaning; a name tells nothing about a sample or a path."""

STATUS_NAMES: tuple[str, ...] = ("ok", *FAILURES)
"""The name of each status code. Codes are for arrays in memory; files hold names."""

STATUS_CODES: Mapping[str, int] = MappingProxyType({name: code for code, name in enumerate(STATUS_NAMES)})
"""The code of each status."""

OK = STATUS_CODES["ok"]
"""The status code of a sample that was scored."""


class Unreadable(Exception):  # noqa: N818 - a finding about a sample, which callers turn into a status
    """An image that can't be turned into pixels.

    Attributes
    ----------
    failure : str
        One of `FAILURES`.

    >>> Unreadable("truncated").failure
    'truncated'
    """

    def __init__(self, failure: str) -> None:
        if failure not in FAILURES:
            raise ValueError(f"no failure is called {failure!r}; there is {', '.join(FAILURES)}")
        super().__init__(failure)
        self.failure = failure


class Reason(enum.IntFlag):
    """A set of reasons to exclude a sample; the empty set means that it is kept.

    >>> reasons = Reason.CO_OCCURRENCE | Reason.MINOR
    >>> str(reasons), "minor" in reasons, Reason.UNSCORED in reasons
    ('co_occurrence|minor', True, False)
    """

    CO_OCCURRENCE = 1
    EXPLICIT = 2
    MINOR = 4
    KNOWN_HASH = 8
    UNSCORED = 16
    DRIFTED = 32
    UNKNOWN = 64
    OTHER_SIGNAL = 128
    NEAR_EXCLUDED = 256

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the reasons in this set, in the order of the flags."""
        return tuple(flag.name.lower() for flag in type(self) if flag in self and flag.name)

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Reason:
        """Return the set of the reasons with these names.

        >>> Reason.from_names(["unscored"])
        <Reason.UNSCORED: 16>
        """
        value = cls(0)
        for name in names:
            value |= cls[name.upper()]
        return value

    def __contains__(self, other: object) -> bool:
        if isinstance(other, str):
            return other in self.names
        return bool(isinstance(other, int) and int(other) & ~int(self) == 0 and int(other))

    def __str__(self) -> str:
        return "|".join(self.names) or "none"


REASON_NAMES: tuple[str, ...] = tuple(flag.name.lower() for flag in Reason if flag.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingBatch:
    """Embeddings of a batch of images, in input order.

    Parameters
    ----------
    vectors : ndarray
        (N, D) float32, each row of unit L2 norm; (N, V, D) where several views of each image were embedded.
        The rows of failed images are NaN.
    encoder : str
        Digest of the encoder's specification.
    status : ndarray or None
        (N,) uint8, a code of `STATUS_NAMES` each; all ``ok`` where None.
    others : ndarray or None
        (M, D) or (M, V, D) float32, embeddings of further pictures that the same samples hold; none where None. The
        highest score of all counts.
    owners : ndarray or None
        (M,) int64, the row of `vectors` whose sample each of `others` belongs to.
    """

    vectors: Floats
    encoder: str
    status: StatusCodes = None  # type: ignore[assignment]  # always an array once constructed
    others: Floats = None  # type: ignore[assignment]
    owners: npt.NDArray[np.int64] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.vectors.dtype != np.float32 or self.vectors.ndim not in (2, 3):
            raise ValueError(f"vectors are (N, D) or (N, V, D) float32, not {self.vectors.shape} {self.vectors.dtype}")
        object.__setattr__(self, "status", _checked_status(self.status, len(self.vectors)))
        if self.others is None and self.owners is None:
            object.__setattr__(self, "others", np.empty((0, *self.vectors.shape[1:]), np.float32))
            object.__setattr__(self, "owners", np.empty(0, np.int64))
        elif self.others is None or self.owners is None:
            raise ValueError("others and owners, the rows that they belong to, come together; one of them is missing")
        if self.others.dtype != np.float32 or self.others.shape[1:] != self.vectors.shape[1:]:
            raise ValueError(f"others are float32 of the vectors' shape, not {self.others.shape} {self.others.dtype}")
        if self.owners.dtype != np.int64 or self.owners.shape != (len(self.others),):
            raise ValueError(f"{len(self.others)} others need an int64 row each, not {self.owners.shape}")
        if len(self.owners) and not 0 <= self.owners.min() <= self.owners.max() < len(self.vectors):
            raise ValueError(f"owners are rows below {len(self.vectors)}")

    @classmethod
    def joined(cls, batches: Sequence[EmbeddingBatch]) -> EmbeddingBatch:
        """Return the rows of at least one batch of one encoder, one batch behind the other.

        >>> batch = EmbeddingBatch(
        ...     vectors=np.float32([[1, 0]]), encoder="e", others=np.float32([[0, 1]]), owners=np.array([0])
        ... )
        >>> EmbeddingBatch.joined([batch, batch]).owners
        array([0, 1])
        """
        if len({batch.encoder for batch in batches}) > 1:
            raise ValueError("embeddings of different encoders don't go into one batch")
        starts = np.cumsum([0, *(len(batch) for batch in batches)])
        return cls(
            vectors=np.concatenate([batch.vectors for batch in batches]),
            encoder=batches[0].encoder,
            status=np.concatenate([batch.status for batch in batches]),
            others=np.concatenate([batch.others for batch in batches]),
            owners=np.concatenate([batch.owners + start for batch, start in zip(batches, starts[:-1], strict=True)]),
        )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def failures(self) -> dict[int, str]:
        """Row number of each image that has no embedding, and the name of its failure."""
        return failures_of(self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBatch:
    """Scores of a batch of samples.

    Parameters
    ----------
    values : ndarray
        (N, S) float32 in [0, 1], higher means more present; NaN where a sample could not be scored.
    signals : tuple of str
        The S signals' names, in column order.
    status : ndarray or None
        (N,) uint8, a code of `STATUS_NAMES` each; all ``ok`` where None.
    """

    values: Floats
    signals: tuple[str, ...]
    status: StatusCodes = None  # type: ignore[assignment]  # always an array once constructed

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.signals):
            raise ValueError(
                f"values of {len(self.signals)} signals are (N, {len(self.signals)}), not {self.values.shape}"
            )
        if len(set(self.signals)) != len(self.signals):
            raise ValueError(f"each signal has one column; got {self.signals}")
        object.__setattr__(self, "status", _checked_status(self.status, len(self.values)))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, signal: str) -> Floats:
        """(N,) float32, the scores of one signal."""
        if signal not in self.signals:
            raise KeyError(f"no signal {signal!r} here; there is {', '.join(self.signals)}")
        return self.values[:, self.signals.index(signal)]

    @property
    def failures(self) -> dict[int, str]:
        """Row number of each sample that could not be scored, and the name of its failure."""
        return failures_of(self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionBatch:
    """Decisions on a batch of samples.

    Parameters
    ----------
    reason_bits : ndarray
        (N,) uint16, each a `Reason` set; 0 means kept.
    scores : ScoreBatch
        The scores that the decisions rest on.
    """

    reason_bits: ReasonBits
    scores: ScoreBatch

    def __post_init__(self) -> None:
        if self.reason_bits.shape != (len(self.scores),):
            raise ValueError(f"{len(self.scores)} scores need as many decisions, not {self.reason_bits.shape}")

    @property
    def keep(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, True where the sample may be trained on."""
        keep: npt.NDArray[np.bool_] = self.reason_bits == 0
        return keep

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Each sample's set of reasons, empty where it is kept."""
        return tuple(Reason(int(bits)) for bits in self.reason_bits)

    def __len__(self) -> int:
        return len(self.reason_bits)

    def __iter__(self) -> Iterator[bool]:
        return iter(self.keep.tolist())


def failures_of(status: StatusCodes) -> dict[int, str]:
    """Return the row number and the failure of each status that is not ``ok``.

    >>> failures_of(np.uint8([OK, STATUS_CODES["empty"]]))
    {1: 'empty'}
    """
    return {int(row): STATUS_NAMES[status[row]] for row in np.flatnonzero(status != OK)}


def count_decisions(reason_bits: ReasonBits) -> Counter[str]:
    """Return ``seen``, ``kept``, ``excluded`` and one count for each reason, zeros included.

    >>> counts = count_decisions(np.uint16([0, Reason.UNSCORED, 0]))
    >>> counts["seen"], counts["kept"], counts["excluded"], counts["unscored"]
    (3, 2, 1, 1)
    """
    kept = int((reason_bits == 0).sum())
    excluded = int((reason_bits != 0).sum())
    counts = Counter({"seen": len(reason_bits), "kept": kept, "excluded": excluded})
    sets = np.bincount(reason_bits[reason_bits != 0])
    for bit, name in enumerate(REASON_NAMES):
        counts[name] = int(sets[(np.arange(len(sets)) >> bit & 1) == 1].sum())
    if counts["seen"] != kept + excluded:
        raise RuntimeError(f"counts don't add up: {dict(counts)}; this is a fault of the library, report it")
    return counts


def _checked_status(status: StatusCodes | None, count: int) -> StatusCodes:
    if status is None:
        return np.zeros(count, np.uint8)
    if status.dtype != np.uint8 or status.shape != (count,):
        raise ValueError(f"{count} rows need a uint8 status each, not {status.shape} {status.dtype}")
    if count and int(status.max()) >= len(STATUS_NAMES):
        raise ValueError(f"a status code is below {len(STATUS_NAMES)}, not {int(status.max())}")
    return status
