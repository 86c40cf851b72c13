"""Image towers of torch that OpenVINO runs in scans, where it is the faster of the two."""

from __future__ import annotations

import copy
import logging
import os
import threading
import warnings
from typing import Any, ClassVar

import torch

from safetyfilter.embed.clip.towers import first_line
from safetyfilter.embed.devices import cpu_has_amx
from safetyfilter.embed.image_tower import LEAST_COSINE, Run, TorchTower, least_cosine
from safetyfilter.embed.openvino.converting import converted
from safetyfilter.embed.openvino.model import OpenvinoModel
from safetyfilter.embed.openvino.modules import in_silence, is_installed
from safetyfilter.embed.openvino.signal_stack import kept_signal_stack

_WORTH_IT = 2e9
"""Operations for an image from which a tower is converted: with fewer, the model is not what a scan waits for."""
_COMPARED = 4
"""Images on which the converted tower is compared with torch."""
_HINTS = {torch.bfloat16: "bf16", torch.float32: "f32"}
_log = logging.getLogger(__name__)


def is_faster_by_openvino(flops: float) -> bool:
    """Return True where OpenVINO is installed and embeds in bfloat16 faster than torch, by more than converting takes.

    Measured on a processor with AMX: 1.23 times as fast with ViT-B-32, which is converted while some hundreds of images
    are embedded.

    Parameters
    ----------
    flops : float
        The image tower's floating-point operations for one image.

    Examples
    --------
    >>> is_faster_by_openvino(5e7)  # of the stand-in
    False
    """
    return flops >= _WORTH_IT and cpu_has_amx() and is_installed()


class ConvertedTower:
    """An image tower on the processor: a scan's batches are embedded by OpenVINO, and a few images by torch.

    It is converted, which takes some seconds, when the first stream of full batches begins. Its embeddings are compared
    with those of torch; where they differ, and where converting fails, there is one warning, and torch goes on, as it
    does in a process that was forked from the one that converted it.

    Parameters
    ----------
    tower : TorchTower
        In float32 or bfloat16 on the CPU.
    image_size : tuple of int
        Height and width of its images.
    """

    full_batches: ClassVar[bool] = False

    def __init__(self, tower: TorchTower, image_size: tuple[int, int]) -> None:
        self.tower = tower
        self._image_size = image_size
        self._converted: Run | None = None
        self._process = 0
        self._lock = threading.Lock()

    @property
    def visual(self) -> torch.nn.Module:
        """As `TorchTower.visual`."""
        return self.tower.visual

    @property
    def converts(self) -> bool:
        """False where the tower could not be converted, and torch embeds all there is."""
        return self._converted is not self.tower

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return embeddings by torch, as `ImageTower` says."""
        return self.tower(pixels)  # type: ignore[no-any-return]

    def run_for(self, size: int, *, full: bool) -> Run:
        """Return the converted tower where all batches are full, else that of torch."""
        if not full:
            return self.tower
        with self._lock:
            if self._converted is None:
                self._converted, self._process = self._checked(), os.getpid()
        return self._converted if self._process == os.getpid() else self.tower

    def on(self, device: torch.device) -> ConvertedTower | TorchTower:
        """Return the tower on another device, where torch embeds all there is if it is not the processor."""
        moved = self.tower.on(device)
        return ConvertedTower(moved, self._image_size) if device.type == "cpu" else moved

    def __reduce__(self) -> tuple[Any, ...]:  # converted anew where it arrives
        return (ConvertedTower, (self.tower, self._image_size))

    def _checked(self) -> Run:
        _log.info("converting the image tower for OpenVINO, which takes some seconds")
        try:
            run = self._made()
            pixels = torch.randint(256, (_COMPARED, *self._image_size, 3), generator=torch.Generator().manual_seed(0))
            pixels = pixels.to(torch.uint8)
            with torch.inference_mode():
                cosine = least_cosine(run(pixels), self.tower(pixels))
        except Exception as error:  # noqa: BLE001 - converters fail in kinds of their own
            reason = first_line(error)
        else:
            if cosine >= LEAST_COSINE:
                return run
            reason = f"its embeddings would be others, of cosine {cosine:.3f}"
        _log.warning("torch runs the image tower, and not OpenVINO, which may be slower: %s", reason)
        return self.tower

    def _made(self) -> OpenvinoModel:
        full = copy.deepcopy(self.tower).float()  # the same weights: what is rounded once is rounded to the same again
        full.dtype = torch.float32
        with kept_signal_stack(), in_silence(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = converted(full, self._image_size)
        return OpenvinoModel(model, precision=_HINTS[self.tower.dtype])
