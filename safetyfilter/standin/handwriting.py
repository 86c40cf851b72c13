"""Handwritten digits of scikit-learn's `load_digits`, warped as handwriting varies.

The handwriting is split at the boundaries between writers, so no writer is in two splits:

============  =====================================  =======
split         rows of ``load_digits().images``       writers
============  =====================================  =======
train         386 to 1414, 1667 to 1796              9
validation    1415 to 1666                           2
test          0 to 385                               3
============  =====================================  =======

Three writers have threes or sevens that a classifier trained on all the others mostly misses (rows 386, 516 and 1667
on). They are in the training split on purpose: the scenes stand in for content that is plain to see, and what is to be
measured is the filter.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import zoom

from .backgrounds import Split, installed_file

#: Every writer of this data set begins with 0 to 9 written twice: where that happens is where a writer begins.
HANDWRITING: dict[Split, tuple[int, ...]] = {
    "train": (*range(386, 1415), *range(1667, 1797)),
    "validation": tuple(range(1415, 1667)),
    "test": tuple(range(386)),
}

_GLYPH = 32  # glyph fields are this high before they are warped
_MARGIN = 10  # and have this much empty paper around them
_CELLS = 3  # cells of the net that warps a digit, each way


@lru_cache(maxsize=3)
def _glyphs(split: Split) -> dict[int, list[Image.Image]]:
    """Each digit's handwriting in a split, as smooth ink fields (mode L) with a margin of empty paper."""
    # what scikit-learn's `load_digits` reads, whose import would take longer than most of the rendering in a process
    digits = np.loadtxt(installed_file("sklearn", "datasets/data/digits.csv.gz"), delimiter=",")
    images, target = digits[:, :-1].reshape(-1, 8, 8), digits[:, -1].astype(int)
    glyphs: dict[int, list[Image.Image]] = {digit: [] for digit in range(10)}
    for row in HANDWRITING[split]:
        smooth = np.clip(zoom(np.pad(images[row] / 16.0, 1), 6, order=3), 0, 1)
        ys, xs = np.nonzero(smooth > 0.35)
        ink = smooth[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        field = Image.fromarray((ink * 255).astype(np.uint8))
        width = max(4, round(field.width * _GLYPH / field.height))
        paper = Image.new("L", (width + 2 * _MARGIN, _GLYPH + 2 * _MARGIN))
        paper.paste(field.resize((width, _GLYPH), Image.Resampling.BICUBIC), (_MARGIN, _MARGIN))
        glyphs[int(target[row])].append(paper)
    return glyphs


def written(
    rng: np.random.Generator,
    split: Split,
    digit: int,
    height: float,
    stretch: tuple[float, float] = (1.0, 1.0),
    variety: float = 1.0,
) -> NDArray[np.float32]:
    """One handwritten digit, warped and cut to its ink.

    Parameters
    ----------
    height
        Of the digit as written, in pixels, before it is warped.
    stretch
        Further factors on width and height, for a picture that is drawn as if squashed.

    variety
        How far the warp strays from the hand as it was; training goes beyond 1, to be ready for other writers.

    Returns
    -------
    (h, w) float32 coverage in [0, 1].
    """
    choices = _glyphs(split)[digit]
    glyph = choices[int(rng.integers(len(choices)))]
    unit = height / _GLYPH
    wide = max(_CELLS, round(glyph.width * unit * stretch[0] * np.exp(rng.uniform(-0.2, 0.2) * variety)))
    high = max(_CELLS, round(glyph.height * unit * stretch[1]))
    # A net over the output, each knot looked up in the glyph: rotation, slant and an uneven hand in one warp.
    knots = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, _CELLS + 1)] * 2), axis=-1) * (glyph.width, glyph.height)
    angle, slant = rng.normal(0, 0.1 * variety), rng.normal(0, 0.12 * variety)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    knots = knots @ np.array([[1, 0], [slant, 1]]) @ turn + rng.normal(0, variety, knots.shape)
    knots += (glyph.width / 2, glyph.height / 2)
    xs, ys = (np.rint(np.linspace(0, side, _CELLS + 1)).astype(int).tolist() for side in (wide, high))
    mesh = [
        (
            (xs[i], ys[j], xs[i + 1], ys[j + 1]),
            (*knots[j, i], *knots[j + 1, i], *knots[j + 1, i + 1], *knots[j, i + 1]),
        )
        for j in range(_CELLS)
        for i in range(_CELLS)
    ]
    warped = glyph.transform((wide, high), Image.Transform.MESH, mesh, Image.Resampling.BICUBIC)
    value = np.asarray(warped, dtype=np.float32) / np.float32(255)
    # Where the ink begins is the thickness of the stroke; how fast it turns opaque is the sharpness of the pen.
    ink = np.clip(
        (value - np.float32(rng.uniform(0.5 - 0.12 * variety, 0.5 + 0.12 * variety))) * np.float32(rng.uniform(2.5, 6))
        + 0.5,
        0,
        1,
    )
    rows, columns = np.nonzero(ink.max(axis=1) > 0.2)[0], np.nonzero(ink.max(axis=0) > 0.2)[0]
    if not rows.size:
        return value
    return np.asarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], dtype=np.float32)
