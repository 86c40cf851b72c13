"""Applies a policy to a run's stored scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import UnfinishedRunError, UsageError
from safetyfilter.runs.indexed import index_of
from safetyfilter.runs.record import COUNT_NAMES
from safetyfilter.runs.run import Run, require_run
from safetyfilter.runs.stored import digest_of, part_metas

Progress = Callable[[Mapping[str, int]], None]
"""Called with counts to add: ``seen``, ``kept``, ``excluded`` and ``unscored``."""


def apply_policy(run: Run, policy: Policy, *, progress: Progress | None = None) -> Run:
    """Apply a policy to a run's stored scores; no image is touched.

    Parameters
    ----------
    run : Run
        With all its parts scored by a scan that came to its end.
    policy : Policy
        In the real signals' names, or in the run's own.
    progress : callable or None
        Called after each part.

    Returns
    -------
    Run
        The same run, decided anew.

    Raises
    ------
    PolicyError
        The policy names a signal that the run has no scores of.
    UnfinishedRunError
        The scan is not finished.
    RunError
        A part is missing or not of this run, or another process is writing it.
    """
    require_run(run)
    if not isinstance(policy, Policy):
        raise UsageError(f"{policy!r} is not a Policy; load it with Policy.load")
    with run.writing():
        run.record = Run.open(run.path).record  # another process may have decided since
        run.trust_decisions(run.record)
        return decide_parts(run, policy, progress=progress)


def decide_parts(run: Run, policy: Policy, *, progress: Progress | None = None) -> Run:
    """Decide on all parts of a run that is held for writing; arguments and errors as of `apply_policy`."""
    policy = policy.for_pair(run.record.setup.pair)
    policy.require(run.record.setup.signals)
    if not run.record.scores:
        raise UnfinishedRunError(
            f"the scan of {run.path} is not finished, and some of its scores may be of another time; run the same scan "
            "again, which does only what is missing"
        )
    part_metas(run.path, run.record)  # a missing or foreign part is told before anything is changed
    run.write_record(replace(run.record, complete=False, decisions="", counts={}))
    total: Counter[str] = Counter(dict.fromkeys(COUNT_NAMES, 0))
    contents = []
    for number in range(run.part_count):
        decided = run.decide_part(number, policy)
        contents.append(decided.content)
        total.update(decided.counts)
        if progress:
            progress({name: decided.counts[name] for name in ("seen", "kept", "excluded", "unscored")})
    run.finish(total, policy, digest_of(contents))
    index_of(run)  # now, so that no training job waits for it
    return run
