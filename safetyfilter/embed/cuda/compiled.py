"""Image towers compiled for fixed numbers of images, and checked against what they are compiled from."""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch

from safetyfilter.embed.clip.towers import first_line
from safetyfilter.embed.cuda.attention import with_linear_attention
from safetyfilter.embed.cuda.fused import with_fused_layers
from safetyfilter.embed.cuda.graphs import Graph
from safetyfilter.embed.forward import out_of_memory
from safetyfilter.embed.image_tower import LEAST_COSINE, Run, TorchTower, least_cosine

Compiler = Callable[[torch.nn.Module], Run]

COMPILER: Compiler = partial(torch.compile, dynamic=False)
_SHAPES = 4
"""Batches come in one size, and in a smaller one wherever memory was short."""

_log = logging.getLogger(__name__)


class CompiledTower:
    """An image tower compiled by torch for each number of images that comes, on CUDA as one graph of kernels.

    The first batch of a size takes as long as compiling does. Its embeddings are compared with those of the tower
    itself; where they differ, and where compiling fails, there is one warning, and the tower runs as it is from then
    on. May be called from several threads at once.

    Parameters
    ----------
    tower : TorchTower
        The tower; some of its layers are changed to such that the compiler can see into.
    compiler : callable
        The tower -> the same, faster; `torch.compile` with fixed shapes by default.

    Attributes
    ----------
    as_it_is : bool
        Compiling failed, and the tower runs as it is.
    """

    full_batches: ClassVar[bool] = True

    def __init__(self, tower: TorchTower, compiler: Compiler = COMPILER) -> None:
        with_fused_layers(with_linear_attention(tower.visual))
        self.tower = tower
        self._compiler = compiler
        self._runs: dict[tuple[int, ...], Run] = {}
        self._lock = threading.Lock()
        self._too_many = math.inf
        self.as_it_is = False

    @property
    def visual(self) -> torch.nn.Module:
        """As `TorchTower.visual`."""
        return self.tower.visual

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return embeddings, as `ImageTower` says."""
        run = self._runs.get(tuple(pixels.shape))
        if run is None and not self.as_it_is:
            with self._lock:
                run = self._runs.get(tuple(pixels.shape))
                if run is None:  # not compiled by another thread meanwhile
                    run = self._compiled(pixels)
        return self.tower(pixels) if run is None else run(pixels)

    def run_for(self, size: int, *, full: bool) -> Run:
        """Return what embeds batches of `size` images compiled, and smaller ones by the tower as it is.

        It is not worth compiling for, or filling up, a few images.
        """
        if full:
            return self

        @torch.inference_mode()
        def embed(pixels: torch.Tensor) -> torch.Tensor:
            return self(pixels) if len(pixels) >= size else self.tower(pixels)

        return embed

    def on(self, device: torch.device) -> CompiledTower:
        """Return the tower on another device, to be compiled anew there; errors as of `TorchTower.on`."""
        return CompiledTower(self.tower.on(device), self._compiler)

    def __reduce__(self) -> tuple[Any, ...]:  # compiled anew where it arrives
        return (CompiledTower, (self.tower, self._compiler))

    def _compiled(self, pixels: torch.Tensor) -> Run | None:
        """Return a run for images like these, and keep it; None where there is none, now and later."""
        if len(pixels) >= self._too_many:  # or each stream would begin by compiling what will not fit
            raise torch.OutOfMemoryError(f"not enough memory: {len(pixels)} images at a time did not fit before")
        _log.info("compiling the image tower for %d images at a time, which takes up to a minute", len(pixels))
        try:
            run = self._checked(pixels)
        except Exception as error:  # compilers fail in kinds of their own
            self._runs.clear()
            if out_of_memory(error):  # then batches become smaller, and those are compiled
                self._too_many = len(pixels)
                raise
            self.as_it_is = True
            _log.warning("the image tower runs as it is, not compiled, which may be slower: %s", first_line(error))
            return None
        self._runs[tuple(pixels.shape)] = run
        return run

    def _checked(self, pixels: torch.Tensor) -> Run:
        if len(self._runs) == _SHAPES:
            raise _NotCompiledError(f"batches come in more than {_SHAPES} sizes")
        run: Run = self._compiler(self.tower)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # who asks for float32 wants all of it
            if pixels.device.type == "cuda":
                run = Graph(run, pixels)
            for some in (pixels, pixels.flip(0)):  # a run that only ever sees its first input would be found out
                cosine = least_cosine(run(some), self.tower(some))
                if not cosine >= LEAST_COSINE:
                    raise _NotCompiledError(f"its embeddings would be others, of cosine {cosine:.3f}")
        return run


class _NotCompiledError(Exception):
    """A reason of our own."""
