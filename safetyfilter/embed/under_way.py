"""The batches of a stream whose embeddings are being computed, and the order in which they are given out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np

from safetyfilter.batches import OK, EmbeddingBatch
from safetyfilter.embed.crops import Crops
from safetyfilter.embed.launched import Launched

R = TypeVar("R")

HELD = 8
"""Batches that wait for crops at most: then these are embedded, though they fill no forward pass."""


class UnderWay(Generic[R]):
    """Batches whose forward pass was started, from the first to the last.

    Parameters
    ----------
    encoder : str
        The digest of the encoder's specification.
    behind : int
        Batches that run on the device while one is prepared, and are not waited for: 1 on a GPU, 0 on a processor.
    crops : Crops or None
        Takes pictures to be looked at closer; None where all views go through the model at once.
    """

    def __init__(self, encoder: str, behind: int, crops: Crops | None) -> None:
        self._encoder, self._behind, self._crops = encoder, behind, crops
        self._fresh: deque[Launched[R]] = deque()
        self._looked: deque[tuple[Launched[R], int]] = deque()
        self._ready = 0
        """The crops that are waited for: of a GPU not those of the passes that were started last."""

    def add(self, launched: Launched[R]) -> None:
        """Take a batch whose forward pass was started; on a processor its pixels may be overwritten afterwards."""
        self._fresh.append(launched)
        if self._crops is None:
            return
        if self._behind:
            self._ready = self._crops.started
        while len(self._fresh) > self._behind:
            self._look(self._crops)
        if len(self._looked) > HELD:
            self._crops.start()
        else:
            self._crops.start_full()
        if not self._behind:
            self._ready = self._crops.started

    def finished(self) -> Iterator[tuple[list[R], EmbeddingBatch]]:
        """Yield the batches that need not be waited for, or of which nothing is left to start."""
        if self._crops is None:
            while len(self._fresh) > self._behind:
                yield self._fresh.popleft().collect(self._encoder)
            return
        while self._looked and self._looked[0][1] <= self._ready:
            yield self._collect(self._crops)

    def rest(self) -> Iterator[tuple[list[R], EmbeddingBatch]]:
        """Yield all batches that are left."""
        self._behind = 0
        if self._crops is not None:
            while self._fresh:
                self._look(self._crops)
            self._crops.start()
            self._ready = self._crops.started
        yield from self.finished()

    def _look(self, crops: Crops) -> None:
        """Have the gate look at the batch that came first of those that it has not seen."""
        launched = self._fresh.popleft()
        if launched.ready is not None:
            launched.ready.synchronize()
        pixels = launched.pixels
        assert pixels is not None
        launched.vectors = launched.vectors.expand(-1, pixels.shape[1], -1).clone()
        crops.take(pixels, launched.vectors.numpy(), np.asarray(launched.status == OK))
        launched.pixels = None
        self._looked.append((launched, crops.taken))

    def _collect(self, crops: Crops) -> tuple[list[R], EmbeddingBatch]:
        launched, until = self._looked.popleft()
        crops.write(until)
        return launched.collect(self._encoder)
