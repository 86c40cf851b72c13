"""Commands that their user ends, with what became of their work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetyfilter.errors import SafetyFilterError


class Interrupted(SafetyFilterError):  # noqa: N818 - what the user asked for
    """A command that the user ended, with what became of its work."""

    exit_status = 130


@contextmanager
def resumable() -> Iterator[None]:
    """Tell of an interruption how to go on; the log has told how much is kept."""
    try:
        yield
    except KeyboardInterrupt as interrupted:
        raise Interrupted(
            "interrupted; finished parts are kept, and the same command goes on from there"
        ) from interrupted
