"""What passes between rooms: signals, reasons, keys and digests, and frozen batches of arrays."""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

ImageInput: TypeAlias = "bytes | bytearray | memoryview | str | os.PathLike[str] | Image.Image"
Floats: TypeAlias = npt.NDArray[np.float32]

DIGEST_BYTES = 16
OK = "ok"
"""The status of a sample that was scored; every other status is the failure's name."""


FAILURES: dict[str, str] = {
    "missing": "there is no such file",
    "unreadable": "the file can't be read, or is no regular file",
    "empty": "no bytes",
    "not_an_image": "none of JPEG, PNG, WebP, GIF, BMP and TIFF",
    "truncated": "the file ends too early",
    "undecodable": "damaged, or a variant that Pillow does not read",
    "too_many_bytes": "more bytes than DecodeLimits.max_bytes",
    "too_many_pixels": "more pixels than DecodeLimits.max_pixels",
    "too_many_scans": "a JPEG with more scans than DecodeLimits.max_jpeg_scans",
    "too_many_parts": "more chunks, blocks or segments than DecodeLimits.max_parts",
    "too_many_frames": "an animation, or a TIFF of several pages, of more pictures than DecodeLimits.max_frames",
    "too_narrow": "so long and narrow that open_clip's resizing leaves nothing of the short side",
    "out_of_memory": "decoding ran out of memory",
    "several_images": "a sample with more than one image, and none of them named as the one to score",
    "not_fetched": "a link in the place of an image; links are never fetched",
    "damaged_shard": "the rest of a tar that can't be read",
    "no_caption": "the probes judge images with their captions, and the sample has none",
    "non_finite": "the model gave an embedding that is not finite",
    "internal_error": "a fault of the library, which the log describes",
}
"""Every code that a failure can have, and what it means; a code names no sample and no path."""


class Unreadable(Exception):  # noqa: N818 - a finding about a file, which callers turn into a status
    """An image that can't be turned into pixels.

    Attributes
    ----------
    code : str
        One of `FAILURES`.

    >>> Unreadable("truncated").code
    'truncated'
    """

    def __init__(self, code: str) -> None:
        if code not in FAILURES:
            raise ValueError(f"no failure is called {code!r}; there is {', '.join(FAILURES)}")
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalTable:
    """The pair of signals that must never both be present in a kept sample.

    The stand-ins have a table of their own, so that no output of a demo could be mistaken for a real score.

    Attributes
    ----------
    name : str
        How the table is called in policies and probe files.
    explicit, minor : str
        The names of the two signals that play these parts.
    """

    name: str
    explicit: str
    minor: str

    @property
    def pair(self) -> tuple[str, str]:
        """The two names, ``(explicit, minor)``."""
        return (self.explicit, self.minor)

    @classmethod
    def named(cls, name: str) -> SignalTable:
        """The table called `name`; KeyError where there is none."""
        return {table.name: table for table in (REAL_SIGNALS, STANDIN_SIGNALS)}[name]

    @classmethod
    def of(cls, signals: Sequence[str]) -> SignalTable | None:
        """The table whose pair is among `signals`, or None.

        >>> SignalTable.of(["minor", "explicit", "violence"]).name
        'real'
        """
        return next((table for table in (REAL_SIGNALS, STANDIN_SIGNALS) if set(table.pair) <= set(signals)), None)


REAL_SIGNALS = SignalTable(name="real", explicit="explicit", minor="minor")
STANDIN_SIGNALS = SignalTable(name="stand-in", explicit="three", minor="seven")


class Reason(enum.IntFlag):
    """Why a sample is excluded; an empty set means it is kept.

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

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the reasons in this set, in the order of the flags."""
        return tuple(flag.name.lower() for flag in type(self) if flag in self and flag.name)

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Reason:
        """The set of the reasons with these names.

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


_KEY = b"sf-key"


@dataclass(frozen=True, slots=True)
class Digester:
    """Digests of keys and contents that only the holder of the run's secret can compute.

    BLAKE2b (RFC 7693) keyed with the secret, 16 bytes; keys and contents are told apart by personalisation.

    >>> one, other = Digester(b"s" * 32), Digester(b"t" * 32)
    >>> one.key("a.jpg") == one.key("a.jpg"), one.key("a.jpg") == other.key("a.jpg")
    (True, False)
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 16 <= len(self.secret) <= 64:
            raise ValueError(f"a secret has 16 to 64 bytes, not {len(self.secret)}")

    def key(self, key: str) -> bytes:
        """16 bytes that stand for the sample's key."""
        return self._digest(key.encode("utf-8", "surrogatepass"), _KEY)

    def key_state(self) -> hashlib.blake2b:
        """`key` as far as it goes without a key; to copy this and go on is twice as fast as to begin anew."""
        return hashlib.blake2b(digest_size=DIGEST_BYTES, key=self.secret, person=_KEY)

    def content(self, encoded: bytes) -> bytes:
        """16 bytes that stand for the encoded image."""
        return self._digest(encoded, b"sf-content")

    def text(self, text: str) -> str:
        """Hex of 16 bytes that stand for a fingerprint's parts."""
        return self._digest(text.encode("utf-8", "surrogatepass"), b"sf-text").hex()

    def _digest(self, data: bytes, person: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=self.secret, person=person).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingBatch:
    """Embeddings of a batch of images, in input order.

    Attributes
    ----------
    vectors : ndarray
        (N, D) float32, each row of unit L2 norm; (N, V, D) where several views of each image were embedded.
        The rows of failed images are NaN.
    failures : mapping of int to str
        Row number of each image that has no embedding, and why.
    encoder : str
        Digest of the encoder's specification.
    """

    vectors: Floats
    failures: Mapping[int, str]
    encoder: str

    def __post_init__(self) -> None:
        if self.vectors.dtype != np.float32 or self.vectors.ndim not in (2, 3):
            raise ValueError(f"vectors are (N, D) or (N, V, D) float32, not {self.vectors.shape} {self.vectors.dtype}")
        object.__setattr__(self, "failures", MappingProxyType(dict(self.failures)))

    def __len__(self) -> int:
        return len(self.vectors)

    def __reduce__(self) -> tuple[object, ...]:  # a mappingproxy can't be pickled
        return (_embedding_batch, (self.vectors, dict(self.failures), self.encoder))


def _embedding_batch(vectors: Floats, failures: dict[int, str], encoder: str) -> EmbeddingBatch:
    return EmbeddingBatch(vectors=vectors, failures=failures, encoder=encoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBatch:
    """Scores of a batch of samples.

    Attributes
    ----------
    values : ndarray
        (N, S) float32 in [0, 1], higher means more present; NaN where a sample could not be scored.
    signals : tuple of str
        The S signals' names, in column order.
    failures : mapping of int to str
        Row number of each sample that could not be scored, and why.
    """

    values: Floats
    signals: tuple[str, ...]
    failures: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.signals):
            raise ValueError(
                f"values of {len(self.signals)} signals are (N, {len(self.signals)}), not {self.values.shape}"
            )
        if len(set(self.signals)) != len(self.signals):
            raise ValueError(f"each signal has one column; got {self.signals}")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, signal: str) -> Floats:
        """(N,) float32, the scores of one signal."""
        if signal not in self.signals:
            raise KeyError(f"no signal {signal!r} here; there is {', '.join(self.signals)}")
        return self.values[:, self.signals.index(signal)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionBatch:
    """Decisions on a batch of samples.

    Attributes
    ----------
    reason_bits : ndarray
        (N,) uint16, each a `Reason` set; 0 means kept.
    scores : ScoreBatch
        What the decisions rest on.
    """

    reason_bits: npt.NDArray[np.uint16]
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
