"""The samples that PDQ hashes: those of two passes of a box filter over the whole picture."""

import numpy as np
import pytest

from safetyfilter.hashes.pdq_sampling import SAMPLES, samples_of


def blurred(pixels):
    """Each row's running mean, of a window that begins a little behind a pixel, or of what is in the picture of it."""
    window = -(-pixels.shape[1] // 128)
    ahead = window // 2 + 1
    behind = window - ahead
    means = [pixels[:, max(0, at - behind) : at + ahead].mean(axis=1) for at in range(pixels.shape[1])]
    return np.stack(means, axis=1)


def naive(luma):
    """Blurred twice along rows and columns in turn, as the reference does it, and one value of each block."""
    pixels = luma.astype(np.float64)
    for _ in range(2):
        pixels = blurred(blurred(pixels).T).T
    rows, columns = (((np.arange(SAMPLES) + 0.5) * size / SAMPLES).astype(int) for size in luma.shape)
    return pixels[np.ix_(rows, columns)]


@pytest.mark.parametrize(
    "shape", [(5, 64), (63, 65), (127, 128), (129, 256), (257, 300), (511, 7), (1023, 70)], ids=str
)
def test_samples_are_those_of_the_filter_over_the_whole_picture(shape):
    luma = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    positions = (luma, luma[:, ::-1], luma[::-1], luma[::-1, ::-1])
    for samples, pixels in zip(samples_of(luma), positions, strict=True):
        np.testing.assert_allclose(samples, naive(pixels), atol=0.01)


def test_samples_stay_within_the_levels_of_the_picture():
    luma = np.full((700, 900), 255, np.uint8)
    assert all(np.floor(samples).max() <= 255 and samples.min() > 254.9 for samples in samples_of(luma))
