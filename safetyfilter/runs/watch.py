"""Tells whether a run was decided anew since its decisions were opened; costs next to nothing."""

from __future__ import annotations

import time

from safetyfilter.errors import RunError
from safetyfilter.runs.run import Run
from safetyfilter.storage import Location, entry_of

PAUSE_S = 2.0
"""Seconds between two looks at a run on other storage than this machine's, where each is a request."""


class Watch:
    """Looks at a run's record from time to time.

    Parameters
    ----------
    run : Location
        The run directory.
    decided : str
        `RunRecord.decisions_digest` of the decisions that were opened.
    """

    def __init__(self, run: Location, decided: str) -> None:
        self.run, self.decided = run, decided
        self._seen: str | None = None
        self._looked = -PAUSE_S

    def require_current(self, *, now: bool = False) -> None:
        """Raise `RunError` where the run was decided anew, or is being so, since its decisions were opened.

        Where ``run.json`` is the same file as at the last call, that is all that is looked at. On this machine that
        takes a few microseconds; on other storage it is a request, and made at most every two seconds.

        Parameters
        ----------
        now : bool
            Make the request in any case: at the start of a pass.

        Raises
        ------
        RunError
            The run has other decisions now, or can't be read.
        StorageError
            The storage failed each time it was asked.
        """
        place = self.run / "run.json"
        if not place.is_local:
            at = time.monotonic()
            if not now and at - self._looked < PAUSE_S:
                return
            place.fs.invalidate_cache(self.run.path)  # a listing that fsspec keeps says nothing about what is there now
            self._looked = at
        found = entry_of(place)
        if found is None or found.size is None:
            raise RunError(f"can't read {place}: it is not there; restore the run")
        if found.state == self._seen:
            return
        record = Run.open(self.run).record
        if not record.complete or record.decisions_digest != self.decided:
            raise RunError(changed(self.run))
        self._seen = found.state


def changed(run: Location) -> str:
    """Return what is said of decisions that are not the run's any more.

    >>> changed(Location.of("/runs/first"))
    'the decisions of /runs/first have changed since this loader was made; make the loader again'
    """
    return f"the decisions of {run} have changed since this loader was made; make the loader again"
