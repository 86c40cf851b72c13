"""The second step of ``views="adaptive"``: a gate picks pictures by their embeddings, and their crops are embedded too.

Few pictures of a batch are picked, so that the crops of several batches go into a forward pass together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from safetyfilter.batches import Floats
from safetyfilter.embed.launched import on_host
from safetyfilter.errors import UsageError

Closer: TypeAlias = Callable[[Floats], npt.NDArray[np.bool_]]
"""(N, D) float32 embeddings of whole pictures -> (N,) bool, True for each picture to be looked at closer."""


@dataclass(frozen=True, slots=True)
class _Places:
    """The places of crops' embeddings: an array, and the row of it for each crop."""

    array: Floats
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Pass:
    """Crops whose forward pass was started; ``first`` is the number of crops that were taken before them."""

    first: int
    vectors: torch.Tensor
    ready: torch.cuda.Event | None
    places: list[_Places]


class Crops:
    """The crops of one stream's pictures that a gate picks, in the order in which the pictures come.

    Parameters
    ----------
    embed : callable
        (n, H, W, 3) uint8 on the device -> (n, D) float32 on the device.
    closer : callable
        The gate, as `Closer`.
    size : int
        Crops of a forward pass.

    Examples
    --------
    >>> crops = Crops(lambda pixels: pixels.float().mean((1, 2)), lambda vectors: vectors[:, 0] > 1, 4)
    >>> pixels = torch.arange(2, dtype=torch.uint8).view(2, 1, 1, 1, 1).expand(2, 5, 1, 1, 3) * 7
    >>> vectors = np.repeat(np.float32([[[0, 0, 0]], [[9, 0, 0]]]), 5, axis=1)
    >>> crops.take(pixels, vectors, np.array([True, True]))
    >>> crops.start()
    >>> crops.write(crops.taken)
    >>> vectors[:, :, 0].tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0], [9.0, 7.0, 7.0, 7.0, 7.0]]
    """

    def __init__(self, embed: Callable[[torch.Tensor], torch.Tensor], closer: Closer, size: int) -> None:
        self._embed, self._closer, self._size = embed, closer, size
        self._waiting: deque[tuple[torch.Tensor, _Places]] = deque()
        self._passes: deque[_Pass] = deque()
        self.taken = 0
        """The crops that were taken so far."""
        self.started = 0
        """Those of them, from the first on, whose forward pass was started."""

    def take(self, pixels: torch.Tensor, vectors: Floats, usable: npt.NDArray[np.bool_]) -> None:
        """Take the crops of those pictures that are to be looked at closer; they are copied.

        Parameters
        ----------
        pixels : Tensor
            (n, V, H, W, 3) uint8, on the device: of each picture the whole and its crops.
        vectors : ndarray
            (n, V, D) float32, C-contiguous: of each picture the embedding of the whole, V times. That of each crop
            that is taken is written into its place later, by `write`.
        usable : ndarray
            (n,) bool; the other rows have no picture.

        Raises
        ------
        UsageError
            The gate does not give a bool for each picture.
        """
        picked = self._closer(vectors[:, 0])
        if not isinstance(picked, np.ndarray) or picked.dtype != np.bool_ or picked.shape != (len(vectors),):
            what = f"an array {picked.shape} of {picked.dtype}" if isinstance(picked, np.ndarray) else f"{picked!r}"
            raise UsageError(f"the gate gave {what} for {len(vectors)} pictures; it is to give one bool for each")
        rows = np.flatnonzero(picked & usable)
        if not len(rows):
            return
        views, width = vectors.shape[1:]
        of = torch.from_numpy(rows).to(pixels.device)
        into = (rows[:, None] * views + np.arange(1, views)).reshape(-1)
        self._waiting.append((pixels[of, 1:].flatten(0, 1), _Places(vectors.reshape(-1, width), into)))
        self.taken += len(into)

    def start_full(self) -> None:
        """Start the forward passes that the crops which wait fill."""
        while self.taken - self.started >= self._size:
            self._start(self._size)

    def start(self) -> None:
        """Start the forward passes of all crops that wait."""
        self.start_full()
        if self.taken > self.started:
            self._start(self.taken - self.started)

    def write(self, until: int) -> None:
        """Wait for the embeddings of the first crops, so many of those taken, and write each into its place."""
        while self._passes and self._passes[0].first < until:
            done = self._passes.popleft()
            if done.ready is not None:
                done.ready.synchronize()
            vectors, start = done.vectors.numpy(), 0
            for place in done.places:
                place.array[place.rows] = vectors[start : start + len(place.rows)]
                start += len(place.rows)

    def _start(self, count: int) -> None:
        """Start the forward pass of so many of the crops that wait."""
        crops: list[torch.Tensor] = []
        places: list[_Places] = []
        missing = count
        while missing:
            pixels, place = self._waiting.popleft()
            if len(pixels) > missing:
                self._waiting.appendleft((pixels[missing:], _Places(place.array, place.rows[missing:])))
                pixels, place = pixels[:missing], _Places(place.array, place.rows[:missing])
            crops.append(pixels)
            places.append(place)
            missing -= len(pixels)
        vectors, ready = on_host(self._embed(crops[0] if len(crops) == 1 else torch.cat(crops)))
        self._passes.append(_Pass(self.started, vectors, ready, places))
        self.started += count
