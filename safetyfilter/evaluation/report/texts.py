"""Words of the report: the meaning of reasons, and data that can stand in a script."""

from __future__ import annotations

import json
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
        "known_hash": "the picture is on a list of known content",
        "near_excluded": "a near-duplicate of a sample that is excluded for co-occurrence",
        "unscored": "the sample could not be scored, and so nothing is known of it",
        "drifted": "the bytes are not those that were scored",
        "unknown": "the run whose decisions were applied does not have these bytes",
    }


def script_data(data: object) -> str:
    """Return JSON that can stand in a script element: nothing in it ends the element or begins another.

    >>> script_data({"name": "</script><!--"})
    '{"name":"\\\\u003c/script\\\\u003e\\\\u003c!--"}'
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
