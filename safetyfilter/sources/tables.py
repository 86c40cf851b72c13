"""The columns of a table that hold its samples' images, keys, captions and further pictures, by name and type."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from safetyfilter.errors import SourceError

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
    others : tuple of str
        Further columns whose type can hold pictures, or paths of pictures.

    Examples
    --------
    >>> Columns.of(pa.schema({"jpg": pa.binary(), "text": pa.string(), "width": pa.int64()}))
    Columns(image='jpg', key=None, captions=('text',), others=())
    """

    image: str
    key: str | None = None
    captions: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: pa.Schema, image: str | None = None, key: str | None = None) -> Columns:
        """Return the columns of a schema; those named, else found by name and type.

        Raises
        ------
        SourceError
            There is no such column, or several could be meant; or several columns have one name.
        """
        repeated = sorted(name for name, count in Counter(schema.names).items() if count > 1)
        if repeated:
            raise SourceError(
                f"several columns are called {', '.join(repeated)}; rename them, so that each has its own"
            )
        image = image_column_of(schema, image)
        texts = [name for name in CAPTION_COLUMNS if name in schema.names and is_text(schema.field(name).type)]
        others = [field.name for field in schema if field.name != image and may_hold_pictures(field.type)]
        return cls(image=image, key=key_column_of(schema, key), captions=tuple(texts), others=tuple(others))

    def names(self, *, captions: bool) -> list[str]:
        """Return the columns that a scan reads, each once."""
        wanted = (
            self.image,
            *([self.key] if self.key else []),
            *self.others,
            *(self.captions if captions else ()),
        )
        return list(dict.fromkeys(wanted))

    @property
    def state(self) -> str:
        """The choice as text, for the state of a part: other columns are other samples."""
        return json.dumps([self.image, self.key, self.captions, self.others])


def image_column_of(schema: pa.Schema, wanted: str | None = None) -> str:
    """Return the name of the image column: the one wanted, else a usual name, else the only one of a fitting type.

    A column in which every value is null has no type: it is the image column where it is wanted, or has a usual name
    and no other column fits. All its rows are ``missing``.

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
    empty = [field.name for field in schema if pa.types.is_null(field.type)]
    if wanted is not None:
        if wanted not in (*fitting, *empty):
            raise SourceError(
                f"{wanted!r} is not an image column; columns of binary, or of a struct with bytes, are "
                f"{fitting or 'none'}{_remedy_for_paths(schema, [wanted])}"
            )
        return wanted
    named = [name for name in IMAGE_COLUMNS if name in fitting]
    if named:
        return named[0]
    if len(fitting) == 1:
        return fitting[0]
    without_a_value = [name for name in IMAGE_COLUMNS if name in empty]
    if without_a_value and not fitting:
        return without_a_value[0]
    if not fitting:
        raise SourceError(
            f"no column of {schema.names} holds encoded images, that is binary or a struct with bytes; leave it out, "
            f"or write the images into it{_remedy_for_paths(schema, IMAGE_COLUMNS)}{_remedy_for_vectors(schema)}"
        )
    raise SourceError(
        f"can't tell which column holds the images: {fitting} of {schema.names} could; "
        "name it with image_column= (--image-column)"
    )


def _remedy_for_paths(schema: pa.Schema, names: Sequence[str]) -> str:
    """Return how a column of text is made one of images, to end an error with; empty where none of these is text."""
    texts = [name for name in names if name in schema.names and is_text(schema.field(name).type)]
    if not texts:
        return ""
    return (
        f"; {texts[0]!r} holds text, and a column of paths must be a struct of bytes (null) and path: make it one with "
        f"cast_column({texts[0]!r}, datasets.Image())"
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
    if wanted is not None:
        return wanted
    usual = (name for name in KEY_COLUMNS if name in schema.names)
    return next((name for name in usual if not pa.types.is_null(schema.field(name).type)), None)


def undecoded(split: Any) -> Any:
    """Return the same data set with its image columns as the bytes they were stored as."""
    import datasets

    for name, feature in split.features.items():
        if isinstance(feature, datasets.Image):
            split = split.cast_column(name, datasets.Image(decode=False))
    return split


def may_hold_pictures(kind: pa.DataType) -> bool:
    """Return True for a type whose values can be pictures' bytes or paths, at any depth; not for text and numbers.

    >>> may_hold_pictures(pa.list_(pa.struct({"path": pa.string()}))), may_hold_pictures(pa.list_(pa.string()))
    (True, False)
    """
    if pa.types.is_dictionary(kind):
        return may_hold_pictures(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return may_hold_pictures(kind.storage_type)
    if pa.types.is_struct(kind):
        return any(may_hold_pictures(field.type) or (field.name == "path" and is_text(field.type)) for field in kind)
    if pa.types.is_map(kind):
        return may_hold_pictures(kind.item_type) or may_hold_pictures(kind.key_type)
    if is_list(kind):
        return may_hold_pictures(kind.value_type)
    return _is_binary(kind)


def _remedy_for_vectors(schema: pa.Schema) -> str:
    vectors = [field.name for field in schema if is_vector(field.type)]
    if not vectors:
        return ""
    return f"; or name the one of {vectors} that holds embeddings with image_column= (--image-column)"


def is_list(kind: pa.DataType) -> bool:
    """Return True for a type of lists, of whichever layout; not for maps.

    >>> is_list(pa.large_list(pa.int8())), is_list(pa.list_(pa.int8(), 3)), is_list(pa.string())
    (True, True, False)
    """
    return str(kind).startswith(("list", "large_list", "fixed_size_list"))


def is_vector(kind: pa.DataType) -> bool:
    """Return True for a type of lists of floats, or of tensors of them that have one dimension.

    >>> kinds = pa.list_(pa.float16(), 3), pa.fixed_shape_tensor(pa.float32(), [3]), pa.list_(pa.int8()), pa.float32()
    >>> [is_vector(kind) for kind in kinds]
    [True, True, False, False]
    """
    kind = stored_as(kind)
    return is_list(kind) and bool(pa.types.is_floating(kind.value_type))


def stored_as(kind: pa.DataType) -> pa.DataType:
    """Return the lists that tensors of one dimension are stored as, and any other type as it is.

    >>> stored_as(pa.fixed_shape_tensor(pa.float32(), [3])) == pa.list_(pa.float32(), 3)
    True
    """
    return kind.storage_type if isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) == 1 else kind


def is_text(kind: pa.DataType) -> bool:
    """Return True for a type of text, of whichever layout.

    >>> is_text(pa.string_view()), is_text(pa.dictionary(pa.int8(), pa.large_string())), is_text(pa.binary())
    (True, True, False)
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view")


def _is_image_type(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and (_is_binary(f.type) or pa.types.is_null(f.type)) for f in kind)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or str(kind) == "binary_view"
    )
