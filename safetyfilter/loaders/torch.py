"""PyTorch data sets that never yield an excluded sample: map-style and iterable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders.checks import ImageCheck, require_readable, require_used, spread
from safetyfilter.loaders.counts import SharedCounts, reconciled
from safetyfilter.loaders.gate import By, Gate, Getter, decider, encoded, getter, reasons_for
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.index import Rows

T_co = TypeVar("T_co", covariant=True)

_BATCH = 1024


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
    verify_content : bool or "access"
        Exclude a sample whose encoded image is not the one that was scored. With True every image is read and
        compared here; with ``"access"``, which suits the largest data sets, only when a sample is asked for.
        With either, a sample that turns out changed when it is asked for is never returned: the next kept one stands
        in for it, and it is counted as ``drifted``.
    progress : bool
        Show a progress bar on standard error while images are read here.

    Raises
    ------
    RunError
        The run knows none of the samples, or most of a few images, where they are known without the samples, are not
        those that it scanned; or, when a sample is asked for, all kept ones have changed.
    UsageError
        What decides needs keys or images that weren't given, or there are not as many as samples; or a filter can read
        none of the images.

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
        by: By,
        *,
        keys: Sequence[str] | None = None,
        images: Sequence[Any] | None = None,
        key: Getter[Any] | None = None,
        image: Getter[Any] | None = None,
        verify_content: bool | Literal["access"] = False,
        progress: bool = False,
    ) -> None:
        if verify_content not in (True, False, "access"):
            raise UsageError(f"verify_content is {verify_content!r}; give True, False or 'access'")
        if not hasattr(dataset, "__len__"):
            raise UsageError(
                f"a {type(dataset).__name__} has no length; give a map-style data set, or use SafeIterable"
            )
        if keys is None and key is None:
            keys = _image_folder_keys(dataset)
        if images is None and image is None:
            images = _image_folder_paths(dataset)
        for what, given in (("keys", keys), ("images", images)):
            if given is not None and len(given) != len(dataset):
                raise UsageError(f"{len(given)} {what} for {len(dataset)} samples; give one for each, in their order")
        self.dataset = dataset
        self._images, self._image = images, getter(image)
        self._decisions: Decisions | None = None
        self._rows: Rows | None = None
        chosen = decider(by)
        online = not isinstance(chosen, Decisions)
        if online and verify_content:
            raise UsageError("verify_content compares with a run, and a SafetyFilter scores every image; leave it out")
        if (online or verify_content) and images is None and image is None:
            raise UsageError(
                "a filter and verify_content need the encoded images: give images=, or say with image= "
                "where a sample holds its own"
            )
        if not online and keys is None and key is None:
            raise UsageError(
                "a run's decisions are looked up by key: give keys=, or say with key= where a sample holds its own"
            )
        bits = np.empty(len(dataset), np.uint16)
        rows = []
        errors: list[Exception] = []
        key_of = getter(key)
        for start in _steps(len(dataset), progress and (online or verify_content is True)):
            numbers = range(start, min(start + _BATCH, len(dataset)))
            part = None if keys is not None or online else [_held(dataset, n, key_of, errors) for n in numbers]
            names = list(keys[start : numbers.stop]) if keys is not None and not online else part
            read = [self._encoded_input(n) for n in numbers] if online or verify_content is True else None
            bits[start : numbers.stop] = reasons_for(chosen, names, read)
            if isinstance(chosen, Decisions) and verify_content:
                assert names is not None
                rows.append(chosen.find(["" if name is None else str(name) for name in names]))
        kept = np.flatnonzero(bits == 0)
        self._kept: npt.NDArray[Any] = kept.astype(np.uint32 if len(bits) < 1 << 32 else np.int64)
        self._counts = dict(reconciled(bits))
        if not isinstance(chosen, Decisions):
            require_readable(self._counts)
        else:
            require_used(chosen, self._counts, next(iter(errors), None))
            if images is not None and keys is not None and verify_content is not True:
                _require_same_images(chosen, keys, images)
        if isinstance(chosen, Decisions) and verify_content:
            self._changed = SharedCounts()
            self._decisions = chosen
            self._rows = np.concatenate([np.empty(0, np.int64), *rows])[kept]

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> T_co:
        """The kept sample at a position; IndexError past the last."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} kept samples, and none at {index}")
        position = index % len(self)
        for _ in range(len(self)):
            sample: T_co = self.dataset[int(self._kept[position])]
            if self._decisions is None or self._unchanged(position, sample):
                return sample
            self._changed.flags(len(self))[position] = 1
            position = (position + 1) % len(self)
        raise RunError("every sample that the run keeps has changed since it was scored; scan the source again")

    def __getitems__(self, indices: Sequence[int]) -> list[T_co]:
        """The kept samples at several positions, by the data set's own way to get several where it has one."""
        several: Callable[[list[int]], list[T_co]] | None = getattr(self.dataset, "__getitems__", None)
        if several is None or self._decisions is not None:
            return [self[index] for index in indices]
        return several([int(self._kept[index]) for index in indices])

    def filter_report(self) -> dict[str, int]:
        """``seen``, ``kept``, ``excluded`` and one count a reason, over the whole data set.

        Includes samples that were found changed when they were asked for, in whatever process that was.
        """
        report = dict(self._counts)
        if self._decisions is not None:
            changed = sum(self._changed.flags(len(self))[:])
            for name, more in (("kept", -changed), ("excluded", changed), ("drifted", changed)):
                report[name] += more
        return report

    def _unchanged(self, position: int, sample: Any) -> bool:
        """Whether a sample's encoded image is the one that was scored."""
        assert self._decisions is not None
        assert self._rows is not None
        image = self._images[int(self._kept[position])] if self._images is not None else self._image(sample)
        content = encoded(image)
        return content is not None and self._decisions.unchanged(int(self._rows[position]), content)

    def _encoded_input(self, number: int) -> Any:
        """A sample's image, None where it can't be had."""
        if self._images is not None:
            return self._images[number]
        return _held(self.dataset, number, self._image)


class SafeIterable(IterableDataset[T_co]):
    """The samples of an iterable that a run or a filter keeps, in order.

    Parameters
    ----------
    samples : iterable
        An `IterableDataset`, or anything that begins anew each time it is iterated.
    by : path, Run, Decisions or SafetyFilter
        A run's directory: a sample is kept if the run knows and keeps its key. A filter: what streams past is scored
        in batches of its own batch size, on its own device.
    key, image : str, callable or None
        The name of the item or attribute of a sample, or a function of the sample, that holds its key and its encoded
        image (bytes or a path).
    verify_content : bool
        Also exclude a sample whose encoded image is not the one that was scored. Needs `image`.
    shard : bool or "auto"
        Whether the workers of a `DataLoader`, and the ranks, take turns here, each with every n-th sample. With
        ``"auto"`` they do, but for an `IterableDataset`, which is left to shard itself as it would without a filter.
    rank, world_size : int or None
        This process among those that train; from torch.distributed where None and that is in use.

    Raises
    ------
    RunError
        While iterating: the run knows none of the first thousand samples, or of all where they are fewer; or, where
        `image` is given, most of the first images are not those that it scanned.
    DeviceError
        While iterating: the filter is on CUDA and the worker was forked.
    UsageError
        What decides needs a key or an image, and nothing says where it is.

    Examples
    --------
    >>> from safetyfilter import ClipEncoder, Policy, SafetyFilter, zero_shot_probes
    >>> from safetyfilter.standin import ENCODER, PROMPTS
    >>> encoder = ClipEncoder.load(ENCODER, device="cpu")
    >>> from PIL import Image
    >>> lenient = Policy(thresholds={"explicit": 1, "minor": 1})
    >>> online = SafetyFilter(encoder, zero_shot_probes(encoder, PROMPTS), lenient)
    >>> safe = SafeIterable([{"jpg": b"no picture"}, {"jpg": Image.new("RGB", (64, 48), "teal")}], online, image="jpg")
    >>> len(list(torch.utils.data.DataLoader(safe, batch_size=None))), safe.filter_report()["unscored"]
    (1, 1)
    """

    def __init__(
        self,
        samples: Iterable[Any],
        by: By,
        *,
        key: Getter[Any] | None = None,
        image: Getter[Any] | None = None,
        verify_content: bool = False,
        shard: bool | Literal["auto"] = "auto",
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if shard not in (True, False, "auto"):
            raise UsageError(f"shard is {shard!r}; give True, False or 'auto'")
        if (rank is None) != (world_size is None) or not 0 <= (rank or 0) < (world_size or 1):
            raise UsageError(f"rank {rank} of {world_size}; give both, the rank below world_size, or neither")
        if isinstance(samples, Iterator):
            raise UsageError(
                "samples is an iterator, which ends after one pass and can't be shared by workers; pass "
                "what it was made from, an IterableDataset for example"
            )
        self.samples = samples
        self._gate: Gate[Any] = Gate(by, key=key, image=image, verify_content=verify_content)
        self._shard = not isinstance(samples, IterableDataset) if shard == "auto" else shard
        self._rank, self._world = (rank, world_size) if world_size is not None else _distributed()

    def __iter__(self) -> Iterator[T_co]:
        epoch = self._gate.counts.epoch
        if epoch is not None and hasattr(self.samples, "set_epoch"):
            self.samples.set_epoch(epoch)
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        samples: Iterable[Any] = self.samples
        if self._shard:
            samples = _every(samples, (self._rank or 0) * workers + worker, (self._world or 1) * workers)
        return self._gate.passing(samples, workers=workers)

    def set_epoch(self, epoch: int) -> None:
        """Pass an epoch on to the samples' own ``set_epoch``, in persistent workers too, from the next pass on."""
        self._gate.counts.epoch = epoch

    def filter_report(self) -> dict[str, int]:
        """``seen``, ``kept``, ``excluded`` and one count a reason, of all passes in all workers so far.

        Workers read ahead: while a pass goes on, more is counted than has come out.
        """
        return self._gate.counts.report()


def _every(samples: Iterable[Any], first: int, step: int) -> Iterator[Any]:
    return (sample for number, sample in enumerate(samples) if number % step == first)


def _distributed() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _image_folder_keys(dataset: Any) -> list[str] | None:
    """The keys of torchvision's ImageFolder and DatasetFolder, as a scan of their root gives them."""
    root, paths = getattr(dataset, "root", None), _image_folder_paths(dataset)
    if paths is None or not isinstance(root, str | os.PathLike):
        return None
    return [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]


def _image_folder_paths(dataset: Any) -> list[str] | None:
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, list) or not all(isinstance(s, tuple) and isinstance(s[0], str) for s in samples):
        return None
    return [sample[0] for sample in samples]


def _held(dataset: Any, number: int, get: Callable[[Any], Any], errors: list[Exception] | None = None) -> Any:
    """What a sample holds; None where the sample or that of it can't be had, and so it will be excluded."""
    try:
        return get(dataset[number])
    except Exception as error:  # noqa: BLE001 - one broken sample is excluded, and the rest goes on
        if errors is not None:
            errors[:] = [error]
        return None


def _require_same_images(decisions: Decisions, keys: Sequence[str], images: Sequence[Any]) -> None:
    """`ImageCheck` on some images from all over the data set."""
    check = ImageCheck(decisions)
    for number in spread(len(keys)):
        try:
            check.same(str(keys[number]), encoded(images[number]))
        except UsageError:  # decoded images can't be compared
            return
    check.require_same()


def _steps(count: int, progress: bool) -> Iterable[int]:
    steps = range(0, count, _BATCH)
    if not progress:
        return steps
    from rich.console import Console
    from rich.progress import track

    return track(steps, description="checking", console=Console(stderr=True))
