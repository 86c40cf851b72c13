"""Data that can stand in a script of the report."""

from __future__ import annotations

import json


def script_data(data: object) -> str:
    """Return JSON that can stand in a script element: nothing in it ends the element or begins another.

    >>> script_data({"name": "</script><!--"})
    '{"name":"\\\\u003c/script\\\\u003e\\\\u003c!--"}'
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
