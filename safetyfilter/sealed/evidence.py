"""What the designated reporter needs to know of one excluded sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureDigests:
    """Digests of one encoded picture, in hex, by which a hotline knows it again.

    Attributes
    ----------
    md5, sha1, sha256 : str
        Of the encoded bytes.
    pdq : str
        The perceptual hash; empty where it was not computed.
    pdq_quality : int or None
        Its quality, 0 to 100; below 50 the hash says little.
    """

    md5: str
    sha1: str
    sha256: str
    pdq: str = ""
    pdq_quality: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A sealed record's content: provenance and digests of one excluded sample, and no picture.

    Attributes
    ----------
    source : str
        The place of the source.
    key : str
        The sample's key in it.
    reasons : tuple of str
        Why it was excluded, by the names of `Reason`.
    lists : tuple of str
        The names of the lists that it is on.
    pictures : tuple of PictureDigests
        Of the sample's own picture, and of others that it holds; empty where no bytes were read.
    caption_sha256 : str
        SHA-256 of the caption's UTF-8 bytes, in hex; empty without a caption.
    url : str
        Where the picture was found, where the source has it.
    crawl : mapping of str to str
        References to the crawl, where the source has them.
    time : str
        When it was excluded: ISO 8601, UTC.
    """

    source: str
    key: str
    reasons: tuple[str, ...]
    lists: tuple[str, ...] = ()
    pictures: tuple[PictureDigests, ...] = ()
    caption_sha256: str = ""
    url: str = ""
    crawl: Mapping[str, str] = field(default_factory=dict)
    time: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON.

        >>> Evidence(source="s", key="k", reasons=("known_hash",)).as_dict()["reasons"]
        ('known_hash',)
        """
        return asdict(self)
