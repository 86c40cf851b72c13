"""An RGB picture -> the model's input pixels: the views of it by open_clip's geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from safetyfilter.embed.pictures.boxes import view_boxes
from safetyfilter.embed.pictures.resizing import resize
from safetyfilter.native.resizing import Wanted

Views: TypeAlias = Literal["center", "whole", "multi", "adaptive"]
Pixels: TypeAlias = npt.NDArray[np.uint8]

VIEW_COUNTS: dict[str, int] = {"center": 1, "whole": 1, "multi": 5, "adaptive": 5}
RESIZE_MODES = ("shortest", "longest", "squash")
INTERPOLATIONS = ("bicubic", "bilinear")
HEADROOM = 3.0
"""The multiple of the needed size that the fast path keeps when it first scales a picture down by a whole number.

Measured on photographs of 256 to 2048 pixels against the exact path, the least cosine of the stand-in encoder's
embeddings in any view: 0.994 at 2, 0.9985 at 3, the same at 4. At a model's usual 224 pixels, 3 costs no more than 2
for pictures of 384, 512, 1024 or 2048 pixels.
"""
_SIZES_KEPT = 1024
"""Sizes of pictures whose parts are remembered: those of a data set are often few."""


@lru_cache(maxsize=64)
def open_clip_geometry(
    image_size: tuple[int, int], interpolation: str, resize_mode: str, fill_color: int
) -> Callable[[Image.Image], Image.Image]:
    """open_clip's inference transform without its tensor steps: an RGB picture in, the model's input as a picture out.

    Taken from open_clip rather than rewritten, so that what the model was trained to see stays open_clip's business.
    """
    from safetyfilter.embed.libraries import open_clip, torchvision

    config = open_clip.transform.PreprocessCfg(
        size=image_size, interpolation=interpolation, resize_mode=resize_mode, fill_color=fill_color
    )
    steps = open_clip.transform.image_transform_v2(config, is_train=False).transforms
    of_tensors = (torchvision.transforms.ToTensor, torchvision.transforms.Normalize)
    geometry: Callable[[Image.Image], Image.Image] = torchvision.transforms.Compose(
        [step for step in steps if not isinstance(step, of_tensors)]
    )
    return geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """From an upright RGB picture to the model's input pixels, by Pillow's arithmetic or by torch's.

    Attributes
    ----------
    image_size : tuple of int
        Height and width of the model's input.
    interpolation, resize_mode, fill_color
        As in open_clip's preprocessing configuration.
    views : {"center", "whole", "multi", "adaptive"}
        The model's own crop; the whole picture squashed; or the whole and the four crops of `view_boxes`, squashed,
        which are the same for ``multi`` and ``adaptive``.

    Examples
    --------
    >>> geometry = Geometry(image_size=(8, 8), views="multi")
    >>> geometry.exact(Image.new("RGB", (40, 30))).shape
    (5, 8, 8, 3)
    """

    image_size: tuple[int, int]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0
    views: Views = "center"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("views", tuple(VIEW_COUNTS)),
            ("resize_mode", RESIZE_MODES),
            ("interpolation", INTERPOLATIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ValueError(f"image_size is height and width in pixels, not {self.image_size!r}")

    @property
    def squashes(self) -> bool:
        """True where every view is resized to the input's shape directly."""
        return self.views != "center" or self.resize_mode == "squash"

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height to which open_clip resizes a picture of this width and height, before it crops or pads.

        >>> Geometry(image_size=(224, 224)).resized((1024, 500))
        (458, 224)
        """
        width, height = size
        input_height, input_width = self.image_size
        if self.squashes:
            return (input_width, input_height)
        if self.resize_mode == "shortest" and input_height == input_width:  # torchvision's Resize rounds down
            short, long = sorted(size)
            long = input_width * long // short
            return (input_width, long) if width <= height else (long, input_height)
        pick = max if self.resize_mode == "longest" else min
        ratio = pick(height / input_height, width / input_width)
        return (round(width / ratio), round(height / ratio))

    def needed(self, size: tuple[int, int]) -> tuple[float, float]:
        """Width and height below which a picture of this size would have to be enlarged for one of the views.

        >>> Geometry(image_size=(224, 224), views="multi").needed((1024, 512))
        (448.0, 224.0)
        """
        if VIEW_COUNTS[self.views] == 1:
            return self.resized(size)
        (width, height), (input_height, input_width) = size, self.image_size
        _, (left, top, right, low), *_ = view_boxes(width, height)  # the four crops are of one size
        return (input_width * width / (right - left), input_height * height / (low - top))

    def exact(self, picture: Image.Image) -> Pixels:
        """(V, H, W, 3) uint8: for ``views="center"`` what open_clip's own transform makes, bit for bit."""
        if self.views == "center":
            to_input = open_clip_geometry(self.image_size, self.interpolation, self.resize_mode, self.fill_color)
            return np.array(to_input(picture))[None]
        to_input = open_clip_geometry(self.image_size, self.interpolation, "squash", 0)
        boxes = view_boxes(*picture.size)[: VIEW_COUNTS[self.views]]
        return np.stack([np.asarray(to_input(picture.crop(box))) for box in boxes])

    def fast(self, picture: Image.Image, size: tuple[int, int] | None = None) -> Pixels:
        """(V, H, W, 3) uint8: as `exact`, but resized by torch, whose vectorised uint8 kernel is five times as fast.

        Both filter with the same antialiased kernel in fixed point and differ by rounding, at most two levels, unless
        the picture is so large that it is first scaled down by a whole number.

        Parameters
        ----------
        picture : Image
            Mode RGB, perhaps scaled down.
        size : tuple of int, optional
            Width and height before it was scaled down: views are placed by these, since the scaled size is rounded
            and would shift the crop by up to a pixel.
        """
        full = size or picture.size
        if (factor := _layout(self, picture.size, full).spare) > 1:
            # a box filter, like libjpeg's scaling, and quicker than copying all of the pixels out of Pillow
            picture = picture.reduce(factor)
        return self._resized(np.array(picture), _layout(self, picture.size, full))

    def of_array(self, pixels: Pixels, size: tuple[int, int]) -> Pixels:
        """(V, H, W, 3) uint8: as `fast`, of the (H, W, 3) uint8 of a picture that once had this width and height.

        >>> Geometry(image_size=(8, 8)).of_array(np.zeros((15, 20, 3), np.uint8), (40, 30)).shape
        (1, 8, 8, 3)
        """
        layout = _layout(self, pixels.shape[1::-1], size)
        return self.fast(Image.fromarray(pixels), size) if layout.spare > 1 else self._resized(pixels, layout)

    def _resized(self, stored: Pixels, layout: _Layout) -> Pixels:
        seen: Pixels = np.empty((VIEW_COUNTS[self.views], *self.image_size, 3), np.uint8)
        for view, part in zip(seen, layout.parts, strict=True):
            if part.filled:
                view[:] = self.fill_color
            resize(stored[part.source], part.wanted, view[part.target])
        return seen


_Slices: TypeAlias = tuple[slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A view: the rows and columns of a picture that go into it, and those of the input that they become."""

    source: _Slices
    wanted: Wanted
    target: _Slices
    filled: bool = False
    """True where not all of the input is covered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """The views of a picture of one size, and the whole number by which it can be scaled down and keep `HEADROOM`."""

    parts: tuple[_Part, ...]
    spare: int


@lru_cache(maxsize=_SIZES_KEPT)
def _layout(geometry: Geometry, have: tuple[int, int], full: tuple[int, int]) -> _Layout:
    """The views of a picture that has this width and height, and once had another."""
    spare = min(side / need for side, need in zip(have, geometry.needed(full), strict=True)) / HEADROOM
    return _Layout(parts=_parts(geometry, have, full), spare=int(spare))


def _parts(geometry: Geometry, have: tuple[int, int], full: tuple[int, int]) -> tuple[_Part, ...]:
    if not geometry.squashes:
        return (_crop_or_pad(geometry, have, geometry.resized(full)),)
    height, width = geometry.image_size
    x, y = have[0] / full[0], have[1] / full[1]
    wanted = Wanted(size=(width, height), box=(0, 0, width, height), cubic=geometry.interpolation == "bicubic")
    return tuple(
        _Part(
            source=(slice(floor(top * y), ceil(low * y)), slice(floor(left * x), ceil(right * x))),
            wanted=wanted,
            target=(slice(height), slice(width)),
        )
        for left, top, right, low in view_boxes(*full)[: VIEW_COUNTS[geometry.views]]
    )


def _crop_or_pad(geometry: Geometry, have: tuple[int, int], size: tuple[int, int]) -> _Part:
    """The middle of what a picture becomes at this width and height, or what is put into the middle of the input."""
    starts, gaps, lengths = [], [], []
    for side, want in zip(size, geometry.image_size[::-1], strict=True):
        starts.append(round((side - want) / 2) if side >= want else 0)
        gaps.append((want - side) // 2 if want > side else 0)
        lengths.append(min(side, want))
    (left, top), (column, row), (width, height) = starts, gaps, lengths
    # open_clip's Resize for inputs that are not square takes no notice of the interpolation
    ignored = geometry.resize_mode == "shortest" and geometry.image_size[0] != geometry.image_size[1]
    cubic = ignored or geometry.interpolation == "bicubic"
    return _Part(
        source=(slice(have[1]), slice(have[0])),
        wanted=Wanted(size=size, box=(left, top, left + width, top + height), cubic=cubic),
        target=(slice(row, row + height), slice(column, column + width)),
        filled=(height, width) != geometry.image_size,
    )
