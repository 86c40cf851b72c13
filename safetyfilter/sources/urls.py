"""URLs of pictures and references to the crawl that found them: fields found by name, bounded, never opened."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from safetyfilter.errors import SourceError
from safetyfilter.sources.tables import is_text
from safetyfilter.sources.values import plain
from safetyfilter.storage import parse_json

URL_NAMES = (
    *("image_url", "img_url", "url_image", "original_url", "download_url", "downloadurl", "raw_url", "coco_url"),
    *("url", "src"),
)
"""Fields that hold the URL of a picture, in upper or lower case: of a sample, the first that is not empty.

Where there are several, ``url`` tends to be that of the page.
"""
CRAWL_NAMES = frozenset(
    {
        *("uid", "id", "sample_id", "photoid", "image_id"),  # of a row in a published index
        *(
            "crawl",
            "crawl_id",
            "crawl_date",
            "crawl_time",
            "snapshot",
            "dump",
            "fetch_time",
            "fetch_date",
            "date_download",
        ),
        *("page_url", "pageurl", "webpage_url", "context_url", "source_url", "parent_url", "site_url"),
        *("md5", "sha1", "sha256", "sha512"),  # of the picture as it was found, before it was resized
    }
)
"""Fields that are references to a crawl, in upper or lower case, besides those whose names begin as `CRAWL_PREFIX`."""
CRAWL_PREFIX = "warc_"
"""Begins the names of the fields of a Common Crawl record: file, offset, length, identity and more."""
MAX_TEXT_BYTES = 8 << 10
"""The longest URL or reference in UTF-8; a longer text is not one."""
MAX_REFERENCES = 32
"""The most references of a sample that are kept."""
JSON_BYTES = 1 << 20
"""The largest description of a sample in JSON that is read."""

_NAME = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_RANKS = {name: rank for rank, name in enumerate(URL_NAMES)}
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlFields:
    """The fields of a table, or of one sample, that hold URLs and references.

    Attributes
    ----------
    urls : tuple of str
        A sample's URL is in the first of these that is not empty.
    crawl : tuple of str
        References. A URL that is not the sample's is one too.
    named : str or None
        The one field of URLs that the user named.

    Examples
    --------
    >>> fields = UrlFields.of(["URL", "TEXT", "WARC-Filename", "uid"])
    >>> fields.urls, fields.crawl
    (('URL',), ('WARC-Filename', 'uid'))
    >>> fields.read({"URL": "https://example.org/a.jpg", "TEXT": "a boat", "uid": 7, "WARC-Filename": None})
    ('https://example.org/a.jpg', {'uid': '7'})
    """

    urls: tuple[str, ...] = ()
    crawl: tuple[str, ...] = ()
    named: str | None = None

    @classmethod
    def of(cls, names: Iterable[str], named: str | None = None) -> UrlFields:
        """Return the fields among some names: the one that is `named`, or those with usual names."""
        there = list(dict.fromkeys(names))
        found = sorted((name for name in there if _is_url_name(name)), key=lambda name: _RANKS[_plain_name(name)])
        urls = found if named is None else [name for name in there if name == named]
        crawl = [name for name in there if name not in urls and (name in found or _is_reference(name))]
        return cls(urls=tuple(urls), crawl=tuple(crawl[: max(MAX_REFERENCES - len(urls), 0)]), named=named)

    @classmethod
    def of_schema(cls, schema: pa.Schema, named: str | None = None) -> UrlFields:
        """Return the fields among the columns of a table, by name and type.

        Raises
        ------
        SourceError
            The column that is named is not there, or does not hold text.
        """
        if named is not None and named not in schema.names:
            raise SourceError(f"no column {named!r} for the URLs; there are {schema.names}")
        if named is not None and not _holds_texts(schema.field(named).type):
            raise SourceError(f"{named!r} holds {schema.field(named).type} and not text; name another column of URLs")
        fitting = (
            field.name
            for field in schema
            if _holds_texts(field.type) or (not _is_url_name(field.name) and _holds_numbers(field.type))
        )
        return cls.of(fitting, named)

    @property
    def names(self) -> tuple[str, ...]:
        """All of these fields, each once."""
        return (*self.urls, *self.crawl)

    @property
    def state(self) -> str:
        """The choice as text, for the state of a part; empty where nothing was named, so that older states hold."""
        return "" if self.named is None else f"\nurl: {self.named}"

    def read(self, values: Mapping[str, object]) -> tuple[str | None, Mapping[str, str]]:
        """Return the URL and the references in the values of a sample, each a text of `MAX_TEXT_BYTES` at most."""
        url, references = None, {}
        for name in self.urls:
            value = values.get(name)
            text = reference_of(value) if isinstance(value, str | bytes) else None
            if url is None:
                url = text
            elif text is not None:
                references[name] = text
        for name in self.crawl:
            if (text := reference_of(values.get(name))) is not None:
                references[name] = text
        return url, references

    def column(self, table: pa.Table) -> pa.Array:
        """Return (N,) large_string, the URLs in a table's rows as `read` gives them; null where there is none.

        >>> UrlFields(urls=("image_url", "url")).column(
        ...     pa.table({"url": ["a", "b"], "image_url": [None, "x" * 9000]})
        ... ).to_pylist()
        ['a', 'b']
        """
        found = pa.nulls(len(table), pa.large_string())
        for name in self.urls:
            found = pc.coalesce(found, _texts_of(table.column(name)))
        return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


NO_URLS = UrlFields()
"""No fields at all."""


def described(content: bytes, named: str | None = None) -> tuple[str | None, Mapping[str, str]]:
    """Return the URL and the references in the JSON description of a sample, as img2dataset writes one.

    A text that is not JSON, or not an object, has none.

    >>> described(b'{"url": "https://example.org/a.jpg", "caption": "a boat", "sha256": "ab"}')
    ('https://example.org/a.jpg', {'sha256': 'ab'})
    >>> described(b"[1]")
    (None, mappingproxy({}))
    """
    try:
        values = parse_json(content)
    except ValueError:
        return None, _NOTHING
    return UrlFields.of(values, named).read(values) if isinstance(values, dict) else (None, _NOTHING)


def reference_of(value: object) -> str | None:
    """Return a value as bounded text; None for what is empty or too long, and for what is not text, number or time.

    What is not valid text stands there escaped.

    >>> [reference_of(value) for value in ("a", 7, 7.0, True, [], " ", float("nan"), "a\\ud800")]
    ['a', '7', '7', None, None, None, None, 'a\\\\ud800']
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace") if len(value) <= MAX_TEXT_BYTES else None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = int(value) if value.is_integer() and abs(value) < 1 << 53 else value
    if not isinstance(value, str):
        if value is None or isinstance(value, bool) or not _is_plain(value):
            return None
        value = str(value)
    if len(value) > MAX_TEXT_BYTES:
        return None
    encoded = value.encode("utf-8", "backslashreplace")
    return encoded.decode() if len(encoded) <= MAX_TEXT_BYTES and value.strip() else None


def link_in(value: object) -> str | None:
    """Return the URL that a row holds in the place of an image's path; None where it holds none.

    >>> link_in({"bytes": None, "path": "https://example.org/a.jpg"}), link_in({"path": "a.jpg"}), link_in(b"")
    ('https://example.org/a.jpg', None, None)
    """
    path = value.get("path") if isinstance(value, Mapping) else None
    return reference_of(path) if isinstance(path, str) and _LINK.match(path) else None


def _is_plain(value: object) -> bool:
    """True for whole and decimal numbers and for times."""
    return isinstance(value, int | float) or hasattr(value, "isoformat")


def _plain_name(name: str) -> str:
    return name.lower().replace("-", "_")


def _is_url_name(name: str) -> bool:
    return _plain_name(name) in _RANKS


def _is_reference(name: str) -> bool:
    plain_name = _plain_name(name)
    return bool(_NAME.fullmatch(name)) and (plain_name in CRAWL_NAMES or plain_name.startswith(CRAWL_PREFIX))


def _holds_texts(kind: pa.DataType) -> bool:
    return is_text(kind) or bool(pa.types.is_null(kind))


def _holds_numbers(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind))


def _texts_of(column: pa.ChunkedArray) -> pa.Array:
    """(N,) large_string from a column of text; null for what `reference_of` takes for none."""
    chunks: list[Any] = []
    for chunk in column.chunks:
        texts = chunk.cast(pa.large_string(), safe=False)
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:  # some are not UTF-8
            texts = pa.array([reference_of(plain(value)) for value in chunk], pa.large_string())
        fits = pc.less_equal(pc.binary_length(texts), MAX_TEXT_BYTES)
        some = pc.not_equal(pc.utf8_trim_whitespace(texts), "")
        chunks.append(pc.if_else(pc.and_(fits, some), texts, pa.scalar(None, pa.large_string())))
    return pa.chunked_array(chunks, pa.large_string()).combine_chunks()
