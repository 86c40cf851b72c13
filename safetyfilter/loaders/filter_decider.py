"""The decider of a filter: scores each sample's image as it passes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from safetyfilter.batches import DecisionBatch
from safetyfilter.errors import DeviceError, StorageError, UsageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.loaders.access import Access
from safetyfilter.loaders.decided import Decided
from safetyfilter.loaders.faults import fault_of
from safetyfilter.loaders.image_check import ImageCheck

T = TypeVar("T")


class FilterDecider:
    """Decides by a filter: each sample's pictures are scored anew, in one pipeline from the first sample to the last.

    Parameters
    ----------
    safety_filter : SafetyFilter
        The filter, with its own batch size and device.

    Raises
    ------
    UsageError
        Its probes need captions, or its lists of known content URLs, which a loader does not pass on.
    """

    needs_keys = False
    needs_images = True

    def __init__(self, safety_filter: SafetyFilter) -> None:
        if safety_filter.needs_captions:
            raise UsageError(
                "the filter's probes judge images with their captions, which a loader does not pass on; scan "
                "the source and give the run, or use probes on images alone"
            )
        if safety_filter.needs_urls:
            raise UsageError(
                "one of the filter's lists of known content holds digests of URLs, which a loader does not pass on; "
                "scan the source and give the run, or use lists without them"
            )
        self._filter = safety_filter
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"_filter": self._filter}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_process": os.getpid()}

    def require(self, access: Access[Any]) -> None:
        """Raise `UsageError` unless it gives images."""
        if access.image is None:
            raise UsageError(f"a filter scores the encoded images: {access.image_help}")

    def require_current(self, *, now: bool = False) -> None:
        """Do nothing: a filter has no earlier decisions to go by."""

    def knows(self, keys: Sequence[str]) -> bool:
        """Return False: a filter knows no keys, and needs none."""
        return False

    def for_row_numbers(self) -> FilterDecider:
        """Return this decider: a filter looks at each image, whatever its key is."""
        return self

    def stream(self, samples: Iterable[T], access: Access[T], *, workers: int = 1) -> Iterator[tuple[T, int]]:
        """Yield each sample with why it is excluded; the pipeline's buffers bound how far samples are read ahead."""
        for passed, decisions in self._decided(samples, access, workers):
            yield from zip(passed, decisions.reason_bits.tolist(), strict=True)

    def decide(
        self, samples: Iterable[T], access: Access[T], *, workers: int = 1, check: ImageCheck | None = None
    ) -> Iterator[Decided]:
        """Yield the reasons of all samples, a batch of the filter at a time, in one pipeline."""
        for _, decisions in self._decided(samples, access, workers):
            yield Decided(reason_bits=decisions.reason_bits)

    def image_check(self, access: Access[Any]) -> None:
        """Return None: there are no earlier images to compare with."""
        return

    def access_check(self, access: Access[Any]) -> None:
        """Return None, as `image_check`."""
        return

    def require_used(self, counts: Mapping[str, int]) -> None:
        """Raise `UsageError` where no image of what was seen could be read."""
        if counts["seen"] and counts["unscored"] == counts["seen"]:
            raise UsageError(
                f"not one of the first {counts['seen']} samples has an image that can be read; say where a sample "
                "holds its encoded bytes or its path (image=, images=, image_field= or image_column=)"
            )

    def _decided(
        self, samples: Iterable[T], access: Access[T], workers: int
    ) -> Iterator[tuple[list[T], DecisionBatch]]:
        safety_filter = self._filter
        if safety_filter.encoder.device.type == "cuda" and self._process != os.getpid():
            raise DeviceError(
                "the filter is on CUDA, which does not survive a fork: give the DataLoader "
                "multiprocessing_context='spawn' or num_workers=0, or load the encoder with device='cpu'"
            )
        if workers > 1 and safety_filter.options.workers is None:  # the workers share the cores
            threads = max(1, len(os.sched_getaffinity(0)) // workers)
            safety_filter = replace(safety_filter, options=replace(safety_filter.options, workers=threads))
        try:
            for passed, _, decisions in safety_filter.stream(samples, access.loaded):
                yield passed, decisions
        except StorageError as error:  # of the pipeline, whose text names the file
            raise fault_of(error) from None
