"""Tables and shares as the documentation has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, the first column to the left and all others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def short(share: float) -> str:
    """Return a share in percent, with as many digits as it has."""
    return f"{100 * share:g} %"


def percent(share: Mapping[str, float]) -> str:
    """Return a share in percent, with its interval."""
    return f"{100 * share['value']:.1f} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"
