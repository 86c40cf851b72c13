"""A picture's luma -> the 64 x 64 samples that PDQ hashes, as its reference implementation takes them.

The reference blurs the whole picture with two passes of a box filter along each side and then takes one value of each
of 64 x 64 blocks. Both are linear, so that only the values that are taken need to be computed: that costs a small part
of the time, and other threads go on meanwhile, which they can't while ``pdqhash`` blurs. The places of the values are
off the blocks' centres by some pixels, to one side; so a mirror image is sampled at other places, and has a hash of its
own, rather than the one that signs of the picture's frequencies give.

The filter: ``pdq/cpp/downscaling`` in https://github.com/facebook/ThreatExchange
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

SAMPLES = 64
"""Along each side."""
_WINDOWS = 2 * SAMPLES
"""A picture's side has so many windows: two passes of a window blur over a block."""

Samples = npt.NDArray[np.float32]
"""(64, 64), 0 to 255."""


def samples_of(luma: npt.NDArray[np.uint8]) -> tuple[Samples, Samples, Samples, Samples]:
    """Return the samples of a picture, of its mirror image, of it upside down, and of it turned by 180 degrees.

    Parameters
    ----------
    luma : ndarray
        (H, W) uint8, at least one pixel.

    Examples
    --------
    >>> [float(samples.max()) for samples in samples_of(np.full((200, 300), 7, np.uint8))]
    [7.0, 7.0, 7.0, 7.0]
    """
    rows, flipped = (np.ascontiguousarray(_sampled(pixels).T) for pixels in (luma, luma[::-1]))
    upright, mirrored, upside_down, turned = (
        _sampled(columns).T for half in (rows, flipped) for columns in (half, half[::-1])
    )
    return upright, mirrored, upside_down, turned


def _sampled(pixels: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
    """(64, M): the rows of (N, M) pixels, blurred along N and sampled."""
    rows, weights = _taps(len(pixels))
    samples: npt.NDArray[np.float32] = np.einsum("ts,tsm->sm", weights, pixels[rows])
    return samples


@lru_cache(maxsize=1024)
def _taps(size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """(T, 64) positions along a side and (T, 64) their weights: each sample is the weighted sum of T pixels.

    At the edges, a window is as narrow as what lies within the picture, and its values' mean is taken.
    """
    window = -(-size // _WINDOWS)
    ahead = (window + 2) // 2  # of the window: from the pixel itself on, one more than half where that is even
    behind = window - ahead
    taken = ((np.arange(SAMPLES) + 0.5) * size / SAMPLES).astype(np.int64)
    first = taken - 2 * behind
    tent = np.convolve(np.ones(window), np.ones(window)) / window**2
    weights = np.repeat(tent[:, None], SAMPLES, axis=1)
    for sample in np.flatnonzero((first < 0) | (first + len(tent) > size)):
        weights[:, sample] = 0
        once = range(max(0, taken[sample] - behind), min(size, taken[sample] + ahead))
        for pixel in once:
            begin, end = max(0, pixel - behind), min(size, pixel + ahead)
            weights[begin - first[sample] : end - first[sample], sample] += 1 / (len(once) * (end - begin))
    positions = np.clip(first + np.arange(len(weights))[:, None], 0, size - 1)
    return positions, weights.astype(np.float32)
