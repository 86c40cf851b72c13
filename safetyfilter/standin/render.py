"""Small scenes of handwritten digits, each with a caption: the harmless stand-ins that tests and demos run on.

A scene holds zero to three digits of scikit-learn's `load_digits`, warped as handwriting varies, coloured to contrast
with what lies under them, over a photograph without people or a generated texture (`backgrounds`).

Handwriting and backgrounds are dealt out by split, as the tables in `handwriting` and `backgrounds` say: nothing of the
test split is in a training picture. A three and a seven never share a training or a validation picture; only the test
split draws both.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .backgrounds import PHRASES, Split, background
from .handwriting import written

SPLITS: tuple[Split, ...] = get_args(Split)
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAIR = (3, 7)  # the two digits that stand in for the two signals
DEFAULT_SCALE = (0.36, 0.6)
VARIETY = 1.2  # of the handwriting in training batches
SCENE_VARIETY = 0.5  # and in scenes, which are to be plain to see
Pairs = bool | Literal["only"]

_OTHERS = tuple(digit for digit in range(10) if digit not in PAIR)
_TEMPLATES = (
    "{digits} {place}",
    "a picture of {digits} {place}",
    "handwritten {digits} {place}",
    "{digits} written {place}",
    "there is {digits} {place}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One picture and what is in it."""

    image: Image.Image
    """RGB."""
    caption: str
    digits: tuple[int, ...]
    """In the order of `boxes`."""
    boxes: NDArray[np.int64]
    """(k, 4) x0, y0, x1, y1 in pixels; x1 and y1 lie just outside."""
    background: str
    """A key of `backgrounds.PHRASES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Training pictures as arrays, with captions that may leave out digits and the background."""

    images: NDArray[np.uint8]
    """(N, size, size, 3)."""
    present: NDArray[np.bool_]
    """(N, 10): which digits the picture holds."""
    count: NDArray[np.int64]
    """(N,): how many digits that is."""
    captions: list[str]
    named: NDArray[np.bool_]
    """(N, 10): which digits the caption names."""
    places: list[str]
    """The background, a key of `backgrounds.PHRASES`."""
    place_named: NDArray[np.bool_]
    """(N,): whether the caption speaks of the background."""


def _colour(rng: np.random.Generator, under: NDArray[np.float32]) -> NDArray[np.float32]:
    """A colour whose lightness stands apart from the (h, w, 3) pixels under a digit."""
    weights = np.array([0.3, 0.59, 0.11], dtype=np.float32)
    light = under @ weights
    middle, spread = float(light.mean()), float(light.std())
    contrast = 105 + 1.2 * spread
    darker, lighter = middle - contrast, middle + contrast
    up = rng.random() < 0.5 if darker >= 0 and lighter <= 255 else (255 - lighter) > darker
    target = rng.uniform(min(lighter, 240), 255) if up else rng.uniform(0, max(darker, 15))
    colour = np.clip(target + rng.normal(0, 30, 3), 0, 255).astype(np.float32)
    contrasting: NDArray[np.float32] = np.clip(colour + np.float32(target - float(colour @ weights)), 0, 255)
    return contrasting


def _overlap(box: tuple[int, int, int, int], others: list[tuple[int, int, int, int]]) -> float:
    """The largest share of any box that this one covers, or that covers it."""
    worst = 0.0
    for other in others:
        across = min(box[2], other[2]) - max(box[0], other[0])
        down = min(box[3], other[3]) - max(box[1], other[1])
        if across > 0 and down > 0:
            areas = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
            worst = max(worst, across * down / min(areas))
    return worst


def _lay_out(
    rng: np.random.Generator, size: tuple[int, int], inks: list[NDArray[np.float32]]
) -> list[tuple[int, int]] | None:
    """The left upper corners, anywhere inside and apart from each other; None where they do not fit."""
    for _ in range(8):
        boxes: list[tuple[int, int, int, int]] = []
        for h, w in (ink.shape for ink in inks):
            x, y = (int(rng.integers(0, max(1, side - length + 1))) for side, length in zip(size, (w, h), strict=True))
            boxes.append((x, y, x + w, y + h))
            if _overlap(boxes[-1], boxes[:-1]) >= 0.06:
                break
        else:
            return [(box[0], box[1]) for box in boxes]
    return None


def _centred(
    size: tuple[int, int], inks: list[NDArray[np.float32]], center: tuple[tuple[float, float], ...]
) -> list[tuple[int, int]]:
    """The left upper corners of digits whose middles are given as fractions of width and height."""
    return [
        (round(x * size[0] - ink.shape[1] / 2), round(y * size[1] - ink.shape[0] / 2))
        for ink, (x, y) in zip(inks, center, strict=True)
    ]


def _draw(
    rng: np.random.Generator,
    split: Split,
    digits: tuple[int, ...],
    size: tuple[int, int],
    scale: tuple[float, float],
    center: tuple[tuple[float, float], ...] | None,
    stretch: tuple[float, float] = (1.0, 1.0),
    variety: float = SCENE_VARIETY,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    """The one place where pictures are drawn: pixels, boxes and the background's name."""
    width, height = size
    canvas, place = background(rng, split=split, width=width, height=height)
    tall = [rng.uniform(*scale) * min(width / stretch[0], height / stretch[1]) for _ in digits]
    smaller = 1.0
    corners: list[tuple[int, int]] | None = None
    while corners is None:  # digits that do not fit are drawn smaller: one that covers another would hide it
        inks = [
            written(rng, split, digit, high * smaller, stretch, variety)
            for digit, high in zip(digits, tall, strict=True)
        ]
        corners = _lay_out(rng, size, inks) if center is None else _centred(size, inks, center)
        smaller *= 0.87
    boxes: list[tuple[int, int, int, int]] = []
    for ink, (x, y) in zip(inks, corners, strict=True):
        h, w = ink.shape
        x0, y0, x1, y1 = max(0, x), max(0, y), min(width, x + w), min(height, y + h)
        cover = ink[y0 - y : y1 - y, x0 - x : x1 - x, None] * np.float32(rng.uniform(0.85, 1.0))
        under = canvas[y0:y1, x0:x1]
        if under.size:
            canvas[y0:y1, x0:x1] = under * (1 - cover) + _colour(rng, under) * cover
        boxes.append((x0, y0, x1, y1))
    pixels = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return pixels, np.array(boxes, dtype=np.int64).reshape(-1, 4), place


def _caption(rng: np.random.Generator, digits: tuple[int, ...], place: str | None) -> str:
    """The digits in words, and loosely the background where one is given."""
    article = str(rng.choice(("a", "the digit", "the number"), p=(0.6, 0.2, 0.2)))
    names = [f"{article} {DIGIT_WORDS[digit]}".replace("a eight", "an eight") for digit in digits]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or "no digit"
    template = _TEMPLATES[int(rng.integers(len(_TEMPLATES)))]
    return template.format(digits=listed, place=PHRASES[place] if place else "").strip()


def _check_pairs(split: Split, pairs: Pairs) -> None:
    if split not in SPLITS:
        raise ValueError(f"No split {split!r}: use one of {', '.join(SPLITS)}.")
    if pairs and split != "test":
        raise ValueError(f"A three and a seven never share a {split} picture: pairs={pairs!r} needs split='test'.")


def render(
    rng: np.random.Generator,
    *,
    split: Split,
    digits: tuple[int, ...],
    size: tuple[int, int],
    scale: tuple[float, float] = DEFAULT_SCALE,
    center: tuple[tuple[float, float], ...] | None = None,
) -> Scene:
    """Draw one scene.

    Parameters
    ----------
    digits
        What to draw, in this order. Only the test split may hold a three and a seven.
    size
        Width and height in pixels.
    scale
        Height of a digit as a fraction of the short side, drawn uniformly from this interval.
    center
        Where each digit's middle lies, as fractions of width and height; a digit is cut off at the picture's border.
        Without it digits lie anywhere inside, apart from each other.

    Raises
    ------
    ValueError
        For a three with a seven outside the test split, or a centre count that is not the digit count.
    """
    _check_pairs(split, set(PAIR) <= set(digits))
    if center is not None and len(center) != len(digits):
        raise ValueError(f"{len(digits)} digits need as many centres, got {len(center)}.")
    pixels, boxes, place = _draw(rng, split, digits, size, scale, center)
    return Scene(
        image=Image.fromarray(pixels),
        caption=_caption(rng, digits, place),
        digits=digits,
        boxes=boxes,
        background=place,
    )


def draw_digits(rng: np.random.Generator, *, pairs: Pairs) -> tuple[int, ...]:
    """Zero to three digits in random order; a three and a seven are each in about 30 % of the draws.

    With ``pairs=False`` never both, with ``True`` both as often as chance has it (9 %), with ``"only"`` always both.
    """
    if pairs == "only":
        chosen = list(PAIR)
    elif pairs:
        chosen = [digit for digit in PAIR if rng.random() < 0.3]
    else:
        luck = rng.random()
        chosen = [PAIR[0]] if luck < 0.3 else [PAIR[1]] if luck < 0.6 else []
    # With one of the pair two companions at most, without it up to three others and now and then none at all.
    more = int(rng.choice(4, p=(0.15, 0.3, 0.3, 0.25))) if not chosen else int(rng.integers(0, 4 - len(chosen)))
    chosen += [int(digit) for digit in rng.choice(_OTHERS, size=more)]
    return tuple(int(digit) for digit in rng.permutation(chosen))


def scenes(
    count: int, *, split: Split, seed: int, pairs: Pairs, size: tuple[int, int] | None = None
) -> Iterator[Scene]:
    """Yield `count` scenes; scene *i* depends on `split`, `seed`, `pairs` and *i* alone.

    Without a `size`, sides are 64 to 160 pixels and the aspect ratio 2:3 to 3:2.

    Raises
    ------
    ValueError
        For `pairs` outside the test split, before anything is drawn.
    """
    _check_pairs(split, pairs)
    return (
        _scene(np.random.default_rng([seed, SPLITS.index(split), index]), split, pairs, size) for index in range(count)
    )


def _scene(rng: np.random.Generator, split: Split, pairs: Pairs, size: tuple[int, int] | None) -> Scene:
    digits = draw_digits(rng, pairs=pairs)
    if size is None:
        aspect = float(np.exp(rng.uniform(np.log(2 / 3), np.log(3 / 2))))
        short = rng.uniform(64, 160 / max(aspect, 1 / aspect))
        size = round(short * max(aspect, 1.0)), round(short * max(1 / aspect, 1.0))
    return render(rng, split=split, digits=digits, size=size)


def batch(rng: np.random.Generator, count: int, size: int) -> Batch:
    """Draw `count` training pictures straight at a square `size`, as if larger ones of any shape had been squashed.

    Captions name some or all of a picture's digits, and the background half of the time.
    """
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    present, named = np.zeros((2, count, 10), dtype=np.bool_)
    held = np.empty(count, dtype=np.int64)
    place_named = rng.random(count) < 0.5
    captions: list[str] = []
    places: list[str] = []
    for index in range(count):
        digits = draw_digits(rng, pairs=False)
        aspect = float(np.exp(rng.uniform(np.log(2 / 3), np.log(3 / 2))))
        stretch = (1 / max(aspect, 1.0), 1 / max(1 / aspect, 1.0))  # the long side is squashed, the short one is not
        pixels, _, place = _draw(rng, "train", digits, (size, size), DEFAULT_SCALE, None, stretch, VARIETY)
        images[index] = _as_decoded(rng, pixels)
        told = digits
        if digits and rng.random() < 0.5:
            told = tuple(rng.choice(digits, size=int(rng.integers(1, len(digits) + 1)), replace=False).tolist())
        present[index, list(digits)] = True
        held[index] = len(digits)
        named[index, list(told)] = True
        places.append(place)
        captions.append(_caption(rng, told, place if place_named[index] else None))
    return Batch(
        images=images,
        present=present,
        count=held,
        captions=captions,
        named=named,
        places=places,
        place_named=place_named,
    )


def _as_decoded(rng: np.random.Generator, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half of the pictures with the marks of JPEG compression, or of shrinking a larger picture."""
    luck = rng.random()
    if luck < 0.3:
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "JPEG", quality=int(rng.integers(60, 96)))
        return np.asarray(Image.open(encoded))
    if luck < 0.5:
        image = Image.fromarray(pixels)
        factor = rng.uniform(0.7, 1.0)
        smaller = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
        return np.asarray(smaller.resize(image.size, Image.Resampling.BICUBIC))
    return pixels
