"""The compiled resizing of RGB pictures, checked against torch's before it is first used."""

from __future__ import annotations

import ctypes
import logging
import struct
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from safetyfilter.native.build import library

Bytes: TypeAlias = npt.NDArray[np.uint8]

_KEPT_BYTES = 4 * 2**20
"""The most that a thread keeps for its next picture."""
_SIZES = (((341, 512), (224, 336)), ((7, 5), (16, 40)), ((64, 30), (16, 16)), ((1, 1), (3, 2)))
"""Heights and widths of pictures, and of what is made of them, that are compared with torch's."""
_SIDE_BY_SIDE = [3, 1]
_Scratch: TypeAlias = tuple[int, Bytes, int]
"""Its size, its memory and where that lies."""
_log = logging.getLogger(__name__)
_memory = threading.local()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A part of a picture that is resized.

    Attributes
    ----------
    size : tuple of int
        Width and height that the whole picture would get.
    box : tuple of int
        Left, top, right and bottom of what is wanted of it.
    cubic : bool
        By torch's antialiased bicubic kernel, else by its antialiased bilinear one.
    """

    size: tuple[int, int]
    box: tuple[int, int, int, int]
    cubic: bool
    packed: bytes = field(init=False, repr=False, compare=False)
    """The same for the loop."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "packed", struct.pack("=7q", *self.size, *self.box, self.cubic))


@dataclass(frozen=True, slots=True, eq=False)
class Resizer:
    """The compiled loop; other threads run while it works.

    Parameters
    ----------
    library : ctypes.CDLL
        From `safetyfilter.native.build.library`.
    """

    library: ctypes.CDLL

    def __call__(self, picture: Bytes, wanted: Wanted, made: Bytes) -> None:
        """Resize a picture, to the same bit as torch.

        Parameters
        ----------
        picture : ndarray
            (H, W, 3) uint8; rows may lie apart, pixels not.
        wanted : Wanted
            Within the size that the picture gets.
        made : ndarray
            (bottom - top, right - left, 3) uint8, written; rows may lie apart, pixels not.

        Raises
        ------
        MemoryError
            There is not enough.
        """
        (height, width, _), (left, top, right, low) = picture.shape, wanted.box
        stride, *close = picture.strides
        made_stride, *made_close = made.strides
        if close != _SIDE_BY_SIDE or made_close != _SIDE_BY_SIDE or made.shape != (low - top, right - left, 3):
            raise ValueError("the loop takes pixels that lie side by side: a fault of the library, report it")
        size = self.library.resize_scratch(width, height, right - left)
        scratch: _Scratch | None = getattr(_memory, "kept", None)
        if scratch is None or scratch[0] < size:
            memory = np.empty(size, np.uint8)
            scratch = (size, memory, memory.ctypes.data)
            if size <= _KEPT_BYTES:
                _memory.kept = scratch
        done = self.library.resize_rgb(
            picture.ctypes.data, width, height, stride, wanted.packed, scratch[2], made.ctypes.data, made_stride
        )
        if not done:
            raise MemoryError


@lru_cache(maxsize=1)
def resizer() -> Resizer | None:
    """Return the compiled loop; None where it can't be made, or doesn't give what torch gives."""
    made = library()
    if made is None or not made.resizes():
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    made.resize_scratch.argtypes, made.resize_scratch.restype = (number, number, number), number
    made.resize_rgb.argtypes = (pointer, number, number, number, ctypes.c_char_p, pointer, pointer, number)
    made.resize_rgb.restype = ctypes.c_int32
    loop = Resizer(made)
    if _sound(loop):
        return loop
    _log.warning("pictures are resized by torch: the compiled loop gives other pixels than this version of it")
    return None


def _sound(loop: Resizer) -> bool:
    """True where the loop gives torch's pixels, of noise."""
    rng = np.random.default_rng(0)
    for have, want in _SIZES:
        for cubic in (True, False):
            picture = rng.integers(0, 256, (*have, 3), np.uint8)
            made: npt.NDArray[Any] = np.empty((*want, 3), np.uint8)
            loop(picture, Wanted(size=want[::-1], box=(0, 0, *want[::-1]), cubic=cubic), made)
            if not np.array_equal(made, by_torch(picture, want[::-1], cubic=cubic)):
                return False
    return True


def by_torch(picture: Bytes, size: tuple[int, int], *, cubic: bool) -> Bytes:
    """Return a picture resized to this width and height by torch.

    Parameters
    ----------
    picture : ndarray
        (H, W, 3) uint8.
    size : tuple of int
        Width and height.
    cubic : bool
        By the antialiased bicubic kernel, else by the bilinear one.

    Examples
    --------
    >>> by_torch(np.zeros((4, 6, 3), np.uint8), (3, 2), cubic=True).shape
    (2, 3, 3)
    """
    import torch
    from torch.nn.functional import interpolate

    # channels last, as pictures are held, and known as such by the stride of a batch of one: the kernel reads and
    # writes that layout at full speed
    pixels = torch.from_numpy(picture)[None].permute(0, 3, 1, 2)
    resized = interpolate(pixels, size=size[::-1], mode="bicubic" if cubic else "bilinear", antialias=True)
    result: Bytes = resized[0].permute(1, 2, 0).numpy()
    return result
