"""The pictures of which perceptual hashes are taken, decoded in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from safetyfilter.embed.decoding.processes import DecodingProcesses
from safetyfilter.embed.decoding.protocol import Asked, LumaSetup, luma_of
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.embed.pictures.lumas import Luma, Lumas, lumas_of


class LumaProcesses:
    """Decodes as `lumas_of` does, in a process for each thread that asks: a decoder that crashes costs the one image.

    Parameters
    ----------
    limits : DecodeLimits
        What an image may cost.

    Examples
    --------
    >>> from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
    >>> lumas = LumaProcesses(DEFAULT_LIMITS)
    >>> lumas(b"no image", DEFAULT_LIMITS)
    Traceback (most recent call last):
        ...
    safetyfilter.batches.Unreadable: not_an_image
    >>> lumas.close()
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._fd = os.memfd_create("turns")
        self._processes = DecodingProcesses(LumaSetup(limits=limits), self._fd)

    def __call__(self, image: bytes, limits: DecodeLimits) -> list[Luma]:
        """Return what `lumas_of` yields; the limits are those of the processes."""
        del limits
        found: list[bytes] = []

        def more(_: int, message: bytes) -> bool:
            found.append(message)
            return True

        (error,) = self._processes.ask([Asked(0, (image,))], more)
        if error is not None:
            raise error
        return [luma_of(message) for message in found]

    def close(self) -> None:
        """End the processes."""
        if self._processes.close():
            os.close(self._fd)


@contextmanager
def luma_decoder(options: EmbedOptions, device: torch.device) -> Iterator[Lumas]:
    """Give what decodes as images are decoded for a model on a device: in this process, or in processes until the end.

    >>> with luma_decoder(EmbedOptions(), torch.device("cpu")) as lumas:
    ...     lumas is lumas_of
    True
    """
    if not options.decodes_in_processes(device):
        yield lumas_of
        return
    processes = LumaProcesses(options.limits)
    try:
        yield processes
    finally:
        processes.close()
