"""Scores, policies and labels to count on a plane."""

from collections.abc import Iterable

import numpy as np
from hypothesis import strategies as st

from safetyfilter.batches import STATUS_CODES, Reason, ScoreBatch
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.presets import PRESETS
from safetyfilter.evaluation.grid import PLAIN
from safetyfilter.signals import PAIR

SIGNALS = (*PAIR.names, "other")
OWN = (Reason.KNOWN_HASH, Reason.DRIFTED, Reason.NEAR_EXCLUDED, Reason.UNSCORED, Reason.UNKNOWN)
"""Reasons that a run may have on record beyond a policy's."""

seeds = st.integers(0, 2**32)
shares = st.floats(0, 1) | st.floats(0, 1, width=32) | st.sampled_from(PLAIN)


@st.composite
def policies(draw: st.DrawFn, cuts: Iterable[float] | None = None, other: bool | None = None) -> Policy:
    """Policies of the real pair, some with a third signal; thresholds and cuts of the pair from `cuts` where given."""
    from_cuts = shares if cuts is None else st.sampled_from(list(cuts))
    thresholds = {signal: draw(from_cuts) for signal in PAIR.names}
    exclude = draw(st.sets(st.sampled_from(PAIR.names)))
    exclude_at = draw(st.dictionaries(st.sampled_from(PAIR.names), from_cuts))
    if draw(st.booleans()) if other is None else other:
        thresholds["other"] = 0.5
        exclude |= {"other"}
    if draw(st.booleans()):
        preset = Policy.preset(draw(st.sampled_from(list(PRESETS))))
        exclude, exclude_at = exclude - set(PAIR.names) | preset.exclude, dict(preset.exclude_at)
    return Policy(thresholds=thresholds, exclude=exclude, exclude_at=exclude_at)


def batch(cuts: Iterable[float], seed: int, *, statuses: bool = True) -> ScoreBatch:
    """Some scores at cuts, one float32 step below and above them, 0, 1, NaN, infinite, and any others."""
    rng, at = np.random.default_rng(seed), np.float32(list(cuts))
    near = [at, np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(1)), rng.random(9, np.float32)]
    values = rng.choice(np.concatenate([*near, np.float32([0, 1, np.nan, np.inf])]), (rng.integers(200), 3))
    names = rng.choice(["ok"] * 9 + ["truncated", "unknown"] if statuses else ["ok"], len(values))
    status = np.array([STATUS_CODES[name] for name in names.tolist()], np.uint8)
    return ScoreBatch(values=values, signals=SIGNALS, status=status)


def cuts_of(*tried: Policy) -> list[float]:
    """The thresholds and cuts of policies, and a few plain ones."""
    return [*(cut for each in tried for cut in (*each.thresholds.values(), *each.exclude_at.values())), 0.1, 0.5, 0.98]
