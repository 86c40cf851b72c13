"""The protocol of what decides in a loader, and the one place that tells what a user gave."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from safetyfilter.attest.demand import require_attested
from safetyfilter.errors import UsageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.loaders.access import Access
from safetyfilter.loaders.decided import Decided
from safetyfilter.loaders.filter_decider import FilterDecider
from safetyfilter.loaders.image_check import ImageCheck
from safetyfilter.loaders.opened import PerShard, opened
from safetyfilter.loaders.run_decider import RunDecider
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
from safetyfilter.runs.sharded import ShardedDecisions
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.storage import Location

T = TypeVar("T")
RunOrFilter: TypeAlias = "str | os.PathLike[str] | Location | Run | Decisions | ShardedDecisions | SafetyFilter"
"""A run, by its directory for example, or a filter that scores what passes."""
AttestedBy: TypeAlias = "str | os.PathLike[str] | Location | OfficerKey | None"
"""The public key with which a run has to be attested; None where it need not be."""


class Decider(Protocol):
    """Decides on a loader's samples: a run looks them up, a filter scores them.

    It can be pickled, and serves several loaders at a time.
    """

    @property
    def needs_keys(self) -> bool:
        """True where samples are looked up by key."""

    @property
    def needs_images(self) -> bool:
        """True where each sample's image is needed to decide on it."""

    def require(self, access: Access[Any]) -> None:
        """Raise `UsageError` unless the access gives what is needed."""

    def require_current(self, *, now: bool = False) -> None:
        """Raise `RunError` where a run was decided anew since; costs next to nothing, unless it has to be known now."""

    def knows(self, keys: Sequence[str]) -> bool:
        """Return True where a run has one of these keys, by which the form of its keys is told."""

    def for_row_numbers(self) -> Decider:
        """Return a decider for keys that are the numbers of rows, which say nothing about the images in them."""

    def stream(self, samples: Iterable[T], access: Access[T], *, workers: int = 1) -> Iterator[tuple[T, int]]:
        """Yield each sample, in order, with the `Reason` set for which it is excluded, 0 where it is kept.

        Samples are read ahead no further than a filter's buffers; by a run, not at all. A filter scores all pictures of
        a sample. By a run, pictures are compared as `ImageCheck` has it, the first that come among them.

        Parameters
        ----------
        samples : iterable
            Read in one thread.
        access : Access
            Gets at their keys and images, maybe in several threads.
        workers : int
            Processes that do the same on this machine, and share its cores.

        Raises
        ------
        RunError
            Most of the first images are not those that the run scanned.
        UsageError
            Images are not where the user said, are decoded already, or are several of which none was named.
        DeviceError
            The filter is on CUDA, and this process was forked from the one that put it there.
        StorageError
            The storage of a sample's image failed, which says nothing about the sample.
        """

    def decide(
        self, samples: Iterable[T], access: Access[T], *, workers: int = 1, check: ImageCheck | None = None
    ) -> Iterator[Decided]:
        """Yield the reasons of all samples, in order, some at a time.

        As `stream`, but a run looks up many keys at once, and compares the first images only where `check`, from
        `image_check`, goes on from one call to the next. A filter keeps one pipeline open to the end.
        """

    def image_check(self, access: Access[Any]) -> ImageCheck | None:
        """Return the comparison of samples' pictures with those scanned; None where none is due or possible."""

    def access_check(self, access: Access[Any]) -> ImageCheck | None:
        """Return the comparison that is due when a sample is asked for; None where none is due or possible."""

    def require_used(self, counts: Mapping[str, int]) -> None:
        """Raise an error where nothing at all could be decided on, which is never what was meant.

        Parameters
        ----------
        counts : mapping of str to int
            ``seen`` and one count a reason.

        Raises
        ------
        RunError
            The run knows none of the samples, or none of their images.
        UsageError
            The filter could read none of the images.
        """


def decider_of(
    by: RunOrFilter,
    *,
    verify: bool | Literal["access"] = False,
    per_shard: PerShard = False,
    shards_named: bool = False,
    attested: AttestedBy = None,
) -> Decider:
    """Return the decider of a run or of a filter.

    Parameters
    ----------
    by : path, Run, Decisions, ShardedDecisions or SafetyFilter
        The user's choice.
    verify : bool or "access"
        Exclude a sample whose image is not the one that the run scored: when it is decided on, or only when it is
        asked for.
    per_shard : bool or "auto"
        Read the run's decisions shard by shard, by choice or where the whole would not fit into memory.
    shards_named : bool
        The access tells in which shard a sample lies.
    attested : path, URL, OfficerKey or None
        The officer's public key with which the run has to be attested, as of `require_attested`.

    Raises
    ------
    RunError
        The run can't be used, or is not attested where it has to be.
    UsageError
        `by` is something else, or a filter that can't decide here, or a filter is to verify; or decisions can't be
        read shard by shard.

    Examples
    --------
    >>> decider_of("no-such-run")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.RunError: no run at no-such-run; make one with `safetyfilter scan SOURCE --out no-such-run`
    """
    if isinstance(by, SafetyFilter):
        if verify:
            raise UsageError(
                "verify_content compares with a run, and a SafetyFilter scores every image anew; leave it out"
            )
        if attested is not None:
            raise UsageError("verify demands that a run is attested, and a SafetyFilter decides by none; leave it out")
        return FilterDecider(by)
    if isinstance(by, str | os.PathLike | Location):
        by = Run.open(by)
    if isinstance(by, Run):
        by = opened(by, per_shard, shards_named=shards_named)
    if not isinstance(by, Decisions | ShardedDecisions):
        raise UsageError(f"by is a {type(by).__name__}; give a run, its directory, or a SafetyFilter")
    if attested is not None:
        require_attested(by, attested)
    return RunDecider(by, verify=verify)
