"""The samples of a source as a stream for training, whose parts the workers and ranks share out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

from torch.utils.data import IterableDataset, get_worker_info

from safetyfilter.batches import Unreadable
from safetyfilter.sources.base import Sample, Source
from safetyfilter.storage import Location


class SourceSamples(IterableDataset[Sample]):
    """The samples of a source, part after part; each part is read by one worker of one rank.

    Parameters
    ----------
    source : Source
        The source.
    rank, world_size : int
        This process among those that train.
    shares : bool
        Without, each worker reads all of it.
    """

    def __init__(self, source: Source, rank: int, world_size: int, *, shares: bool = True) -> None:
        self._source, self._rank, self._world, self._shares = source, rank, world_size, shares

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info() if self._shares else None
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        first, step = (self._rank * workers + worker, self._world * workers) if self._shares else (0, 1)
        for part in self._source.parts()[first::step]:
            yield from self._source.samples(part)


def is_source(samples: object) -> TypeGuard[Source]:
    """Return True for a source, which has parts and is not itself iterated.

    >>> is_source([]), is_source({"parts": 1})
    (False, False)
    """
    return callable(getattr(samples, "parts", None)) and callable(getattr(samples, "samples", None))


def key_of(sample: Any) -> str:
    """Return a sample's key.

    >>> key_of(Sample(key="a.jpg"))
    'a.jpg'
    """
    return str(sample.key)


def picture_of(sample: Any) -> bytes | Location:
    """Return a sample's encoded image, or the place that it is read from; `Unreadable` where there is none.

    >>> picture_of(Sample(key="a.jpg", image=b"encoded"))
    b'encoded'
    """
    picture = sample.place if sample.image is None else sample.image
    if sample.failure is not None or picture is None:
        raise Unreadable(sample.failure or "missing")
    found: bytes | Location = picture
    return found
