"""The protocol of targets: what is given to a reader, and what must hold of what it makes of it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Protocol

from fuzzing.mutations import Mutant


class PassedError(AssertionError):
    """A file was read without a word though what came of it is not what it holds."""


class Target(Protocol):
    """A reader, with the files that it is given.

    Attributes
    ----------
    name : str
        Its name on the command line and in the results.
    memory_mb : int
        The most that one case may add to the memory that the process held at most, in MB.
    cpu_s : float
        The most processor time of one case, in seconds.
    seeds : list of bytes
        The files that are mutated, each of which is accepted as it is.
    """

    name: str
    memory_mb: int
    cpu_s: float
    seeds: list[bytes]

    def prepare(self, folder: Path) -> None:
        """Make the files that are mutated; `folder` is the process's own, and empty."""

    def mutant(self, rng: random.Random) -> Mutant:
        """Return the next file."""

    def check(self, mutant: Mutant) -> bool:
        """Read it: True where it is accepted, False where the reader refuses it as it is documented to.

        Raises
        ------
        PassedError
            It passed though it may not.
        Exception
            Any error that is not documented.
        """


def require(holds: bool, what: str) -> None:
    """Raise `PassedError` where something does not hold."""
    if not holds:
        raise PassedError(what)
