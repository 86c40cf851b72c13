"""Applies a policy to a run's stored scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from safetyfilter.decide.policy import Policy
from safetyfilter.runs.decisions import index_of
from safetyfilter.runs.run import Run

Progress = Callable[[Mapping[str, int]], None]
"""Called with counts to add: ``seen``, ``kept``, ``excluded`` and ``unscored``."""


def apply_policy(run: Run, policy: Policy, *, progress: Progress | None = None) -> Run:
    """Apply a policy to a run's stored scores; no image is touched.

    Parameters
    ----------
    run : Run
        With all its parts scored.
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
    RunError
        A part has no scores; scan again.
    """
    policy = policy.for_pair(run.record.setup.pair)
    policy.require(run.record.setup.signals)
    metas = run.part_metas()  # a missing part is told before anything is changed
    run.write_record(replace(run.record, complete=False, counts={}))
    total: Counter[str] = Counter()
    for index in range(len(metas)):
        counts = run.decide_part(index, policy)
        total.update(counts)
        if progress:
            progress({name: counts[name] for name in ("seen", "kept", "excluded", "unscored")})
    run.finish(total, policy)
    index_of(run)  # now, so that no training job waits for it
    return run
