"""The meaning of each reason for which a sample is excluded, in words."""

from __future__ import annotations

from collections.abc import Mapping

from safetyfilter.signals import SignalPair


def reason_meanings(pair: SignalPair) -> Mapping[str, str]:
    """Return the meaning of each reason, in the names of a pair.

    >>> reason_meanings(SignalPair())["co_occurrence"]
    'explicit and minor are both present'
    """
    return {
        "co_occurrence": f"{pair.explicit} and {pair.minor} are both present",
        "explicit": f"{pair.explicit} is present, and the policy excludes it by itself",
        "minor": f"{pair.minor} is present, and the policy excludes it by itself",
        "other_signal": "a further signal is present that the policy excludes by itself",
        "known_hash": "the picture's bytes, its looks (PDQ) or its URL are on a list of known content",
        "near_excluded": "a near-duplicate of a sample that is excluded for co-occurrence",
        "unscored": "the sample could not be scored, and so nothing is known of it",
        "drifted": "the bytes are not those that were scored",
        "unknown": "the run whose decisions were applied does not have these bytes",
    }
