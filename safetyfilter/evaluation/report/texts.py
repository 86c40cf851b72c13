"""Words and numbers of the report: names from data made harmless, shares in plain digits, the meaning of reasons."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping

from safetyfilter.signals import SignalPair

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that show as nothing, or change how others show: controls, directions, surrogates."""


def visible(text: str) -> str:
    r"""Return a text whose hidden characters are written as escapes, which TOML and JSON read back; lines stay lines.

    Directions could make a name read as another one, a lone surrogate can't be written to a file at all.

    >>> visible("a\u202eb\0\n") == "a\\u202eb\\u0000\n"
    True
    """
    return "".join(_escape(mark) if unicodedata.category(mark) in _HIDDEN else mark for mark in text)


def _escape(mark: str) -> str:
    if mark in "\n\t":
        return mark
    code = ord(mark)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def share_text(count: int, total: int) -> str:
    """Return a share in percent, with one digit after the point; never 0 or 100 for what only comes near.

    >>> share_text(1, 3), share_text(1, 10**9), share_text(10**9 - 1, 10**9), share_text(0, 3), share_text(0, 0)
    ('33.3 %', '< 0.1 %', '> 99.9 %', '0 %', '-')
    """
    if not total:
        return "-"
    if count in (0, total):
        return "0 %" if count == 0 else "100 %"
    tenths = (2000 * count + total) // (2 * total)  # in whole numbers, so that the page's script rounds alike
    if tenths < 1:
        return "< 0.1 %"
    return "> 99.9 %" if tenths > 999 else f"{tenths // 10}.{tenths % 10} %"


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
