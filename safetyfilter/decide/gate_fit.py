"""The fit of a policy to the gate of adaptive views: signals that one decides by and the other may have passed over.

A gate looks closer at a picture where a signal is not clearly absent from the whole of it. What it holds for clearly
absent and what a policy holds for present are two settings, and of a run's stored scores the policy may change later.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache

import numpy as np

from safetyfilter.decide.policy import Policy
from safetyfilter.score.gate import Gate

_log = logging.getLogger(__name__)


def gate_misfits(policy: Policy, gate: Gate | None) -> list[str]:
    """Return a sentence for each way in which a policy decides by what a gate may not have looked for in the crops.

    Parameters
    ----------
    policy : Policy
        In the names of the gate's pair.
    gate : Gate or None
        Of adaptive views; nothing is said of others.

    Examples
    --------
    >>> gate = Gate(floors={"explicit": 0.2, "minor": 0.1})
    >>> gate_misfits(Policy(), gate)
    []
    >>> gate_misfits(Policy(thresholds={"explicit": 0.1, "minor": 0.1}), gate)
    ["the gate's floor for 'explicit' is 0.2, above the policy's threshold of 0.1: a picture that scores between the \
two as a whole has the signal, and its crops were not looked at for the other one; scan with a floor of at most 0.1 \
(--gate)"]
    """
    return [] if gate is None else list(_misfits(policy, gate))


def warn_of_gate(policy: Policy, gate: Gate | None) -> None:
    """Tell of `gate_misfits` in the log, of each once a process."""
    for sentence in gate_misfits(policy, gate):
        _warn(sentence)


@cache
def _warn(sentence: str) -> None:
    _log.warning("%s", sentence)


def _misfits(policy: Policy, gate: Gate) -> Iterator[str]:
    for signal, floor in gate.floors.items():
        threshold = policy.thresholds.get(signal)
        if threshold is not None and np.float32(floor) > np.float32(threshold):  # as scores are compared with both
            yield (
                f"the gate's floor for {signal!r} is {floor:g}, above the policy's threshold of {threshold:g}: a "
                "picture that scores between the two as a whole has the signal, and its crops were not looked at for "
                f"the other one; scan with a floor of at most {threshold:g} (--gate)"
            )
    excluding = sorted(policy.exclude)
    if further := [signal for signal in excluding if signal not in gate.floors]:
        yield (
            f"the policy excludes by {_named(further)}, and the gate has no floor for that: it is found in the whole "
            "picture, and in crops only of pictures that were looked at closer for other signals; scan with a floor "
            "for it too (--gate)"
        )
    if gate.when == "both" and (alone := [signal for signal in excluding if signal in gate.floors]):
        yield (
            f"the policy excludes by {_named(alone)} alone, and the gate looks closer only where no signal is clearly "
            "absent: what only crops show of one signal by itself is not found; scan with either: in the place of "
            "both: (--gate)"
        )


def _named(signals: list[str]) -> str:
    return " and ".join(map(repr, signals))
