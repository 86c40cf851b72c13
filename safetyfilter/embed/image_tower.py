"""Image towers on a device, prepared pixels in and embeddings out; and the one that torch runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, TypeAlias

import torch
from torch.nn import functional as F

from safetyfilter.embed.class_token import for_class_token
from safetyfilter.embed.clip.model import to_dtype
from safetyfilter.embed.cuda.float8 import to_float8
from safetyfilter.embed.devices import FLOAT8, require_float8

Run: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""(n, H, W, 3) uint8 -> (n, D) float32 of unit L2 norm, both on a device."""

LEAST_COSINE = 0.99
"""Between the embeddings of a tower and of what was made of it: rounding in half precision stays above it."""


class ImageTower(Protocol):
    """An image tower on a device."""

    full_batches: ClassVar[bool]
    """It is for batches of one size, to which fewer images are filled up."""

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (n, D) float32 of unit L2 norm for (n, H, W, 3) uint8, both on the device; from any thread."""

    def run_for(self, size: int, *, full: bool) -> Run:
        """Return what is to embed a stream: `size` images at a time, and where not all are full, fewer at its end."""

    def on(self, device: torch.device) -> ImageTower:
        """Return the tower on another device, which may be this one, moved; `DeviceError` where it can't run there."""


class TorchTower(torch.nn.Module):
    """An image tower that torch runs.

    Parameters
    ----------
    visual : Module
        Normalised pixels -> embeddings of any norm, in float32; it is taken over.
    mean, std : sequence of float
        Per channel, on pixel values in [0, 1].
    dtype : torch.dtype
        Of its weights; in float8 those of linear layers alone, and the others are in bfloat16.
    device : torch.device
        Where it is to be.

    Raises
    ------
    MissingExtraError, WeightsError
        As of `to_float8`.

    Examples
    --------
    >>> tower = TorchTower(torch.nn.Flatten(), (0.5,) * 3, (0.5,) * 3, dtype=torch.float32, device=torch.device("cpu"))
    >>> round(tower(torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)).norm().item(), 6)
    1.0
    """

    full_batches: ClassVar[bool] = False

    def __init__(
        self,
        visual: torch.nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.in_float8 = dtype == FLOAT8
        self.dtype = torch.bfloat16 if self.in_float8 else dtype  # of what goes in
        self.visual = for_class_token(to_dtype(visual, self.dtype))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.eval()._place(device)
        if self.in_float8:
            to_float8(self.visual)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return embeddings, as `ImageTower` says."""
        # The same operations in the same order as open_clip's transform, so that decode="exact" is exact.
        planes = pixels.permute(0, 3, 1, 2)
        if pixels.device.type == "cpu":  # measured: the patch convolution takes a third less on contiguous planes
            planes = planes.contiguous()
        planes = planes.to(torch.float32).div_(255)
        features = self.visual(planes.sub_(self.mean).div_(self.std).to(self.dtype))
        if isinstance(features, tuple):  # CoCa's tower also returns tokens
            features = features[0]
        return F.normalize(features.float(), dim=-1)

    def run_for(self, size: int, *, full: bool) -> Run:
        """Return the tower itself."""
        return self

    def on(self, device: torch.device) -> TorchTower:
        """Return the tower, moved to a device; `DeviceError` where it is in float8 and the device has none."""
        if self.in_float8:
            require_float8(device)
        return self._place(device)

    def _place(self, device: torch.device) -> TorchTower:
        self.to(device)
        if device.type == "cuda":  # the order in which pixels come: or convolutions reorder their weights each time
            for layer in self.visual.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.to(memory_format=torch.channels_last)
        return self


def without_image_tower(model: torch.nn.Module) -> torch.nn.Module:
    """Return a model that shares everything with another but its image tower, which it lacks.

    >>> model = torch.nn.Module()
    >>> model.visual, model.text = torch.nn.Flatten(), torch.nn.Linear(1, 1)
    >>> other = without_image_tower(model)
    >>> other.visual is None, other.text is model.text, model.visual is None
    (True, True, False)
    """
    other = copy.copy(model)
    other._modules = {**model._modules, "visual": None}
    return other


def least_cosine(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the least cosine between rows of unit norm; NaN where only what was found is not finite.

    >>> least_cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]))
    0.6000000238418579
    >>> least_cosine(torch.full((1, 2), torch.nan), torch.tensor([[0.6, 0.8]]))
    nan
    >>> least_cosine(torch.ones(1, 2), torch.full((1, 2), torch.nan))
    1.0
    """
    cosines = (found * expected).sum(dim=1)[expected.isfinite().all(dim=1)]
    return float(cosines.min()) if len(cosines) else 1.0  # its minimum is NaN where one of them is
