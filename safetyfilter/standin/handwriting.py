"""Handwritten digits of scikit-learn's `load_digits`, warped as handwriting varies.

The handwriting is split at the boundaries between writers, so no writer is in two splits:

============  =====================================  =======
split         rows of ``load_digits().images``       writers
============  =====================================  =======
train         0 to 1156                              9
validation    1157 to 1414                           2
test          1415 to 1796                           3
============  =====================================  =======
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from .backgrounds import Split

#: Every writer of this data set begins with 0 to 9 written twice: where that happens is where a writer begins.
HANDWRITING: dict[Split, range] = {
    "train": range(0, 1157),
    "validation": range(1157, 1415),
    "test": range(1415, 1797),
}

_GLYPH = 32  # glyph fields are this high before they are warped
_MARGIN = 10  # and have this much empty paper around them


@lru_cache(maxsize=3)
def _glyphs(split: Split) -> dict[int, list[Image.Image]]:
    """Each digit's handwriting in a split, as smooth ink fields (mode L) with a margin of empty paper."""
    data = load_digits()
    glyphs: dict[int, list[Image.Image]] = {digit: [] for digit in range(10)}
    for row in HANDWRITING[split]:
        smooth = np.clip(zoom(np.pad(data.images[row] / 16.0, 1), 6, order=3), 0, 1)
        ys, xs = np.nonzero(smooth > 0.35)
        ink = smooth[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        field = Image.fromarray((ink * 255).astype(np.uint8))
        width = max(4, round(field.width * _GLYPH / field.height))
        paper = Image.new("L", (width + 2 * _MARGIN, _GLYPH + 2 * _MARGIN))
        paper.paste(field.resize((width, _GLYPH), Image.Resampling.BICUBIC), (_MARGIN, _MARGIN))
        glyphs[int(data.target[row])].append(paper)
    return glyphs


def written(
    rng: np.random.Generator, split: Split, digit: int, height: float, stretch: tuple[float, float]
) -> NDArray[np.float32]:
    """One handwritten digit, warped and cut to its ink.

    Parameters
    ----------
    height
        Of the digit as written, in pixels, before it is warped.
    stretch
        Further factors on width and height, for a picture that is drawn as if squashed.

    Returns
    -------
    (h, w) float32 coverage in [0, 1].
    """
    choices = _glyphs(split)[digit]
    glyph = choices[int(rng.integers(len(choices)))]
    unit = height / _GLYPH
    wide = max(3, round(glyph.width * unit * stretch[0] * rng.uniform(0.8, 1.25)))
    high = max(3, round(glyph.height * unit * stretch[1]))
    # The corners of the output, looked up in the glyph: rotation, slant and an uneven hand in one bilinear warp.
    corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * (glyph.width / 2, glyph.height / 2)
    angle, slant = rng.normal(0, 0.1), rng.normal(0, 0.12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = corners @ np.array([[1, 0], [slant, 1]]) @ turn + rng.normal(0, 1.2, (4, 2))
    corners += (glyph.width / 2, glyph.height / 2)
    quad = tuple(corners.ravel().tolist())
    warped = glyph.transform((wide, high), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)
    value = np.asarray(warped, dtype=np.float32) / np.float32(255)
    # Where the ink begins is the thickness of the stroke; how fast it turns opaque is the sharpness of the pen.
    ink = np.clip((value - np.float32(rng.uniform(0.38, 0.62))) * np.float32(rng.uniform(2.5, 6)) + 0.5, 0, 1)
    rows, columns = np.nonzero(ink.max(axis=1) > 0.2)[0], np.nonzero(ink.max(axis=0) > 0.2)[0]
    if not rows.size:
        return value
    return np.asarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], dtype=np.float32)
