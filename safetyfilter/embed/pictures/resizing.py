"""Resizes parts of pictures by torch and, from some number of pictures on, by a compiled loop that does the same."""

from __future__ import annotations

import itertools
from contextlib import suppress

from safetyfilter.native.resizing import Bytes, Resizer, Wanted, by_torch, resizer

PICTURES_BEFORE = 500
"""Views that a process resizes by torch before it compiles the loop: compiling takes the time of some thousands."""

_count = itertools.count(1)
_loop: Resizer | None = None


def compile_loop() -> bool:
    """Compile the loop now; False where that can't be, and torch goes on resizing, with the same pixels."""
    global _loop
    with suppress(MemoryError):  # says nothing about the picture that is about to be resized
        _loop = resizer()
    return _loop is not None


def resize(picture: Bytes, wanted: Wanted, made: Bytes) -> None:
    """Resize a picture and write what is wanted of it; the same whichever way it is done.

    Parameters
    ----------
    picture : ndarray
        (H, W, 3) uint8, a part of rows and columns of a contiguous one.
    wanted : Wanted
        Within the size that the picture gets.
    made : ndarray
        (bottom - top, right - left, 3) uint8, written.

    Examples
    --------
    >>> import numpy as np
    >>> made = np.zeros((2, 2, 3), np.uint8)
    >>> resize(np.full((8, 8, 3), 9, np.uint8), Wanted(size=(4, 4), box=(1, 1, 3, 3), cubic=True), made)
    >>> made.min().item()
    9
    """
    if _loop is None and next(_count) == PICTURES_BEFORE:
        compile_loop()  # in this thread; the others go on by torch meanwhile
    if _loop is not None:
        _loop(picture, wanted, made)
        return
    left, top, right, low = wanted.box
    made[:] = by_torch(picture, wanted.size, cubic=wanted.cubic)[top:low, left:right]
