"""Encoded images -> PDQ hashes: perceptual ones, which copies of a picture share though their bytes differ.

PDQ is Facebook's: "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm",
https://github.com/facebook/ThreatExchange/blob/main/hashing/hashing.pdf
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from types import ModuleType

import numpy as np
import numpy.typing as npt

from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS, DecodeLimits
from safetyfilter.embed.pictures.lumas import Lumas, lumas_of
from safetyfilter.errors import MissingExtraError
from safetyfilter.hashes.pdq_sampling import Samples, samples_of

MIN_QUALITY = 50
"""A hash of less quality says little: as ThreatExchange recommends, neither a match nor a miss is concluded from it."""
_NARROWEST = 5
"""Pixels of a side below which the reference gives no hash."""
_SHARES = (0.299, 0.587, 0.114)
"""Of red, green and blue in the luma that ``pdqhash`` takes."""
_ONE_MORE = np.array(sorted(product((0, 1), repeat=3), key=lambda added: float(np.dot(added, _SHARES))), np.uint8)
"""(8, 3): the channels that are given one level more, by how much of a level that adds to the luma."""
_BETWEEN = (np.sort(_ONE_MORE @ _SHARES)[1:] + np.sort(_ONE_MORE @ _SHARES)[:-1]) / 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PdqHash:
    """The PDQ hash of one picture.

    Attributes
    ----------
    hash : bytes
        32 bytes, in the order in which PDQ hashes are written in hex, of the picture as it is stored: EXIF turns it for
        no other implementation either.
    quality : int
        0 to 100; under 50 there is too little in the picture to tell it from others.
    dihedral : ndarray
        (8, 32) uint8, the hashes of the picture as it is, mirrored, upside down, and turned by 180 degrees, and the
        same of its transpose, in which rows are columns: all four rotations, and the mirror image of each.
    """

    hash: bytes
    quality: int
    dihedral: npt.NDArray[np.uint8]


def pdq_of(image: bytes, limits: DecodeLimits = DEFAULT_LIMITS, lumas: Lumas = lumas_of) -> tuple[PdqHash, ...]:
    """Return the PDQ hashes of each picture that an encoded image holds, each once.

    An image may hold several: frames or pages (`embed.pictures.frames.pictures_in`), and what usual loaders make
    of each (`embed.pictures.renderings.renderings`).

    Parameters
    ----------
    image : bytes
        An encoded image.
    limits : DecodeLimits
        What it may cost to decode.
    lumas : callable
        Decodes it.

    Returns
    -------
    tuple of PdqHash
        At least one; the first is the first picture's.

    Raises
    ------
    Unreadable
        The image can't be decoded, or not within the limits: whatever the bytes, no other error is raised for them.
    MissingExtraError
        The library ``pdqhash`` is not installed.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.effect_mandelbrot((99, 99), (-2, -2, 2, 2), 50).save(file, "PNG")
    >>> [found.quality for found in pdq_of(file.getvalue())]
    [100]
    """
    pdqhash = _pdqhash()
    found: dict[bytes, PdqHash] = {}
    for luma in lumas(image, limits):
        made = _hash(pdqhash, luma)
        found.setdefault(made.dihedral.tobytes(), made)
    return tuple(found.values())


def _pdqhash() -> ModuleType:
    try:
        import pdqhash
    except ImportError as error:
        raise MissingExtraError("pdqhash", "hashes") from error
    module: ModuleType = pdqhash
    return module


def _hash(pdqhash: ModuleType, luma: npt.NDArray[np.uint8]) -> PdqHash:
    hashes, qualities = zip(*(_bits(pdqhash, samples) for samples in samples_of(luma)), strict=True)
    quality = qualities[0] if min(luma.shape) >= _NARROWEST else 0
    # the hash of the transpose is the transposed hash: its bits are a square of frequencies
    both = np.stack([*hashes, *(bits.T for bits in hashes)])
    packed = np.packbits(both.reshape(len(both), -1), axis=1)
    return PdqHash(hash=packed[0].tobytes(), quality=quality, dihedral=packed)


def _bits(pdqhash: ModuleType, samples: Samples) -> tuple[npt.NDArray[np.uint8], int]:
    """(16, 16) of 0 and 1, and the quality: ``pdqhash`` hashes a picture of 64 x 64 without making it smaller."""
    # Rounding to levels would move some bits. The channels have different shares in the luma, so that fractions of a
    # level can be told to about a tenth.
    whole = samples.astype(np.uint8)
    vector, quality = pdqhash.compute(whole[..., None] + _ONE_MORE[np.searchsorted(_BETWEEN, samples - whole)])
    return vector.astype(np.uint8).reshape(16, 16), int(quality)
