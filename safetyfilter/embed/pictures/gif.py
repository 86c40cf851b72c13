"""The blocks of a GIF, walked before Pillow goes through them: it makes room for a frame before its size is checked."""

from __future__ import annotations

from dataclasses import dataclass

_EXTENSION, _FRAME, _END = b"!", b",", b";"
_DESCRIPTOR = 10  # with the byte that says that one comes


@dataclass(frozen=True, slots=True, kw_only=True)
class GifBlocks:
    """The blocks of a GIF.

    Attributes
    ----------
    frames : int
        Its pictures.
    pixels : int
        Those of the screen once it is as wide and as high as Pillow makes it to hold all frames.
    too_many : bool
        True where there are more blocks than were walked: the numbers are of those.
    """

    frames: int
    pixels: int
    too_many: bool


def gif_blocks(data: bytes, limit: int) -> GifBlocks:
    """Return what the blocks of a GIF say, of which so many are walked at most.

    Bytes between blocks that are none are passed over, as Pillow does. Blocks are those of the specification: of an
    extension without content, Pillow takes what comes next for its content, so that it does not see a frame there.

    Parameters
    ----------
    data : bytes
        A GIF.
    limit : int
        The most blocks, each part of 255 bytes of a frame or extension counted.

    Examples
    --------
    >>> frame = b",\\0\\0\\0\\0\\x02\\0\\x03\\0\\0" + b"\\x02" + b"\\x01x" + b"\\0"
    >>> gif_blocks(b"GIF89a\\x01\\0\\x01\\0\\0\\0\\0" + 2 * frame + b";", limit=100)
    GifBlocks(frames=2, pixels=6, too_many=False)
    """
    width, height = _number(data, 6), _number(data, 8)
    at = 13 + _palette(data[10:11])
    frames = walked = 0
    while at < len(data) and walked <= limit:
        kind = data[at : at + 1]
        walked += 1
        if kind == _END:
            break
        if kind == _EXTENSION:
            at += 2
        elif kind == _FRAME:
            width = max(width, _number(data, at + 1) + _number(data, at + 5))
            height = max(height, _number(data, at + 3) + _number(data, at + 7))
            frames += 1
            at += _DESCRIPTOR + _palette(data[at + 9 : at + 10]) + 1
        else:
            at += 1
            continue
        while at < len(data) and data[at] and walked <= limit:
            at += 1 + data[at]
            walked += 1
        at += 1
    return GifBlocks(frames=frames, pixels=width * height, too_many=walked > limit)


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _palette(flags: bytes) -> int:
    """The bytes of the palette that these flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
