"""The two ways to decode: in the thread that asks, or in a process of that thread's own."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image

from safetyfilter.batches import ImageInput
from safetyfilter.embed.decoding.processes import DecodingProcesses
from safetyfilter.embed.decoding.protocol import Asked, DecodingSetup
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.inputs import read_bytes
from safetyfilter.embed.pictures.views import Pixels
from safetyfilter.errors import EngineError, StorageError

ToDecode: TypeAlias = tuple[int, tuple[ImageInput, ...]]
"""A row, and the images of an item, of which the first picture goes into it."""
SendFurther: TypeAlias = Callable[[int, Pixels], bool]
"""Takes an item's row and a further picture of it, (V, H, W, 3) uint8; False where nobody embeds any more."""
Outcome: TypeAlias = tuple[int, Exception | None]
"""A row, and None or why it has no pixels: `Unreadable`, or a fault that is not the images'."""

AT_ONCE_BYTES = 4 << 20
"""Encoded images that are given to a process at once are together not much larger."""


class Decoder(Protocol):
    """Decodes images into rows of memory that it provides; may be called from several threads at once."""

    def rows(self) -> torch.Tensor:
        """Return the (N, V, H, W, 3) uint8 that rows are decoded into."""

    def decode(self, items: Iterable[ToDecode], further: SendFurther) -> Iterator[Outcome]:
        """Decode the first picture of each item into its row, and send the others.

        Yields
        ------
        int, Exception or None
            Each row once, in any order.

        Raises
        ------
        StorageError
            An item could not be had, or a path of it not be read, though it was tried again. The outcome of all items
            before it is yielded first.
        EngineError
            Decoding can't go on.
        """

    def close(self) -> None:
        """End what was started; a thread that waits for a picture need not wait any longer."""


class ThreadDecoder:
    """Decodes in the thread that asks; a decoder that crashes takes this process with it."""

    def __init__(self, preparer: ImagePreparer, shape: tuple[int, ...], *, pinned: bool) -> None:
        self._prepare = preparer
        self._rows = torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned)
        self._pixels: Pixels = self._rows.numpy()

    def rows(self) -> torch.Tensor:
        """As `Decoder.rows`."""
        return self._rows

    def decode(self, items: Iterable[ToDecode], further: SendFurther) -> Iterator[Outcome]:
        """As `Decoder.decode`."""
        for row, images in items:
            yield row, decode_into(self._pixels, row, self._prepare, images, further)

    def close(self) -> None:
        """Do nothing: nothing was started."""


class ProcessDecoder:
    """Decodes in a process for each thread that asks, straight into memory that both share.

    A process that crashes is replaced; an image at which two of them did is unscored as ``decoder_crashed``. PIL
    images, which are decoded already, stay in this process.
    """

    def __init__(self, preparer: ImagePreparer, shape: tuple[int, ...], *, pinned: bool) -> None:
        self._prepare = preparer
        self._fd = os.memfd_create("pixels")  # without a name: nothing is left, however this process ends
        size = prod(shape)
        os.ftruncate(self._fd, size)
        self._rows = torch.frombuffer(mmap.mmap(self._fd, size), dtype=torch.uint8).reshape(shape)
        self._pixels: Pixels = self._rows.numpy()
        self._pinned = pinned and int(torch.cuda.cudart().cudaHostRegister(self._rows.data_ptr(), size, 0)) == 0
        self._processes = DecodingProcesses(DecodingSetup(preparer=preparer, shape=shape), self._fd)

    def rows(self) -> torch.Tensor:
        """As `Decoder.rows`."""
        return self._rows

    def decode(self, items: Iterable[ToDecode], further: SendFurther) -> Iterator[Outcome]:
        """As `Decoder.decode`; `EngineError` where processes can't be started, or end at whatever they are given."""
        waiting: list[Asked] = []
        size, limits = 0, self._prepare.limits
        try:
            for row, images in items:
                try:
                    encoded = tuple([read_bytes(image, limits) for image in images])
                except (StorageError, EngineError):
                    raise
                except Exception as error:  # noqa: BLE001 - a finding, or a fault of whoever gave it
                    yield row, error
                    continue
                files = tuple([image for image in encoded if not isinstance(image, Image.Image)])
                if len(files) < len(encoded):
                    yield row, decode_into(self._pixels, row, self._prepare, encoded, further)
                    continue
                waiting.append(Asked(row, files))
                size += sum(map(len, files))
                if size > AT_ONCE_BYTES:
                    yield from self._ask(waiting, further)
                    waiting, size = [], 0
        except StorageError:
            yield from self._ask(waiting, further)
            raise
        yield from self._ask(waiting, further)

    def _ask(self, asked: list[Asked], further: SendFurther) -> Iterator[Outcome]:
        shape = self._pixels.shape[1:]

        def send(number: int, what: bytes) -> bool:
            return further(asked[number].row, np.frombuffer(what, np.uint8).reshape(shape))

        found = self._processes.ask(asked, send)
        return zip((each.row for each in asked), found, strict=True)

    def close(self) -> None:
        """As `Decoder.close`."""
        if self._processes.close():
            os.close(self._fd)
            if self._pinned:
                torch.cuda.cudart().cudaHostUnregister(self._rows.data_ptr())


def decode_into(
    rows: Pixels, row: int, preparer: ImagePreparer, images: tuple[ImageInput, ...], further: SendFurther
) -> Exception | None:
    """Decode an item's images in this thread, and return what became of it, as in an `Outcome`."""
    first = True
    try:
        for picture in preparer.pictures(*images):
            if first:
                rows[row] = picture
                first = False
            elif not further(row, picture):
                break
    except (StorageError, EngineError):  # says nothing about the images
        raise
    except Exception as error:  # noqa: BLE001 - a finding, or a fault of ours or of a decoder
        return error
    return None
