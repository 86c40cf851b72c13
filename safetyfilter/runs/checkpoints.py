"""Checkpoints: the rows of a part in progress, so that a scan that is stopped loses a minute or two at most."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from safetyfilter.errors import OutputError, RunError
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.parts import read_scores, row_count, write_scores
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.stored import file_digest, holds
from safetyfilter.sealed.file import read_chunks, write_chunks
from safetyfilter.storage import Location, read_npy, replacing

INTERVAL_S = 60.0
"""Seconds between two checkpoints of a part."""
LEAST = 32
"""A checkpoint has at least so many samples: its rows lie in the order of the key digests, but of few rows even the
order of the numbers would say something to whoever holds the source."""
_PREFIX = ".unfinished-"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The files of a run that hold the first samples of parts in progress; can be sent to another process.

    Each is cumulative, replaced whole, and named by a keyed digest. It is removed when its part is recorded.

    Parameters
    ----------
    root : Location
        The run directory.
    run : str
        Digest of what every part of the run depends on.
    digester : Digester
        The run's.
    signals : tuple of str
        The signals scored.
    vectors, sealed : bool
        Embeddings, and sealed records, are kept too.
    interval_s : float
        Seconds between two checkpoints of a part.
    """

    root: Location
    run: str
    digester: Digester
    signals: tuple[str, ...]
    vectors: bool = False
    sealed: bool = False
    interval_s: float = INTERVAL_S

    def save(self, part: ScoredPart) -> None:
        """Keep what is scored of a part so far; where that can't be written, a warning says so, and no more is lost."""
        if len(part) < LEAST:
            return
        scores, embeddings, sealed = self._places(part.state)
        meta: dict[str, object] = {"fingerprint": self._fingerprint(part.state), "embeddings": None}
        try:
            if part.vectors is not None:
                (self.root / "embeddings").make_folder()
                with replacing(embeddings) as file:
                    np.save(file, part.vectors.astype(np.float16, copy=False))
                meta["embeddings"] = file_digest(embeddings)
            if part.sealed is not None:
                (self.root / "sealed").make_folder()
                meta["sealed"] = write_chunks(sealed, part.sealed_chunks)
            write_scores(part, scores, meta)
        except OutputError as error:
            _log.warning("what is scored of the part in progress can't be kept: %s", error)

    def load(self, index: int, state: str) -> ScoredPart | None:
        """Return what is kept of a part, with all that is kept beside scores; None where nothing of use is."""
        scores, embeddings, sealed = self._places(state)
        if not scores.is_file():
            return None
        try:
            part, meta = read_scores(scores, self.signals, index)
        except RunError:
            return None  # damaged: the part is done from its start
        if meta["fingerprint"] != self._fingerprint(state):
            return None
        vectors = None
        if self.vectors:
            if not (meta["embeddings"] and holds(embeddings, meta["embeddings"])):
                return None
            vectors = np.array(read_npy(embeddings))
        chunks: tuple[bytes, ...] = ()
        if self.sealed:
            if part.sealed is None or not (meta.get("sealed") and holds(sealed, meta["sealed"])):
                return None
            chunks = tuple(read_chunks(sealed))
        return replace(part, state=state, vectors=vectors, sealed_chunks=chunks)

    def remove(self, state: str) -> None:
        """Remove what is kept of a part."""
        for place in self._places(state):
            place.remove()

    def keep_only(self, states: Iterable[str]) -> None:
        """Remove what is kept of other parts than those of these states."""
        names = {place.name for state in states for place in self._places(state)}
        for folder in ("scores", "embeddings", "sealed"):
            for name in (self.root / folder).names():
                if name.startswith(_PREFIX) and name not in names:
                    (self.root / folder / name).remove()

    def samples(self) -> int:
        """Return the number of samples that are kept of parts in progress."""
        return samples_in_progress(self.root)

    def _fingerprint(self, state: str) -> str:
        return self.digester.text(f"unfinished\n{self.run}\n{state}")

    def _places(self, state: str) -> tuple[Location, Location, Location]:
        """The places of the scores, of the embeddings and of the sealed records."""
        name = f"{_PREFIX}{self._fingerprint(state)}"
        scores, embeddings, sealed = (self.root / folder for folder in ("scores", "embeddings", "sealed"))
        return scores / f"{name}.parquet", embeddings / f"{name}.npy", sealed / f"{name}.bin"


def samples_in_progress(root: Location) -> int:
    """Return the number of samples that a run keeps of parts in progress; one that can't be read keeps none."""
    count = 0
    for name in (root / "scores").names():
        if name.startswith(_PREFIX):
            with suppress(RunError):
                count += row_count(root / "scores" / name)
    return count
