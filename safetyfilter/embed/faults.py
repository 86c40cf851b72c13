"""Faults of the library's own or of a decoder, as they may be told: without their words, which may quote a sample."""

from __future__ import annotations

import traceback


def where(error: BaseException) -> str:
    """Return the type of an error and its traceback, but not its words: they may tell what a sample holds.

    >>> where(ValueError("secret"))
    'ValueError\\n'
    """
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
