"""Rows of a table as samples: which columns hold images, keys and captions, and what a row's values mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from safetyfilter.errors import SourceError
from safetyfilter.sources.base import Sample
from safetyfilter.storage import Location

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "bytes", "content")
KEY_COLUMNS = ("key", "__key__")
CAPTION_COLUMNS = ("caption", "text", "txt", "TEXT", "prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a table that make up its samples.

    Attributes
    ----------
    image : str
        The encoded image, or a struct of bytes and path.
    key : str or None
        The key; None where rows are numbered.
    captions : tuple of str
        Columns of text. A row's caption is the first that is not null.

    Examples
    --------
    >>> Columns.of(pa.schema({"jpg": pa.binary(), "text": pa.string(), "width": pa.int64()}))
    Columns(image='jpg', key=None, captions=('text',))
    """

    image: str
    key: str | None = None
    captions: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: pa.Schema, image: str | None = None, key: str | None = None) -> Columns:
        """Return the columns of a schema; those named, else found by name and type.

        Raises
        ------
        SourceError
            There is no such column, or several could be meant.
        """
        image = image_column_of(schema, image)
        texts = [name for name in CAPTION_COLUMNS if name in schema.names and _is_text_type(schema.field(name).type)]
        return cls(image=image, key=key_column_of(schema, key), captions=tuple(texts))

    def names(self, *, captions: bool) -> list[str]:
        """Return the columns that a scan reads, each once."""
        wanted = (self.image, *([self.key] if self.key else []), *(self.captions if captions else ()))
        return list(dict.fromkeys(wanted))

    @property
    def state(self) -> str:
        """The choice as text, for the state of a part: other columns are other samples."""
        return json.dumps([self.image, self.key, *self.captions])


def samples_of(
    table: pa.Table, columns: Columns, *, prefix: str, first: int, captions: bool = False, full: bool = False
) -> tuple[Sample, ...]:
    """Return a table's rows as samples.

    Parameters
    ----------
    table : pa.Table
        At least the columns asked for.
    columns : Columns
        The columns of image, key and captions.
    prefix, first : str, int
        A row without a key is called by the prefix and its number, counted from `first` on.
    captions : bool
        With captions.
    full : bool
        With captions, and with members: the caption as ``txt``, and all columns but the image as ``json``.
    """
    count = len(table)
    keys = table.column(columns.key).to_pylist() if columns.key else [None] * count
    if full:
        others = table.drop_columns([columns.image]).to_pylist()
    elif captions and columns.captions:
        others = table.select(columns.captions).to_pylist()
    else:
        others = [{}] * count
    samples = []
    for row, (value, key, other) in enumerate(zip(table.column(columns.image), keys, others, strict=True), first):
        image, place, failure = _image_value(value.as_py())
        path = place.path if place else ""
        caption = next((other[name] for name in columns.captions if isinstance(other.get(name), str)), None)
        samples.append(
            Sample(
                key=f"{prefix}{row}" if key is None else str(key),
                image=image,
                place=place,
                failure=failure,
                extension=_sniff(image) if image else PurePosixPath(path).suffix[1:] or "jpg",
                caption=caption,
                members=_members(other, caption) if full else {},
            )
        )
    return tuple(samples)


def image_column_of(schema: pa.Schema, wanted: str | None = None) -> str:
    """Return the name of the image column: the one wanted, else a usual name, else the only one of a fitting type.

    Raises
    ------
    SourceError
        There is no such column, or several could be meant.

    Examples
    --------
    >>> image_column_of(pa.schema({"url": pa.string(), "picture": pa.binary()}))
    'picture'
    """
    fitting: list[str] = [field.name for field in schema if _is_image_type(field.type)]
    if wanted is not None:
        if wanted not in fitting:
            raise SourceError(
                f"{wanted!r} is not an image column; columns of binary, or of a struct with bytes, are "
                f"{fitting or 'none'}"
            )
        return wanted
    named = [name for name in IMAGE_COLUMNS if name in fitting]
    if named:
        return named[0]
    if len(fitting) == 1:
        return fitting[0]
    raise SourceError(
        f"can't tell which column holds the images: {fitting or 'none'} of {schema.names} could; "
        "name it with image_column= (--image-column)"
    )


def key_column_of(schema: pa.Schema, wanted: str | None = None) -> str | None:
    """Return the name of the key column: the one wanted, else one of `KEY_COLUMNS`, else None.

    Raises
    ------
    SourceError
        The column wanted is not there.

    Examples
    --------
    >>> key_column_of(pa.schema({"key": pa.string()})), key_column_of(pa.schema({"id": pa.string()}))
    ('key', None)
    """
    if wanted is not None and wanted not in schema.names:
        raise SourceError(f"no column {wanted!r} for the keys; there are {schema.names}")
    return wanted or next((name for name in KEY_COLUMNS if name in schema.names), None)


def undecoded(split: Any) -> Any:
    """Return the same data set with its image columns as the bytes they were stored as."""
    import datasets

    for name, feature in split.features.items():
        if isinstance(feature, datasets.Image):
            split = split.cast_column(name, datasets.Image(decode=False))
    return split


def _is_image_type(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or str(kind) == "binary_view"
    )


def _is_text_type(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view")


def _image_value(value: Any) -> tuple[bytes | None, Location | None, str | None]:
    """Return bytes, or a local file, or the reason why there is neither."""
    if not isinstance(value, Mapping):
        return (value, None, None) if value is not None else (None, None, "missing")
    if value.get("bytes") is not None:
        return value["bytes"], None, None
    path = value.get("path")
    if not path or not isinstance(path, str):
        return None, None, "missing"
    if "://" in path:
        return None, None, "not_fetched"
    return None, Location.of(path), None


def _members(row: Mapping[str, Any], caption: str | None) -> dict[str, bytes]:
    members = {} if caption is None else {"txt": caption.encode("utf-8", "surrogatepass")}
    members["json"] = json.dumps(row, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return members


_SIGNATURES: Sequence[tuple[bytes, str]] = (
    (b"\xff\xd8", "jpg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


def _sniff(encoded: bytes) -> str:
    """Return the usual extension of an image's format, by its first bytes."""
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "webp"
    return next((extension for start, extension in _SIGNATURES if encoded.startswith(start)), "jpg")
