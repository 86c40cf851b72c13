"""The model's forward pass in pieces: as many images at a time as fit into memory, and on a CPU in several threads."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress

import torch

from safetyfilter.embed.threads import cores, torch_threads
from safetyfilter.errors import DeviceError

_log = logging.getLogger(__name__)
_MIN_IMAGES_A_THREAD = 4  # so many images of a batch are worth a thread of their own on the CPU
_NO_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "could not create a primitive",
    "failed to allocate",
    "could not allocate memory",
)
"""Words of torch and OpenVINO, in a RuntimeError, where the system has no more memory."""


class Forward:
    """Embeds pixels that are on the device.

    Parameters
    ----------
    model : callable
        (n, H, W, 3) uint8 on the device -> (n, D) float32 on the device.
    device : torch.device
        Where the model is.
    micro_batch : int
        Images a forward pass; halved for good whenever memory does not suffice.
    full : bool
        Each pass has the same number of images, filled up with black ones where there are fewer: libraries choose how
        they multiply matrices by the number of rows, and so the last bits of a row depend on it.

    Examples
    --------
    >>> forward = Forward(lambda pixels: pixels.float().mean((1, 2)), torch.device("cpu"), 4)
    >>> forward(torch.ones(5, 2, 2, 3, dtype=torch.uint8)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        model: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        micro_batch: int,
        *,
        full: bool = False,
    ) -> None:
        self._model = model
        self._full = full
        self._device = device
        self._micro_batch = micro_batch
        # Threads that share every operation wait for the slowest of them at each, and decoding takes their cores.
        own = cores()
        self._chunks = max(1, min(own, micro_batch // _MIN_IMAGES_A_THREAD)) if device.type == "cpu" else 1
        self._cores_a_chunk = max(1, own // self._chunks)

    def threads(self) -> ThreadPoolExecutor | None:
        """Return threads for `__call__`, to be shut down by the caller; None where one is enough."""
        return torch_threads(self._chunks, "compute", self._cores_a_chunk) if self._chunks > 1 else None

    def __call__(self, pixels: torch.Tensor, threads: ThreadPoolExecutor | None = None) -> torch.Tensor:
        """Embed images.

        Parameters
        ----------
        pixels : Tensor
            (n, H, W, 3) uint8, on the device.
        threads : ThreadPoolExecutor or None
            Of `threads`.

        Returns
        -------
        Tensor
            (n, D) float32, on the device.

        Raises
        ------
        DeviceError
            Memory does not suffice for one image by itself. All have the same size here, so that says nothing about
            this one: it is the machine's, and no image is unscored for it.
        """
        while True:
            try:
                return torch.cat(self._passes(self._pieces(pixels), threads))[: len(pixels)]
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self._micro_batch == 1:
                    raise DeviceError(
                        f"there is not enough memory on {self._device} for one image; end what else uses it, or choose "
                        "another device, a lower precision or a smaller model"
                    ) from error
            # outside the handler, whose exception holds on to what the failed pass has in memory
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            else:
                _trim_heap()
            self._micro_batch = -(-self._micro_batch // 2)
            self._chunks = min(self._chunks, self._micro_batch)
            _log.warning("out of memory; embedding %d images at a time from here on", self._micro_batch)

    def _passes(self, pieces: list[torch.Tensor], threads: ThreadPoolExecutor | None) -> list[torch.Tensor]:
        """The embeddings of each piece; after an error none is still being computed, for it would hold its memory."""
        if threads is None:
            return [self._model(piece) for piece in pieces]
        passes = [threads.submit(self._model, piece) for piece in pieces]
        try:
            for ended in wait(passes, return_when=FIRST_EXCEPTION).not_done:
                ended.cancel()
            wait(passes)
            return [done.result() for done in passes]  # what failed stands before what was cancelled
        finally:
            passes.clear()  # an error's traceback leads here, and each failed pass to its error

    def _pieces(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """The images of each pass of the model."""
        if not self._full:
            return [chunk for micro in pixels.split(self._micro_batch) for chunk in micro.chunk(self._chunks)]
        size = -(-self._micro_batch // self._chunks)
        *pieces, last = pixels.split(size)
        return [*pieces, torch.cat([last, last.new_zeros(size - len(last), *last.shape[1:])])]


def _trim_heap() -> None:
    """Give the system back what is free: each thread has a heap of its own, and none can use another's."""
    with suppress(AttributeError, OSError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)


def out_of_memory(error: BaseException) -> bool:
    """Return True for an error that says that there is no more memory, on a device or on the machine.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."))
    True
    >>> out_of_memory(RuntimeError("shapes do not match"))
    False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _NO_MEMORY)
