"""Encoded images -> PDQ hashes: perceptual ones, which copies of a picture share though their bytes differ.

PDQ: https://github.com/facebook/ThreatExchange/tree/main/pdq
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from safetyfilter.embed.frames import pictures_in
from safetyfilter.embed.headers import DEFAULT_LIMITS, DecodeLimits, failures_named, open_header
from safetyfilter.embed.renderings import renderings
from safetyfilter.errors import MissingExtraError

MIN_QUALITY = 50
"""A hash of less quality says too little for a match, or for none: its picture counts as unchecked."""
_SIDE = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PdqHash:
    """The PDQ hash of one picture.

    Attributes
    ----------
    hash : bytes
        32 bytes, in the order in which PDQ hashes are written in hex.
    quality : int
        0 to 100; under 50 the picture has too little in it to be told from others.
    dihedral : ndarray
        (8, 32) uint8, the hashes of the picture turned by 0, 90, 180 and 270 degrees, and the same of its mirror image;
        the first is `hash`.
    """

    hash: bytes
    quality: int
    dihedral: npt.NDArray[np.uint8]


def pdq_of(image: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> tuple[PdqHash, ...]:
    """Return the PDQ hash of each picture that an encoded image holds: frames, pages, and ways to show transparency.

    Raises
    ------
    Unreadable
        The image can't be decoded, or not within the limits.
    MissingExtraError
        The library ``pdqhash`` is not installed.
    """
    try:
        import pdqhash
    except ImportError as error:
        raise MissingExtraError("pdqhash", "hashes") from error
    found = []
    with failures_named():
        header = open_header(image, limits)
    for picture, _ in pictures_in(header, image, limits):
        with failures_named():
            picture.load()
            shown = [
                rgb.resize((_SIDE, _SIDE), Image.Resampling.BOX) if max(rgb.size) > _SIDE else rgb
                for rgb in renderings(picture)
            ]
        for rgb in shown:
            bits, quality = pdqhash.compute_dihedral(np.asarray(rgb))
            packed = np.packbits(np.asarray(bits, np.uint8), axis=1)
            found.append(PdqHash(hash=packed[0].tobytes(), quality=int(quality), dihedral=packed))
    return tuple(found)
