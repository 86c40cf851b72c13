"""Backgrounds of the stand-in digits: photographs without people, and generated textures.

The photographs are the ones scikit-image and scikit-learn install as plain files; they are opened by path and nothing
is downloaded. Photographs and texture families are dealt out by split, and no split shares one with another:

============  ==========================================  ==================================================
split         photographs                                 texture families
============  ==========================================  ==================================================
train         chelsea, coffee, brick, hubble_deep_field,  plain, gradient, stripes, checks, clouds, speckle,
              motorcycle_left, china                      dots, grid
validation    moon, grass                                 rings, bands
test          flower, rocket, gravel                      waves, patches, zigzag
============  ==========================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "validation", "test"]
Pixels = NDArray[np.float32]

PHOTOGRAPHS: dict[Split, tuple[str, ...]] = {
    "train": ("chelsea", "coffee", "brick", "hubble_deep_field", "motorcycle_left", "china"),
    "validation": ("moon", "grass"),
    "test": ("flower", "rocket", "gravel"),
}
TEXTURES: dict[Split, tuple[str, ...]] = {
    "train": ("plain", "gradient", "stripes", "checks", "clouds", "speckle", "dots", "grid"),
    "validation": ("rings", "bands"),
    "test": ("waves", "patches", "zigzag"),
}
#: How a caption speaks of each background.
PHRASES: dict[str, str] = {
    "chelsea": "over a photograph of a cat",
    "coffee": "over a photograph of a cup of coffee",
    "brick": "over a photograph of a brick wall",
    "hubble_deep_field": "over a photograph of galaxies",
    "motorcycle_left": "over a photograph of a motorcycle",
    "china": "over a photograph of a temple",
    "moon": "over a photograph of the moon",
    "grass": "over a photograph of grass",
    "flower": "over a photograph of a flower",
    "rocket": "over a photograph of a rocket",
    "gravel": "over a photograph of gravel",
    "plain": "on a plain background",
    "gradient": "on a shaded background",
    "stripes": "on a striped background",
    "checks": "on a checked background",
    "clouds": "on a cloudy background",
    "speckle": "on a speckled background",
    "dots": "on a dotted background",
    "grid": "on a background of lines",
    "rings": "on a background of rings",
    "bands": "on a background of bands",
    "waves": "on a wavy background",
    "patches": "on a patchy background",
    "zigzag": "on a zigzag background",
}
_FILES: dict[str, tuple[str, str]] = {
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "brick": ("skimage", "data/brick.png"),
    "hubble_deep_field": ("skimage", "data/hubble_deep_field.jpg"),
    "motorcycle_left": ("skimage", "data/motorcycle_left.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "moon": ("skimage", "data/moon.png"),
    "grass": ("skimage", "data/grass.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "gravel": ("skimage", "data/gravel.png"),
}
_SHORT_SIDE = 320  # photographs are kept this small: the scenes are smaller still


def installed_file(package: str, inside: str) -> Path:
    """A file or folder that was installed with a package, which is not imported for it.

    Raises
    ------
    ModuleNotFoundError
        The package is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        name = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
        raise ModuleNotFoundError(f"the stand-ins are made of files of {name}: pip install {name}")
    return Path(spec.origin).parent / inside


@lru_cache(maxsize=len(_FILES))
def photograph(name: str) -> Image.Image:
    """One installed photograph as RGB, its short side at most 320 pixels."""
    with Image.open(installed_file(*_FILES[name])) as file:
        image = file.convert("RGB")
    factor = min(1.0, _SHORT_SIDE / min(image.size))
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


def background(rng: np.random.Generator, *, split: Split, width: int, height: int) -> tuple[Pixels, str]:
    """A background and its name.

    Returns
    -------
    (height, width, 3) float32 in [0, 255], and a key of `PHRASES`. Half of the backgrounds are photographs.
    """
    if rng.random() < 0.5:
        name = str(rng.choice(PHOTOGRAPHS[split]))
        pixels = _photograph_crop(rng, photograph(name), width, height)
        contrast = rng.uniform(0.4, 1.0)
    else:
        name = str(rng.choice(TEXTURES[split]))
        pixels = _texture(rng, name, width, height)
        contrast = rng.uniform(0.5, 1.0)
    # Muted a little, as a page behind writing is: a digit must be able to stand out from all of it.
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    shifted = mean + (pixels - mean) * np.float32(contrast) + np.float32(rng.uniform(-25, 25))
    return np.clip(shifted, 0, 255), name


def _photograph_crop(rng: np.random.Generator, photo: Image.Image, width: int, height: int) -> Pixels:
    largest = min(photo.width / width, photo.height / height)
    zoom = largest * rng.uniform(0.35, 1.0)
    x = rng.uniform(0, photo.width - zoom * width)
    y = rng.uniform(0, photo.height - zoom * height)
    box = (x, y, min(x + zoom * width, photo.width), min(y + zoom * height, photo.height))
    pixels = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR, box=box), dtype=np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if rng.random() < 0.3:  # other colours of the same photograph
        pixels = pixels[:, :, rng.permutation(3)]
    return pixels


def _texture(rng: np.random.Generator, name: str, width: int, height: int) -> Pixels:
    if name == "clouds":
        return _enlarged(rng, width, height, cells=int(rng.integers(3, 10)), resample=Image.Resampling.BICUBIC)
    if name == "patches":
        return _enlarged(rng, width, height, cells=int(rng.integers(4, 9)), resample=Image.Resampling.NEAREST)
    first = rng.uniform(0, 255, 3).astype(np.float32)
    second = np.clip(first + rng.uniform(-110, 110, 3), 0, 255).astype(np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(min(width, height))
    blend = np.asarray(_PATTERNS[name](rng, x, y), dtype=np.float32)[:, :, None]
    return first * (1 - blend) + second * blend


def _enlarged(rng: np.random.Generator, width: int, height: int, *, cells: int, resample: Image.Resampling) -> Pixels:
    base = rng.uniform(0, 255, 3)
    small = np.clip(base + rng.uniform(-90, 90, (cells, cells, 3)), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), resample), dtype=np.float32)


def _ramp(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    """Position along a random direction, in units of the short side."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y


def _wave(phase: Pixels, sharpness: float) -> Pixels:
    """A sine between 0 and 1, from soft (0.5) to nearly square (8)."""
    blend: Pixels = np.clip(np.sin(phase) * np.float32(sharpness) + np.float32(0.5), 0, 1)
    return blend


def _gradient(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    along = _ramp(rng, x, y)
    blend: Pixels = (along - along.min()) / max(float(np.ptp(along)), 1e-6)
    return blend


def _stripes(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    return _wave(_ramp(rng, x, y) * rng.uniform(15, 60), rng.uniform(0.5, 8))


def _checks(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    pitch = rng.uniform(3, 9)
    blend: Pixels = ((np.floor((x + rng.random()) * pitch) + np.floor((y + rng.random()) * pitch)) % 2).astype(
        np.float32
    )
    return blend


def _dots(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    pitch = rng.uniform(15, 45)
    return _wave(np.arcsin(np.sin(x * pitch) * np.sin(y * pitch + rng.uniform(0, 6))), rng.uniform(0.5, 4))


def _grid(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    pitch = rng.uniform(4, 10)
    lines = np.minimum((x + rng.random()) * pitch % 1, (y + rng.random()) * pitch % 1)
    blend: Pixels = (lines < rng.uniform(0.08, 0.2)).astype(np.float32)
    return blend


def _rings(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    return _wave(np.hypot(x - rng.random(), y - rng.random()) * rng.uniform(15, 45), rng.uniform(0.5, 8))


def _bands(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    levels = rng.integers(3, 7)
    return np.asarray(np.floor(_gradient(rng, x, y) * levels) / levels, dtype=np.float32)


def _waves(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    bent = y * rng.uniform(20, 50) + np.sin(x * rng.uniform(6, 15)) * rng.uniform(1, 3)
    return _wave(bent, rng.uniform(0.5, 8))


def _zigzag(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    pitch = rng.uniform(3, 7)
    return _wave((y + np.abs(x * pitch % 1 - 0.5) / pitch) * rng.uniform(20, 50), 8)


_PATTERNS: dict[str, Callable[[np.random.Generator, Pixels, Pixels], Pixels]] = {
    "plain": lambda rng, x, y: np.zeros_like(x),
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "speckle": lambda rng, x, y: rng.random(x.shape, dtype=np.float32),
    "dots": _dots,
    "grid": _grid,
    "rings": _rings,
    "bands": _bands,
    "waves": _waves,
    "zigzag": _zigzag,
}
