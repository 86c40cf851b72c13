"""Small real pictures of each format and of many variants: the files that mutations begin with."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from common import photographs
from PIL import Image

SIDE = 40


@cache
def frames() -> tuple[Image.Image, ...]:
    """Three small pictures, of photographs without people."""
    return tuple(picture.resize((SIDE, SIDE - 8 * number)) for number, picture in enumerate(photographs()[:3]))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A file of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _alike() -> list[Image.Image]:
    return [frame.resize((SIDE, SIDE)) for frame in frames()]


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _jpeg() -> list[bytes]:
    first, second, _ = frames()
    plain = encoded(first, "JPEG", quality=80)
    return [
        plain,
        encoded(first, "JPEG", progressive=True),
        encoded(first.convert("L"), "JPEG"),
        encoded(first.convert("CMYK"), "JPEG"),
        encoded(first, "JPEG", subsampling=0, quality=95, exif=_exif(6), comment=b"a comment", dpi=(72, 72)),
        encoded(first, "JPEG", restart_marker_rows=1, exif=_exif(3)),
        encoded(second, "MPO", save_all=True, append_images=[first.resize(second.size)]),
        encoded(second, "MPO", save_all=True, append_images=[frame.resize(second.size) for frame in frames()]),
        plain + encoded(second, "JPEG"),
        encoded(first.resize((5 * SIDE, 4 * SIDE)), "JPEG", quality=30),  # scaled down as it is decoded
    ]


def _png() -> list[bytes]:
    first, *_ = frames()
    alpha = first.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(first.size))
    deep = Image.fromarray(np.asarray(first.convert("L")).astype(np.uint16) * 257)
    animated = {"save_all": True, "append_images": _alike()[1:], "duration": 50}
    return [
        encoded(first, "PNG"),
        encoded(alpha, "PNG"),
        encoded(first.convert("L"), "PNG", transparency=9),
        encoded(alpha.convert("LA"), "PNG"),
        encoded(first.quantize(16), "PNG", transparency=3),
        encoded(first.convert("1"), "PNG"),
        encoded(deep, "PNG"),
        encoded(first, "PNG", **animated),
        encoded(alpha, "PNG", **animated, default_image=True),
        encoded(first.quantize(200), "PNG", exif=_exif(8), dpi=(72, 72), icc_profile=b"no profile"),
    ]


def _webp() -> list[bytes]:
    first, *others = _alike()
    alpha = first.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(first.size))
    return [
        encoded(first, "WEBP"),
        encoded(first, "WEBP", lossless=True),
        encoded(alpha, "WEBP", exif=_exif(5)),
        encoded(first, "WEBP", save_all=True, append_images=others),
        encoded(alpha, "WEBP", save_all=True, append_images=others, lossless=True, minimize_size=True),
    ]


def _gif() -> list[bytes]:
    first, *others = _alike()
    palettes = [frame.quantize(number) for frame, number in zip(_alike(), (4, 16, 250), strict=True)]
    return [
        encoded(first, "GIF"),
        encoded(first.convert("L"), "GIF", interlace=True, comment=b"a comment"),
        encoded(first, "GIF", save_all=True, append_images=others, loop=0, duration=40),
        encoded(palettes[0], "GIF", save_all=True, append_images=palettes[1:], disposal=2, transparency=1),
        encoded(first, "GIF", save_all=True, append_images=[frame.resize((20, 10)) for frame in others], disposal=3),
    ]


def _bmp() -> list[bytes]:
    first, *_ = frames()
    return [
        encoded(first, "BMP"),
        encoded(first.convert("RGBA"), "BMP"),
        encoded(first.convert("1"), "BMP"),
        encoded(first.quantize(200), "BMP"),
        encoded(first.convert("L"), "BMP"),
        _run_length_bmp(),
    ]


def _run_length_bmp() -> bytes:
    """A bitmap of 8 bits a pixel with run-length encoding, which Pillow reads and does not write."""
    palette = b"".join(bytes((number, 255 - number, number // 2, 0)) for number in range(256))
    lines = b"".join(bytes((SIDE, 6 * line % 256, 0, 0)) for line in range(SIDE - 1))
    runs = lines + bytes((SIDE - 4, 77, 0, 4, 1, 2, 3, 4, 0, 1))
    offset = 14 + 40 + len(palette)
    fields = [(40, 4), (SIDE, 4), (SIDE, 4), (1, 2), (8, 2), (1, 4), (len(runs), 4), (0, 4), (0, 4), (256, 4), (0, 4)]
    header = b"".join(value.to_bytes(width, "little") for value, width in fields)
    total = (offset + len(runs)).to_bytes(4, "little")
    return b"BM" + total + bytes(4) + offset.to_bytes(4, "little") + header + palette + runs


def _tiff() -> list[bytes]:
    first, *others = _alike()
    grey = np.asarray(first.convert("L"))
    compressed = [encoded(first, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
    return [
        encoded(first, "TIFF"),
        *compressed,
        encoded(first.convert("1"), "TIFF", compression="group4"),
        encoded(first.convert("CMYK"), "TIFF"),
        encoded(first.quantize(50), "TIFF"),
        encoded(Image.fromarray(grey.astype(np.uint16) * 257), "TIFF"),
        encoded(Image.fromarray(grey.astype(np.float32)), "TIFF"),
        encoded(Image.fromarray(grey.astype(np.int32) * 9), "TIFF"),
        encoded(first, "TIFF", save_all=True, append_images=others),
        encoded(first, "TIFF", save_all=True, append_images=others, compression="tiff_lzw"),
        encoded(first.convert("RGBA"), "TIFF", big_tiff=True, tiffinfo={0x0112: 6}),
    ]


SEEDS: Mapping[str, Callable[[], list[bytes]]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
}
"""The files of each format."""
