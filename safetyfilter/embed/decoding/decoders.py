"""The two ways to decode: in the thread that asks, or in a process of that thread's own."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from math import prod
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from safetyfilter.batches import ImageInput
from safetyfilter.embed.decoding.processes import DecodingProcesses
from safetyfilter.embed.decoding.protocol import DecodingSetup, request
from safetyfilter.embed.images import ImagePreparer, read_bytes
from safetyfilter.embed.views import Pixels

SendFurther = Callable[[Pixels], bool]
"""Takes a further picture, (V, H, W, 3) uint8; False where nobody embeds any more."""


class Decoder(Protocol):
    """Decodes images into rows of memory that it provides; may be called from several threads at once."""

    def rows(self) -> torch.Tensor:
        """Return the (N, V, H, W, 3) uint8 that rows are decoded into."""

    def decode(self, images: tuple[ImageInput, ...], row: int, further: SendFurther) -> None:
        """Decode the first picture that images hold into a row, and send the others.

        Raises
        ------
        Unreadable
            Why the images can't be decoded, all of them.
        """

    def close(self) -> None:
        """End what was started; a thread that waits for a picture need not wait any longer."""


class ThreadDecoder:
    """Decodes in the thread that asks; a decoder that crashes takes this process with it."""

    def __init__(self, preparer: ImagePreparer, shape: tuple[int, ...], *, pinned: bool) -> None:
        self._prepare = preparer
        self._rows = torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned)

    def rows(self) -> torch.Tensor:
        """As `Decoder.rows`."""
        return self._rows

    def decode(self, images: tuple[ImageInput, ...], row: int, further: SendFurther) -> None:
        """As `Decoder.decode`."""
        decode_into(self._rows[row].numpy(), self._prepare, images, further)

    def close(self) -> None:
        """Do nothing: nothing was started."""


class ProcessDecoder:
    """Decodes in a process for each thread that asks, straight into memory that both share.

    A process that crashes is replaced; an image at which two of them did is unscored as ``decoder_crashed``. PIL
    images, which are decoded already, stay in this process.
    """

    def __init__(self, preparer: ImagePreparer, shape: tuple[int, ...], *, pinned: bool) -> None:
        self._prepare = preparer
        self._shape = shape
        self._fd = os.memfd_create("pixels")  # without a name: nothing is left, however this process ends
        size = prod(shape)
        os.ftruncate(self._fd, size)
        self._rows = torch.frombuffer(mmap.mmap(self._fd, size), dtype=torch.uint8).reshape(shape)
        self._pinned = pinned and int(torch.cuda.cudart().cudaHostRegister(self._rows.data_ptr(), size, 0)) == 0
        self._processes = DecodingProcesses(DecodingSetup(preparer=preparer, shape=shape), self._fd)

    def rows(self) -> torch.Tensor:
        """As `Decoder.rows`."""
        return self._rows

    def decode(self, images: tuple[ImageInput, ...], row: int, further: SendFurther) -> None:
        """As `Decoder.decode`; `EngineError` where processes can't be started, or end at whatever they are given."""
        encoded = [read_bytes(image, self._prepare.limits) for image in images]
        asked = [image for image in encoded if not isinstance(image, Image.Image)]
        if len(asked) < len(encoded):
            decode_into(self._rows[row].numpy(), self._prepare, tuple(encoded), further)
            return
        self._processes.ask(
            request(row, asked), lambda what: further(np.frombuffer(what, np.uint8).reshape(self._shape[1:]))
        )

    def close(self) -> None:
        """As `Decoder.close`."""
        if self._processes.close():
            os.close(self._fd)
            if self._pinned:
                torch.cuda.cudart().cudaHostUnregister(self._rows.data_ptr())


def decode_into(row: Pixels, preparer: ImagePreparer, images: tuple[ImageInput, ...], further: SendFurther) -> None:
    """Decode images in this thread; as `Decoder.decode`."""
    first = True
    for picture in preparer.pictures(*images):
        if first:
            row[:] = picture
            first = False
        elif not further(picture):
            return
