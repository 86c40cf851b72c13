"""Copies of listed pictures, and what share of them perceptual hashes find."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from common import SEED
from PIL import Image

from safetyfilter.hashes.pdq import MIN_QUALITY, PdqHash, pdq_of
from safetyfilter.hashes.pdq_index import PdqIndex
from safetyfilter.standin.backgrounds import PHOTOGRAPHS, photograph
from safetyfilter.standin.render import render

BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "train": PHOTOGRAPHS["train"] + PHOTOGRAPHS["validation"],
    "test": PHOTOGRAPHS["test"],
}
"""Photographs that are listed, and those that are not."""
QUALITIES = (95, 90, 80, 70, 60, 50)
CROPS = (0.01, 0.02, 0.05, 0.10)
"""Of each side, half of it at either end."""
DIGITS = (0, 1, 2, 4, 5, 6, 8, 9)
"""In scenes; the two that stand for the signals are not needed here."""
_CROPPED = (0.5, 0.9)
"""Of a photograph's sides, so much is in a picture that is made of it."""


def pictures(kind: str, split: Literal["train", "test"], count: int) -> Iterator[Image.Image]:
    """Pictures without people: photographs and crops of them, or scenes of digits; splits share no background."""
    rng = np.random.default_rng(SEED + (split == "test"))
    names = BACKGROUNDS[split]
    for number in range(count):
        width, height = (int(side) for side in rng.integers(320, 800, 2))
        if kind == "scenes":
            digits = tuple(rng.choice(DIGITS, rng.integers(1, 4), replace=False).tolist())
            yield render(rng, split=split, digits=digits, size=(width, height)).image
            continue
        whole = photograph(names[number % len(names)])
        part = (1.0, 1.0) if number < len(names) else rng.uniform(*_CROPPED, 2)
        sides = [round(side * share) for side, share in zip(whole.size, part, strict=True)]
        left, top = (int(rng.integers(0, side - inner + 1)) for side, inner in zip(whole.size, sides, strict=True))
        crop = whole.crop((left, top, left + sides[0], top + sides[1]))
        yield crop.resize((sides[0] * 2, sides[1] * 2), Image.Resampling.LANCZOS)


def encoded(picture: Image.Image, quality: int = 90) -> bytes:
    """A JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def cropped(picture: Image.Image, share: float) -> Image.Image:
    """What is left when half of the share is cut off at each end of both sides."""
    left, top = (round(side * share / 2) for side in picture.size)
    return picture.crop((left, top, picture.width - left, picture.height - top))


def copies() -> dict[str, Callable[[Image.Image], bytes]]:
    """Ways to make a copy, by their names."""
    ways: dict[str, Callable[[Image.Image], bytes]] = {
        f"JPEG quality {quality}": lambda picture, quality=quality: encoded(picture, quality) for quality in QUALITIES
    }
    ways["resized to half"] = lambda picture: encoded(picture.reduce(2))
    for share in CROPS:
        ways[f"cropped by {share:.0%}"] = lambda picture, share=share: encoded(cropped(picture, share))
    ways["turned by 90 degrees"] = lambda picture: encoded(picture.transpose(Image.Transpose.ROTATE_90))
    ways["mirrored"] = lambda picture: encoded(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    return ways


def found_among(kind: str, count: int) -> dict[str, Any]:
    """The share of copies of `count` listed pictures that is found, as they are hashed alone and in all transforms.

    Pictures of too little quality are left out of the list, as makers of lists leave them out, and counted.
    """
    originals = [(picture, pdq_of(encoded(picture, 95))[0]) for picture in pictures(kind, "train", count)]
    listed = [(picture, hashed) for picture, hashed in originals if hashed.quality >= MIN_QUALITY]
    index = PdqIndex(np.stack([hashed.dihedral[0] for _, hashed in listed]))
    others = [pdq_of(encoded(picture))[0] for picture in pictures(kind, "test", count)]
    return {
        "pictures": count,
        "listed": len(listed),
        "unchecked": len(originals) - len(listed),
        "copies": {
            name: _shares(index, [pdq_of(copied(picture))[0] for picture, _ in listed])
            for name, copied in copies().items()
        },
        "unlisted": _shares(index, others),
    }


def _shares(index: PdqIndex, hashes: list[PdqHash]) -> Mapping[str, float]:
    checked = [one for one in hashes if one.quality >= MIN_QUALITY]
    upright = sum(int(index.found(one.dihedral[:1])[0] >= 0) for one in checked)
    turned = sum(bool((index.found(one.dihedral) >= 0).any()) for one in checked)
    return {
        "hashed": len(hashes),
        "unchecked": len(hashes) - len(checked),
        "found": turned,
        "found_upright": upright,
    }
