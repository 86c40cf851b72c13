"""Files that are read together: each is what it was when the source was opened, or they don't belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from safetyfilter.errors import StorageError
from safetyfilter.sources.listed import state_digest
from safetyfilter.storage import Location, entry_of


class Unchanged:
    """Holds files against what they were.

    Rows of an array and their keys are in two files, and headers are read long before rows: were one of them replaced
    meanwhile, rows would be taken for those of other samples.

    Parameters
    ----------
    states : mapping of str to bytes
        Digests of the states of files by their paths, as they were listed. A file that is not among them is held
        against the first look at it.
    """

    def __init__(self, states: Mapping[str, bytes]) -> None:
        self._states = dict(states)

    @contextmanager
    def during(self, places: Sequence[Location]) -> Iterator[None]:
        """Have files read meanwhile, and look at them before and behind; also at an error, which may come of that.

        Raises
        ------
        StorageError
            One of them changed, as far as its storage tells, or is gone; or the storage failed each time.
        """
        self.require(places)
        try:
            yield
        except Exception as error:
            try:
                self.require(places)
            except StorageError as changed:
                raise changed from error
            raise
        self.require(places)

    def require(self, places: Sequence[Location]) -> None:
        """Return if each file is what it was; `StorageError` as of `during`."""
        for place in places:
            place.forget_listing()
            entry = entry_of(place)
            if entry is None:
                raise _changed(place, "is no longer there")
            if entry.tells:
                now = state_digest(entry)
                if self._states.setdefault(place.path, now) != now:
                    raise _changed(place, "changed")


def _changed(place: Location, what: str) -> StorageError:
    return StorageError(
        f"{place} {what} since the source was opened; once nothing writes to it any more, run the same command again"
    )
