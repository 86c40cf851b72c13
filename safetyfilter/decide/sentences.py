"""Sentences about policies: what one excludes, that it hardly can, and how one differs from another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from safetyfilter.decide.fields import PolicyFields
from safetyfilter.decide.presets import LAION_PROBES, PRESETS
from safetyfilter.signals import SignalPair

if TYPE_CHECKING:
    from safetyfilter.decide.policy import Policy

HARDLY_REACHED = 0.99
"""A threshold of the pair from which on a policy is named as one whose rule can hardly exclude a sample.

Above 0.98, the highest cut that anybody is known to have filtered a training set at (`PRESETS`). Scores are
probabilities: a trained probe gives 0.99 to few of even the plainest positives, and 1 to next to none.
"""


def rule_warning(thresholds: Mapping[str, float], pair: SignalPair) -> str | None:
    """Return a sentence where the co-occurrence rule can hardly exclude a sample with these thresholds, else None.

    >>> rule_warning({"explicit": 0.5, "minor": 1.0}, SignalPair())[:69]
    'Hardly any score reaches the threshold of minor, 1.0: the co-occurren'
    >>> rule_warning({"explicit": 0.5, "minor": 0.98}, SignalPair()) is None
    True
    """
    high = [f"{signal}, {thresholds[signal]!r}" for signal in pair.names if thresholds[signal] >= HARDLY_REACHED]
    if not high:
        return None
    return (
        f"Hardly any score reaches the threshold of {' or of '.join(high)}: the co-occurrence rule may exclude next to "
        "nothing. Lower it, unless `safetyfilter calibrate` found it on labelled data."
    )


def cut_warning(name: str, probes: Iterable[str]) -> str | None:
    """Return a sentence where a preset's cut was published for LAION's detectors and none of them scored, else None.

    Parameters
    ----------
    name : str
        The policy as it was named: a preset, or a file's path.
    probes : iterable of str
        The digests of the probes that score.

    Examples
    --------
    >>> cut_warning("laion-0.5", probes=["ab" * 32])[:72]
    "The cut of laion-0.5 was published for LAION's detector, and other probe"
    >>> cut_warning("separate", probes=["ab" * 32]) is None
    True
    """
    if name not in PRESETS or not name.startswith("laion-") or set(probes) & set(LAION_PROBES.values()):
        return None
    return (
        f"The cut of {name} was published for LAION's detector, and other probes score here, on which it means "
        f"something else: scan with `--probes {next(iter(LAION_PROBES))}` besides a probe for the other signal, or "
        "choose thresholds of these probes' own."
    )


def policy_changes(before: PolicyFields, now: PolicyFields) -> list[str]:
    """Return a sentence for each threshold and each exclusion in which two policies differ, in full digits.

    >>> from safetyfilter.decide.fields import parse_policy
    >>> for change in policy_changes(parse_policy(""), parse_policy("[thresholds]\\nminor = 0.50001\\nother = 0.3")):
    ...     print(change)
    The threshold of minor was 0.5 and is now 0.50001. Higher, it excludes less.
    The threshold of other is new: 0.3.
    """
    were, are = before["thresholds"], now["thresholds"]
    changes = []
    for signal in dict.fromkeys([*are, *were]):
        if signal not in were:
            changes.append(f"The threshold of {signal} is new: {are[signal]!r}.")
        elif signal not in are:
            changes.append(f"The threshold of {signal} was {were[signal]!r} and is gone: its scores no longer count.")
        elif were[signal] != are[signal]:
            looser = " Higher, it excludes less." if are[signal] > were[signal] else ""
            changes.append(f"The threshold of {signal} was {were[signal]!r} and is now {are[signal]!r}.{looser}")
    for signal in sorted(before["exclude"] | now["exclude"]):
        was, is_now = _exclusion(before, signal), _exclusion(now, signal)
        if was != is_now:
            changes.append(f"Excluded for {signal} alone: was {was}, is now {is_now}.")
    return changes


def _exclusion(fields: PolicyFields, signal: str) -> str:
    if signal not in fields["exclude"]:
        return "no"
    cut = fields["exclude_at"].get(signal)
    return "yes" if cut is None else f"at {cut!r}"


def listed_thresholds(thresholds: Mapping[str, float]) -> str:
    """Return thresholds in one line, in full digits.

    >>> listed_thresholds({"explicit": 0.5, "minor": 0.25})
    'explicit 0.5, minor 0.25'
    """
    return ", ".join(f"{signal} {value!r}" for signal, value in thresholds.items())


def excluded_alone(policy: Policy) -> str:
    """Return the signals that alone exclude a sample, each with its cut; empty where none does."""
    cuts = {**policy.thresholds, **policy.exclude_at}
    return ", ".join(f"{signal} at {cuts[signal]!r}" for signal in sorted(policy.exclude))
