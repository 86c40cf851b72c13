"""A policy and a calibration as small tables for a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from safetyfilter.decide.sentences import excluded_alone, listed_thresholds
from safetyfilter.html_table import figure_text, html_notes, html_table

if TYPE_CHECKING:
    from safetyfilter.decide.calibration import Calibration
    from safetyfilter.decide.calibration_record import CalibrationRecord
    from safetyfilter.decide.policy import Policy


def policy_html(policy: Policy) -> str:
    """Return a policy's thresholds, exclusions and rule, where its thresholds come from, and its warning.

    >>> from safetyfilter.decide.policy import Policy
    >>> "explicit 0.5, minor 0.5" in policy_html(Policy())
    True
    """
    notes = html_notes([policy.pair.notice, policy.warning])
    return notes + html_table("Policy", policy_facts(policy))


def policy_facts(policy: Policy) -> list[tuple[str, str]]:
    """Return a policy in words, each with a name.

    >>> from safetyfilter.decide.policy import Policy
    >>> for name, words in policy_facts(Policy.preset("laion-0.98")):
    ...     print(f"{name}: {words}")
    thresholds: explicit 0.5, minor 0.5
    rule: a sample is excluded where explicit and minor are both at their thresholds or above, or where it has no score
    excluded alone: explicit at 0.98
    """
    first, second = policy.pair.names
    return [
        ("thresholds", listed_thresholds(policy.thresholds)),
        (
            "rule",
            f"a sample is excluded where {first} and {second} are both at their thresholds or above, or where it has "
            "no score",
        ),
        ("excluded alone", excluded_alone(policy) or "none: the rule only"),
        *([("calibrated", _calibrated(policy, policy.calibration))] if policy.calibration else []),
    ]


def _calibrated(policy: Policy, record: CalibrationRecord) -> str:
    """The calibration that a policy states, and which of its thresholds are others by now."""
    other = [
        f"{one.signal} (calibrated: {one.threshold!r})"
        for one in record.signals
        if policy.thresholds.get(one.signal) != one.threshold
    ]
    stated = (
        f"stated: on {record.calibrated} by version {record.version}, for a miss rate {_of(record.for_rule)} of "
        f"{figure_text(record.max_miss_rate)} at the most, with a confidence of {figure_text(record.confidence)}"
    )
    return f"{stated}; other thresholds are in use for {', '.join(other)}" if other else stated


def calibration_html(calibration: Calibration) -> str:
    """Return the thresholds that a calibration found, what they rest on and what they cost."""
    asked = (
        f"Calibration: a miss rate {_of(calibration.for_rule)} of {figure_text(calibration.max_miss_rate)} at the "
        f"most, with a confidence of {figure_text(calibration.confidence)}"
    )
    columns = ("signal", "threshold", "positives", "missed", "miss rate at most", "negatives", "of these excluded")
    grouped = any(one.group is not None for one in calibration.signals)
    return html_notes([calibration.pair.notice]) + html_table(
        asked, _rows(calibration, grouped), columns=(*columns, "unscored positives", *(["set by group"] * grouped))
    )


def _rows(calibration: Calibration, grouped: bool) -> Iterator[tuple[str, ...]]:
    for one in calibration.signals:
        counts = (one.negatives, one.excluded_negatives, one.unscored)
        yield (
            one.signal,
            repr(one.threshold),
            *(figure_text(count, ",") for count in (one.positives, one.misses)),
            figure_text(one.upper_bound),
            *(figure_text(count, ",") for count in counts),
            *([figure_text(one.group)] * grouped),
        )
    if (bound := calibration.rule_upper_bound) is not None:
        yield ("rule", "", "", "", figure_text(bound), "", "", "", *([""] * grouped))


def _of(for_rule: bool) -> str:
    return "of the rule" if for_rule else "of each signal by itself"
