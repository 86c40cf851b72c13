"""Decisions on the samples of another framework: all pictures of a sample are scored, and none is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from safetyfilter.batches import ImageInput, ReasonBits, Unreadable
from safetyfilter.filter import SafetyFilter
from safetyfilter.loaders.access import Access
from safetyfilter.loaders.filter_decider import FilterDecider

Pictures: TypeAlias = "tuple[ImageInput, ...] | Unreadable"
"""All pictures of a sample, or why one of them can't be had."""


class SampleDecider:
    """Decides on samples with any number of pictures each.

    The highest score of each signal over all pictures of a sample counts, as in a scan: a sample is excluded where any
    of its pictures is, and also where one shows the one signal and another the other. A sample without a picture, and
    one of whose pictures can't be read, is `unscored`.

    Parameters
    ----------
    safety_filter : SafetyFilter
        The filter.

    Raises
    ------
    UsageError
        Its probes need captions, or its lists of known content URLs, which are not passed on here.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> from PIL import Image
    >>> from safetyfilter import ClipEncoder, Policy, zero_shot_probes
    >>> from safetyfilter.standin import ENCODER, PROMPTS
    >>> encoder = ClipEncoder.load(ENCODER, device="cpu")
    >>> lenient = Policy(thresholds={"explicit": 1, "minor": 1})
    >>> decider = SampleDecider(SafetyFilter(encoder, zero_shot_probes(encoder, PROMPTS), lenient))
    >>> teal = Image.new("RGB", (64, 48), "teal")
    >>> decider.reasons([(teal,), (teal, b"no picture"), (), (teal, teal)]).tolist()
    [0, 16, 16, 0]
    """

    def __init__(self, safety_filter: SafetyFilter) -> None:
        self._decider = FilterDecider(safety_filter)

    def reasons(self, samples: Sequence[Pictures]) -> ReasonBits:
        """Return why each sample is excluded.

        Returns
        -------
        ndarray
            (N,) uint16, a `Reason` set each; 0 means kept.

        Raises
        ------
        StorageError
            A file could not be read though it was tried again, which says nothing about the sample.
        """
        access = Access(image=_image, others=_others)
        found = [decided.reason_bits for decided in self._decider.decide(samples, access)]
        bits: ReasonBits = np.concatenate([np.empty(0, np.uint16), *found])
        if len(bits) != len(samples):
            raise RuntimeError(
                f"{len(samples)} samples came and {len(bits)} were decided on; this is a fault of the library, "
                "report it"
            )
        return bits


def _image(sample: Pictures) -> ImageInput:
    if isinstance(sample, Unreadable):
        raise sample
    if not sample:
        raise Unreadable("missing")
    return sample[0]


def _others(sample: Pictures) -> tuple[Any, ...]:
    return () if isinstance(sample, Unreadable) else sample[1:]
