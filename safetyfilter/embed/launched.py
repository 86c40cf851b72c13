"""Batches whose forward pass has been started, and the statuses of what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

from safetyfilter.batches import OK, STATUS_CODES, EmbeddingBatch, Floats, StatusCodes
from safetyfilter.embed.buffers import Embedded

R = TypeVar("R")

_LEAST_NORM = 0.5  # of an embedding, which has unit norm unless the model's output has no direction


@dataclass(slots=True)
class Launched(Generic[R]):
    """A batch whose forward pass has been started.

    Attributes
    ----------
    records : list
        What was kept of each of its N items.
    status : ndarray
        (N,) uint8, a code each.
    vectors : Tensor
        (N, V, D) float32, in main memory once it is ready; (N, 1, D) while a gate has not looked at it.
    ready : Event or None
        Recorded on the device behind what is waited for.
    others : list of Embedded
        The embeddings of the items' further pictures.
    pixels : Tensor or None
        (N, V, H, W, 3) uint8 on the device, for a gate that may pick some; else None.
    """

    records: list[R]
    status: StatusCodes
    vectors: torch.Tensor
    ready: torch.cuda.Event | None
    others: list[Embedded]
    pixels: torch.Tensor | None = None

    def collect(self, encoder: str) -> tuple[list[R], EmbeddingBatch]:
        """Wait for the embeddings of an encoder whose specification has this digest, and mark the rows without any."""
        if self.ready is not None:
            self.ready.synchronize()
        vectors, status = self.vectors.numpy(), self.status
        status[status == OK] = statuses_of(vectors)[status == OK]
        others, owners = _others(self.others, status, vectors.shape[1:])
        if (status != OK).any():
            vectors = np.where((status == OK)[:, None, None], vectors, np.float32(np.nan))
        if vectors.shape[1] == 1:
            vectors, others = vectors[:, 0], others[:, 0]
        batch = EmbeddingBatch(
            vectors=vectors, status=status, encoder=encoder, others=others, owners=np.array(owners, np.int64)
        )
        return self.records, batch


def on_host(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """Return embeddings in main memory, and on CUDA the event that says when they have arrived there.

    >>> on_host(torch.ones(2))
    (tensor([1., 1.]), None)
    """
    if vectors.device.type != "cuda":
        return vectors.cpu(), None
    host = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
    host.copy_(vectors, non_blocking=True)
    return host, torch.cuda.current_stream(vectors.device).record_event()


def statuses_of(vectors: Floats) -> StatusCodes:
    """Return the (N,) statuses of (N, V, D) embeddings.

    >>> statuses_of(np.float32([[[1, 0]], [[0, 0]]])) == STATUS_CODES["non_finite"]
    array([False,  True])
    """
    norms = np.linalg.norm(vectors, axis=2)  # NaN and infinity show in it too
    direction = ((norms > _LEAST_NORM) & np.isfinite(norms)).all(axis=1)
    status: StatusCodes = np.where(direction, np.uint8(OK), np.uint8(STATUS_CODES["non_finite"]))
    return status


def _others(others: list[Embedded], status: StatusCodes, shape: tuple[int, ...]) -> tuple[Floats, list[int]]:
    """Return the embeddings of the further pictures of items that have no failure, and their rows.

    Parameters
    ----------
    others : list of Embedded
        Of a buffer, in any order.
    status : ndarray
        (N,) uint8; an item of which a further picture failed takes that failure.
    shape : tuple of int
        (V, D).

    Returns
    -------
    ndarray, list of int
        (M, V, D) float32 and M rows, in the order of the rows.
    """
    found = sorted((other for other in others if other.row < len(status)), key=lambda other: other.row)
    if found:
        for other, code in zip(found, statuses_of(np.stack([other.vectors for other in found])).tolist(), strict=True):
            if status[other.row] == OK:
                status[other.row] = code
    kept = [other for other in found if status[other.row] == OK]
    vectors = np.stack([other.vectors for other in kept]) if kept else np.empty((0, *shape), np.float32)
    return vectors, [other.row for other in kept]
