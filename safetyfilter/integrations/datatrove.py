"""A step of datatrove's media pipeline that passes on no document with a picture that a filter excludes.

It needs datatrove (0.10.1 was tested), which is installed apart: ``pip install datatrove==0.10.1``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.typeshelper import StatHints

from safetyfilter.batches import Reason, Unreadable
from safetyfilter.errors import UsageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.integrations.deciding import Pictures, SampleDecider


class SafetyFilterStep(PipelineStep):  # type: ignore[misc]
    """Passes on the documents of which every medium is a picture that can be scored, and none is excluded.

    datatrove's own media filters empty a medium and write the reason beside its URL. This step leaves out the whole
    document and writes nothing: it counts, in datatrove's statistics, ``total``, ``forwarded``, ``dropped`` and
    ``dropped_`` with each reason. It belongs behind the reader that fills `Media.media_bytes`, and opens no URL and no
    path. A document is `unscored` that has no media, one without its bytes, or one that is not a picture.

    Parameters
    ----------
    load : callable
        Returns the `SafetyFilter`; called in each worker. `FilterRecipe.load` is one that is small to send.
    batch_size : int
        Documents that are read ahead and decided on together.

    Raises
    ------
    UsageError
        `batch_size` is below 1.
    """

    name = "safety filter"
    type = "MEDIA FILTER"

    def __init__(self, load: Callable[[], SafetyFilter], batch_size: int = 64) -> None:
        super().__init__()
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; give a whole number from 1")
        self.load = load
        self.batch_size = batch_size

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents that are kept, in their order."""
        documents = iter(data or ())
        decider: SampleDecider | None = None
        while batch := list(islice(documents, self.batch_size)):
            with self.track_time("batch"):
                decider = decider or SampleDecider(self.load())
                try:
                    bits = decider.reasons([_pictures_of(document) for document in batch]).tolist()
                except Exception as error:  # noqa: BLE001 - datatrove logs tracebacks, documents in variables and all
                    raise error.with_traceback(None) from None
                for reasons in map(Reason, bits):
                    self.stat_update(StatHints.total, StatHints.dropped if reasons else StatHints.forwarded)
                    self.stat_update(*(f"dropped_{name}" for name in reasons.names))
            yield from (document for document, excluded in zip(batch, bits, strict=True) if not excluded)


def _pictures_of(document: Any) -> Pictures:
    if any(medium.media_bytes is None for medium in document.media):
        return Unreadable("missing")
    return tuple(medium.media_bytes for medium in document.media)
