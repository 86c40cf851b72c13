"""The record of one excluded sample: all that the designated reporter needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from typing import Any

from safetyfilter.batches import REASON_NAMES

LONGEST_TEXT = 16_384
"""Characters of a text that a record keeps; a path or a URL that can be used is shorter."""
MOST_REFERENCES, MOST_PICTURES = 16, 10_000
"""References to the crawl, and pictures of one sample, that a record keeps."""


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
        The names of the lists that it is on, each with the kinds of hashes that matched, as ``listed.txt (pdq)``.
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
    cut : tuple of str
        The fields of which a part was left out, since a sample held far too much there.
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
    cut: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON.

        >>> Evidence(source="s", key="k", reasons=("known_hash",)).as_dict()["reasons"]
        ('known_hash',)
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evidence:
        """Return the record that `as_dict` gave; ValueError for anything else.

        >>> record = Evidence(source="s", key="k", reasons=("known_hash",))
        >>> Evidence.from_dict(record.as_dict()) == record
        True
        """
        if not isinstance(values, Mapping):
            raise ValueError("a record is not an object")
        taken = {one.name: values[one.name] for one in fields(cls)}
        for name in ("reasons", "lists", "cut"):
            taken[name] = _texts(taken[name], name)
        if unknown := set(taken["reasons"]) - set(REASON_NAMES):
            raise ValueError(f"{len(unknown)} reasons that this version does not know")
        taken["pictures"] = tuple(_picture(picture) for picture in _items(taken["pictures"], "pictures"))
        if not isinstance(taken["crawl"], Mapping):
            raise ValueError("crawl is not an object")
        taken["crawl"] = {_text(name, "crawl"): _text(value, "crawl") for name, value in taken["crawl"].items()}
        for name in ("source", "key", "caption_sha256", "url", "time"):
            _text(taken[name], name)
        return cls(**taken)

    def shortened(self) -> Evidence:
        """Return the record within bounds, so that a sample with a URL of a gigabyte stops no scan.

        >>> Evidence(source="s", key="k" * 20_000, reasons=()).shortened().cut
        ('key',)
        """
        changed: dict[str, Any] = {
            name: value[:LONGEST_TEXT]
            for name in ("source", "key", "url", "time", "caption_sha256")
            if len(value := getattr(self, name)) > LONGEST_TEXT
        }
        if len(self.pictures) > MOST_PICTURES:
            changed["pictures"] = self.pictures[:MOST_PICTURES]
        crawl = {
            name[:LONGEST_TEXT]: value[:LONGEST_TEXT] for name, value in islice(self.crawl.items(), MOST_REFERENCES)
        }
        if crawl != dict(self.crawl):
            changed["crawl"] = crawl
        return replace(self, **changed, cut=tuple(changed)) if changed else self


def _picture(values: Any) -> PictureDigests:
    if not isinstance(values, Mapping):
        raise ValueError("a picture's digests are not an object")
    quality = values["pdq_quality"]
    if quality is not None and not (type(quality) is int and 0 <= quality <= 100):
        raise ValueError("pdq_quality is not a whole number from 0 to 100")
    texts = {name: _text(values[name], name) for name in ("md5", "sha1", "sha256", "pdq")}
    return PictureDigests(**texts, pdq_quality=quality)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    return value


def _items(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} is not a list")
    return list(value)


def _texts(value: Any, name: str) -> tuple[str, ...]:
    return tuple(_text(item, name) for item in _items(value, name))
