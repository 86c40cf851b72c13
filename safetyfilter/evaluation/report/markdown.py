"""Markdown whose values can't become markup: text from data stands in code spans, sentences of others are escaped."""

from __future__ import annotations

import re

from safetyfilter.html_table import one_line

_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&$!@]|:(?=\S)|(?<=[wW])\.")
"""Marks that may begin markup, HTML, an entity, a formula or a link, within a line."""


def code(text: str) -> str:
    r"""Return a code span that shows a text as it is, and nothing else.

    >>> print(code("minor"), code("a `b` <i>"))
    `minor` `` a `b` <i> ``
    """
    line = one_line(text) or " "
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    # Renderers take one space off each end of a span, unless it holds nothing else.
    pad = " " if longest or (line.startswith(" ") and line.strip()) or (line.endswith(" ") and line.strip()) else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def escaped(text: str) -> str:
    r"""Return a text, within a line, of which nothing is markup; space at its ends is left out.

    >>> print(escaped("Digits stand in: <b> is *not* www.example or http://x"))
    Digits stand in: \<b\> is \*not\* www\.example or http\://x
    """
    return _MARKUP.sub(lambda found: f"\\{found[0]}", one_line(text).strip())
