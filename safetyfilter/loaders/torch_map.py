"""PyTorch data sets with a length that never yield an excluded sample."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from safetyfilter.batches import count_decisions
from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders.access import Getter
from safetyfilter.loaders.asked import AskedSamples
from safetyfilter.loaders.decided import Decided
from safetyfilter.loaders.deciders import AttestedBy, RunOrFilter, decider_of
from safetyfilter.loaders.folders import aligned, attribute_of, picked
from safetyfilter.loaders.map_samples import MapSamples
from safetyfilter.runs.index import Rows

T_co = TypeVar("T_co", covariant=True)

_AS_THEY_ARE = frozenset({"classes", "class_to_idx"})
_ALIGNED = frozenset({"targets", "samples", "imgs"})
"""Attributes of torchvision's data sets that hold a value for each sample."""


class SafeDataset(Dataset[T_co]):
    """The samples of a map-style data set that a run or a filter keeps.

    What is kept is settled here, once: the length is fixed, and samplers, shuffling and `DistributedSampler` work as
    they do on any data set. Nothing is read for it where the keys are known without the samples: pass `keys`, or a
    torchvision `ImageFolder`, whose keys are its files' paths below its root.

    Parameters
    ----------
    dataset : Dataset
        With ``len`` and ``[]``.
    by : path, Run, Decisions or SafetyFilter
        A run's directory: a sample is kept if the run knows and keeps its key. A filter: each image is scored here.
    keys, images : sequence or None
        The samples' keys; their encoded images, as bytes or paths.
    key, image : str, callable or None
        In the place of `keys` and `images`: the name of the item or attribute of a sample, or a function of the
        sample, that holds them. With `key`, every sample is read once here.
    root : path or None
        The folder that was scanned, where it lies now. Where nothing else says what the keys are, they are the images'
        paths relative to it; an `ImageFolder`'s are relative to its own root without it.
    verify_content : bool or "access"
        Exclude a sample whose encoded pictures are not those that were scored. With True every image is read and
        compared here; with ``"access"``, which suits the largest data sets, only when a sample is asked for. Without,
        64 images from all over the data set are compared, where they can be had, and every sample that holds other
        pictures than its image. A sample that turns out changed when it is asked for is never returned: the next kept
        one stands in for it, and it is counted as ``drifted``.
    verify : path, URL, OfficerKey or None
        An officer's public key: the run has to be attested with it, and its decisions have to be those attested, or
        nothing is loaded; see `verify_run`, and ``docs/attestation.md`` for what is read.
    progress : bool
        Show a progress bar on standard error while images are read here.

    Raises
    ------
    RunError
        The run knows none of the samples, or most of the images that are compared are not those that it scanned; or,
        when a sample is asked for, all kept ones have changed, or the run was decided anew.
    AttestationError
        The run is not attested with the key in `verify`, or not as it is now.
    UsageError
        What decides needs keys or images that weren't given, or there are not as many as samples; or none of the images
        can be read; or they are decoded already; or a sample holds several encoded pictures, and `image` was not given.

    Attributes
    ----------
    dataset : Dataset
        The data set.
    classes, class_to_idx : object
        The data set's own, where it has them, a torchvision `ImageFolder` for example or a `Subset` of one.
    targets, samples, imgs : list or array
        The data set's own, at the kept samples.

    Examples
    --------
    A filter in front of a list of encoded images; the second is none:

    >>> import io
    >>> from PIL import Image
    >>> from safetyfilter import ClipEncoder, Policy, SafetyFilter, zero_shot_probes
    >>> from safetyfilter.standin import ENCODER, PROMPTS
    >>> encoder = ClipEncoder.load(ENCODER, device="cpu")
    >>> lenient = Policy(thresholds={"explicit": 1, "minor": 1})
    >>> online = SafetyFilter(encoder, zero_shot_probes(encoder, PROMPTS), lenient)
    >>> teal = io.BytesIO()
    >>> Image.new("RGB", (64, 48), "teal").save(teal, "PNG")
    >>> pictures = [teal.getvalue(), b"no picture"]
    >>> safe = SafeDataset(pictures, online, images=pictures)
    >>> len(safe), safe.filter_report()["unscored"]
    (1, 1)
    """

    def __init__(
        self,
        dataset: Any,
        by: RunOrFilter,
        *,
        keys: Sequence[str] | None = None,
        images: Sequence[Any] | None = None,
        key: Getter[Any] | None = None,
        image: Getter[Any] | None = None,
        root: str | os.PathLike[str] | None = None,
        verify_content: bool | Literal["access"] = False,
        verify: AttestedBy = None,
        progress: bool = False,
    ) -> None:
        if verify_content not in (True, False, "access"):
            raise UsageError(f"verify_content is {verify_content!r}; give True, False or 'access'")
        if not hasattr(dataset, "__len__"):
            raise UsageError(
                f"a {type(dataset).__name__} has no length; give a map-style data set, or use SafeIterable"
            )
        samples = MapSamples(dataset, keys=keys, images=images, key=key, image=image, root=root)
        decider = decider_of(by, verify=verify_content, attested=verify)
        decider.require(samples.access)
        bits, rows = _joined(
            _shown(samples.decided_by(decider), len(dataset), progress and decider.needs_images), len(dataset)
        )
        if rows is not None:
            samples.compare_some(decider, bits, rows)
        counts = dict(count_decisions(bits))
        decider.require_used(counts)
        kept = np.flatnonzero(bits == 0)
        self.dataset = dataset
        self._kept: npt.NDArray[Any] = kept.astype(np.uint32 if len(bits) < 1 << 32 else np.int64)
        self._counts = counts
        self._asked = AskedSamples(decider, samples, None if rows is None else rows[kept])

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> T_co:
        """Return the kept sample at a position; IndexError past the last."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} kept samples, and none at {index}")
        position = index % len(self)
        self._asked.require_current()
        for _ in range(len(self)):
            number = int(self._kept[position])
            sample: T_co = self.dataset[number]
            if self._asked.passes(position, number, sample):
                return sample
            position = (position + 1) % len(self)
        raise RunError("every sample that the run keeps has changed since it was scored; scan the source again")

    def __getitems__(self, indices: Sequence[int]) -> list[T_co]:
        """Return the kept samples at several positions, by the data set's own way to get several where it has one."""
        several: Callable[[list[int]], list[T_co]] | None = getattr(self.dataset, "__getitems__", None)
        if several is None or self._asked.compares:
            return [self[index] for index in indices]
        self._asked.require_current()
        numbers = [int(self._kept[index]) for index in indices]
        samples = several(numbers)
        for index, number, sample in zip(indices, numbers, samples, strict=True):
            self._asked.passes(index, number, sample)
        return samples

    def filter_report(self) -> dict[str, int]:
        """Return ``seen``, ``kept``, ``excluded`` and one count a reason, over the whole data set.

        Includes samples that were found changed when they were asked for, in whatever process that was.
        """
        report, changed = dict(self._counts), self._asked.changed()
        for name, more in (("kept", -changed), ("excluded", changed), ("drifted", changed)):
            report[name] += more
        return report

    def __getattr__(self, name: str) -> Any:
        if name in _AS_THEY_ARE:
            found = attribute_of(self.dataset, name)
        elif name in _ALIGNED:
            whole = aligned(self.dataset, name)
            found = None if whole is None else picked(whole, self._kept.tolist())
        else:
            found = None
        if found is None:
            raise AttributeError(f"a {type(self).__name__} has no attribute {name!r} here")
        return found


def _joined(batches: Iterator[Decided], count: int) -> tuple[npt.NDArray[np.uint16], Rows | None]:
    """Return the reasons of all samples, and their rows in the run's index where a run decided."""
    decided = list(batches)
    bits = np.concatenate([np.empty(0, np.uint16), *(batch.reason_bits for batch in decided)])
    if len(bits) != count:
        raise RuntimeError(f"{len(bits)} decisions on {count} samples; this is a fault of the library, report it")
    rows = [batch.rows for batch in decided if batch.rows is not None]
    return bits, np.concatenate([np.empty(0, np.int64), *rows]) if len(rows) == len(decided) else None


def _shown(batches: Iterator[Decided], count: int, progress: bool) -> Iterator[Decided]:
    """Yield the batches, with a progress bar on standard error where it is wanted."""
    if not progress:
        yield from batches
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("checking", total=count)
        for batch in batches:
            yield batch
            bar.advance(task, len(batch.reason_bits))
