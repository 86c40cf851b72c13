"""Pictures among the values of a sample, whatever they are called: what no probe has seen is never handed on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from PIL import Image

from safetyfilter.sources.signatures import format_of, is_sound

Picture: TypeAlias = "bytes | str | Image.Image"
"""Encoded bytes, the path of a file as a row holds it, or a decoded picture."""

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
"""Extensions of the formats that are scored."""
PICTURE_EXTENSIONS = IMAGE_EXTENSIONS | {
    *("jfif", "jpe", "jp2", "j2k", "jpx", "jxl", "avif", "heic", "heif", "ico", "psd", "svg", "ppm", "pgm", "pbm"),
    *("qoi", "exr", "hdr", "dds", "tga", "apng", "dib", "mpo"),
}
"""Extensions of pictures, scored or not; a sample that holds one which can't be scored is unscored."""

_SOUND_EXTENSIONS = frozenset({"wav", "mp3", "flac", "ogg", "oga", "opus", "m4a", "aac", "wma", "aif", "aiff", "au"})


def other_pictures(fields: Mapping[str, object], scored: str) -> tuple[Picture, ...]:
    """Return the pictures that a sample holds besides the one in the field `scored`, by their fields' names.

    Bytes are a picture where they begin as one, or where their field has a picture's extension; so are a dict of
    ``bytes`` and ``path`` as datasets stores images, unless it is sound, a decoded picture, and each of these in a list
    or a dict. Of the field `scored`, where it is a dict, ``bytes`` and ``path`` are the sample's own image, and all
    else is looked at.

    Parameters
    ----------
    fields : mapping of str to object
        A row of a table, the members of a tar sample, or a loader's sample.
    scored : str
        The field that holds the sample's own image.

    Examples
    --------
    >>> other_pictures({"jpg": b"\\xff\\xd8\\xff", "cls": b"3", "txt": b"GIF89a", "views": [{"path": "a.png"}]}, "jpg")
    (b'GIF89a', 'a.png')
    """
    found: list[Picture] = []
    for name in sorted(fields, key=lambda name: (name.lower(), name)):  # loaders may give names in lower case
        value = fields[name]
        if name == scored:
            value = _beside_the_image(value)
        found.extend(_pictures(value, is_picture_name(name)))
    return tuple(found)


def is_picture(name: str, value: object) -> bool:
    """Return True for a field that holds a picture, by its name's extension or by how its bytes begin.

    >>> is_picture("JPG", b"?"), is_picture("left.png", b"?"), is_picture("txt", b"GIF89a"), is_picture("txt", b"a cat")
    (True, True, True, False)
    """
    return is_picture_name(name) or any(True for _ in _pictures(value, False))


def is_picture_name(name: str) -> bool:
    """Return True for a name whose extension is a picture's, or which is such an extension itself.

    >>> is_picture_name("a/b.HEIC"), is_picture_name("png"), is_picture_name("notes.txt")
    (True, True, False)
    """
    return _extension(name) in PICTURE_EXTENSIONS


def picture_path(value: Mapping[str, object]) -> str | None:
    """Return the path by which a dict names a picture that it does not hold; None where it names none.

    Beside an empty ``bytes``, as datasets has it, every path is taken for a picture's but one of sound: datasets opens
    it whatever it is called.

    >>> picture_path({"path": "a.HEIC"}), picture_path({"path": "a.jpg_large", "bytes": None})
    ('a.HEIC', 'a.jpg_large')
    >>> picture_path({"path": "downloads/0f3c"}), picture_path({"path": "a.jpg", "bytes": b"held"})
    (None, None)
    """
    path = value.get("path")
    if value.get("bytes") is not None or not isinstance(path, str) or not path:
        return None
    stored = "bytes" in value and _extension(path) not in _SOUND_EXTENSIONS
    return path if stored or is_picture_name(path) else None


def holds_picture(value: bytes | bytearray | memoryview, named: bool) -> bool:
    """Return True for bytes that are a picture's: they begin as one, or are not empty and are `named` so.

    >>> holds_picture(b"?", True), holds_picture(b"GIF89a", False), holds_picture(b"", True), holds_picture(b"?", False)
    (True, True, False, False)
    """
    return len(value) > 0 and (named or format_of(value) is not None)


def named_in(value: Mapping[str, object], name: str, named: bool) -> bool:
    """Return True where what a dict holds under `name` is called a picture: as the dict is, or as datasets stores one.

    >>> [named_in({"bytes": content, "path": None}, "bytes", False) for content in (b"?", b"fLaC")]
    [True, False]
    """
    content = value.get(name)
    if named or name != "bytes" or "path" not in value or not isinstance(content, bytes | bytearray | memoryview):
        return named
    return not is_sound(bytes(content[:16]))


def _beside_the_image(value: object) -> object:
    if not isinstance(value, Mapping):
        return None
    return {name: each for name, each in value.items() if name not in ("bytes", "path")}


def _pictures(value: object, named: bool) -> Iterator[Picture]:
    if isinstance(value, bytes | bytearray | memoryview):
        if holds_picture(value, named):
            yield bytes(value)
    elif isinstance(value, Image.Image):
        yield value
    elif isinstance(value, Mapping):
        if (path := picture_path(value)) is not None:
            yield path
        for name, each in value.items():
            yield from _pictures(each, named_in(value, name, named))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _pictures(each, named)


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()
