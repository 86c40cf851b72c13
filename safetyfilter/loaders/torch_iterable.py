"""PyTorch data sets without a length that never yield an excluded sample."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from torch.utils.data import IterableDataset, get_worker_info

from safetyfilter.errors import UsageError
from safetyfilter.loaders.access import Access, Getter, getter_of
from safetyfilter.loaders.deciders import AttestedBy, RunOrFilter, decider_of
from safetyfilter.loaders.fields import OtherPictures
from safetyfilter.loaders.kept import KeptSamples
from safetyfilter.loaders.opened import PerShard
from safetyfilter.loaders.places import KeyOfPath, absolute
from safetyfilter.loaders.source_samples import SourceSamples, is_source, key_of, picture_of
from safetyfilter.sources.base import Source

T_co = TypeVar("T_co", covariant=True)


class SafeIterable(IterableDataset[T_co]):
    """The samples of an iterable that a run or a filter keeps, in order.

    Parameters
    ----------
    samples : iterable or Source
        An `IterableDataset`, or anything that begins anew each time it is iterated. Of a source, from `open_source`,
        its samples come as `Sample`, whose key and image are known; parts are shared out among workers and ranks.
    by : path, Run, Decisions, ShardedDecisions or SafetyFilter
        A run's directory: a sample is kept if the run knows and keeps its key. A filter: what streams past is scored
        in batches of its own batch size, on its own device.
    key, image : str, callable or None
        The name of the item or attribute of a sample, or a function of the sample, that holds its key and its encoded
        image (bytes or a path).
    root : path or None
        The folder that was scanned, where it lies now, for images that are paths: where `key` is not given, keys are
        the paths relative to it.
    verify_content : bool
        Also exclude a sample whose encoded pictures are not those that were scored. Needs `image`. Without, the first
        64 are compared, where `image` is given, and every sample that holds other pictures than its image.
    verify : path, URL, OfficerKey or None
        An officer's public key: the run has to be attested with it, and its decisions have to be those attested, or
        nothing is loaded; see `verify_run`, and ``docs/attestation.md`` for what is read.
    shard : bool or "auto"
        Whether samples are shared out; it has nothing to do with tars. True shares them out among the workers of a
        `DataLoader` and the ranks, each with every n-th one. ``"auto"`` does so too, but for an `IterableDataset`,
        which is left to share its samples out itself as it would without a filter.
    per_shard : bool or "auto"
        Hold the decisions of the shards (tars, tables, folders) alone that samples come from, one after the other, and
        not those of the whole run. ``"auto"`` does so where the whole would take more than half of this machine's
        memory.
    shard_of : str, callable or None
        The item or attribute of a sample, or a function of it, that holds the path or URL of its shard: wherever that
        lies now, it ends in the shard's path relative to what was scanned. Needed for `per_shard` where keys do not
        begin with that: where they are a table's own column.
    rank, world_size : int or None
        This process among those that train; from torch.distributed where None and that is in use.

    Raises
    ------
    RunError
        While iterating: the run knows none of the first thousand samples, or of all where they are fewer; or, where
        `image` is given, most of the first images are not those that it scanned; or the run was decided anew since.
    AttestationError
        The run is not attested with the key in `verify`, or not as it is now.
    DeviceError
        While iterating: the filter is on CUDA and the worker was forked.
    UsageError
        What decides needs a key or an image, and nothing says where it is; or `per_shard` is True, and the run or its
        keys do not tell the shards. While iterating: not one of the first
        samples has an image where `image` says, or images are decoded already; or a sample holds several pictures, and
        `image` does not say which is its own.

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
        samples: Iterable[Any] | Source,
        by: RunOrFilter,
        *,
        key: Getter[Any] | None = None,
        image: Getter[Any] | None = None,
        root: str | os.PathLike[str] | None = None,
        verify_content: bool = False,
        verify: AttestedBy = None,
        shard: bool | Literal["auto"] = "auto",
        per_shard: PerShard = "auto",
        shard_of: Getter[Any] | None = None,
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
        self._rank, self._world = (rank, world_size) if world_size is not None else _distributed()
        stream: Any = samples
        if is_source(samples):
            stream = SourceSamples(samples, self._rank or 0, self._world or 1, shares=shard is not False)
            key, image, shard = key or key_of, image or picture_of, False
        self.samples: Iterable[Any] = stream
        access = replace(_access(key, image, root), shard=getter_of(shard_of))
        decider = decider_of(
            by, verify=verify_content, per_shard=per_shard, shards_named=shard_of is not None, attested=verify
        )
        self._kept: KeptSamples[Any] = KeptSamples(decider, access)
        self._shard = not isinstance(stream, IterableDataset) if shard == "auto" else shard

    def __iter__(self) -> Iterator[T_co]:
        epoch = self._kept.counts.epoch
        if epoch is not None and hasattr(self.samples, "set_epoch"):
            self.samples.set_epoch(epoch)
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        samples: Iterable[Any] = self.samples
        if self._shard:
            samples = _every(samples, (self._rank or 0) * workers + worker, (self._world or 1) * workers)
        return self._kept.of(samples, workers=workers)

    def set_epoch(self, epoch: int) -> None:
        """Pass an epoch on to the samples' own ``set_epoch``, in persistent workers too, from the next pass on."""
        self._kept.counts.epoch = epoch

    def filter_report(self) -> dict[str, int]:
        """Return ``seen``, ``kept``, ``excluded`` and one count a reason, of all passes in all workers so far.

        Workers read ahead: while a pass goes on, more is counted than has come out.
        """
        return self._kept.counts.report()


def _access(key: Getter[Any] | None, image: Getter[Any] | None, root: str | os.PathLike[str] | None) -> Access[Any]:
    get_key, get_image = getter_of(key), getter_of(image)
    place = None if root is None else absolute(root)
    if get_key is None and get_image is not None and place is not None:
        get_key = KeyOfPath(get_image, place)
    return Access(key=get_key, image=get_image, others=OtherPictures(get_image), root=place)


def _every(samples: Iterable[Any], first: int, step: int) -> Iterator[Any]:
    return (sample for number, sample in enumerate(samples) if number % step == first)


def _distributed() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
