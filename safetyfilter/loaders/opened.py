"""A run's decisions as a stream of samples reads them: as a whole where memory holds them, else shard by shard."""

from __future__ import annotations

import logging
from typing import Literal, TypeAlias

from safetyfilter.errors import UsageError
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.index_place import index_fits
from safetyfilter.runs.run import Run
from safetyfilter.runs.sharded import ShardedDecisions

PerShard: TypeAlias = 'bool | Literal["auto"]'
"""True to read decisions shard by shard, False to read them as a whole, and ``"auto"`` to go by the memory there is."""

_log = logging.getLogger(__name__)


def opened(run: Run, per_shard: PerShard, *, shards_named: bool) -> Decisions | ShardedDecisions:
    """Return a run's decisions.

    Parameters
    ----------
    run : Run
        The run.
    per_shard : bool or "auto"
        The user's choice.
    shards_named : bool
        The loader is told in which shard a sample lies, where its key does not say so.

    Raises
    ------
    UsageError
        They are to be read shard by shard, and can't be.
    UnfinishedRunError, RunError
        The run can't be used.
    """
    if per_shard not in (True, False, "auto"):
        raise UsageError(f"per_shard is {per_shard!r}; give True, False or 'auto'")
    run.require_complete()
    if per_shard is False or (per_shard == "auto" and index_fits(run)):
        return Decisions.of(run)
    try:
        return _by_shard(run, shards_named)
    except UsageError as error:
        if per_shard is True:
            raise
        _log.warning("the decisions are read as a whole, which may be slow: they are larger than memory, and %s", error)
        return Decisions.of(run)


def _by_shard(run: Run, shards_named: bool) -> ShardedDecisions:
    decisions = ShardedDecisions.of(run)
    if not (shards_named or decisions.in_keys):
        raise UsageError(
            f"the keys of the run {run.path} do not tell in which shard a sample lies, so that its decisions can't be "
            "read shard by shard; say where a sample holds its shard's path with shard_of=, or leave out per_shard"
        )
    return decisions
