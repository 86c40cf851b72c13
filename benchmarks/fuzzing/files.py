"""What targets that read a file share: the file's place, the seeds, and what counts as a refusal."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from fuzzing.mutations import Mutant, Structure, mutant
from safetyfilter.errors import SafetyFilterError, StorageError
from safetyfilter.storage import retries


@dataclass(slots=True, kw_only=True)
class FileTarget:
    """A reader of one file, which is written anew for each case.

    Attributes
    ----------
    name : str
        The target's.
    file : str
        The file's name below the process's folder.
    structure : Structure or None
        The pieces of its format.
    """

    name: str
    file: str
    structure: Structure | None = None
    memory_mb: int = 64
    cpu_s: float = 10.0
    seeds: list[bytes] = field(default_factory=list)
    folder: Path = Path()

    def prepare(self, folder: Path) -> None:
        """Make the files that are mutated."""
        # a file that can't be read must not pass for storage that failed; if it did, without a long wait
        retries.FIRST_WAIT_S = 0.0
        self.folder = folder
        self.place.parent.mkdir(parents=True, exist_ok=True)
        self.seeds = self.make()

    @property
    def place(self) -> Path:
        """The file's path."""
        return self.folder / self.file

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        raise NotImplementedError

    def read(self, mutant: Mutant) -> None:
        """Read the file at `place`, and hold what comes of it against what must be."""
        raise NotImplementedError

    def mutant(self, rng: random.Random) -> Mutant:
        """Return the next file."""
        return mutant(self.seeds, self.structure, rng)

    def check(self, mutant: Mutant) -> bool:
        """Write the file and read it; errors of the library refuse it, but that storage failed is not one of them."""
        self.place.write_bytes(mutant.data)
        try:
            self.read(mutant)
        except StorageError as error:
            raise RuntimeError("a damaged file passes for storage that failed") from error
        except SafetyFilterError:
            return False
        return True
