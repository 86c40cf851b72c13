"""Reads the record of a run that is there."""

from __future__ import annotations

from safetyfilter.batches import Unreadable
from safetyfilter.errors import RunError
from safetyfilter.runs.held import refuse_links
from safetyfilter.runs.record import RunRecord
from safetyfilter.storage import Location, Place


def read_record(path: Location, called: Place) -> RunRecord:
    """Return the content of a run's ``run.json``.

    Parameters
    ----------
    path : Location
        The run directory.
    called : path or URL
        As the user named it, for the errors.

    Raises
    ------
    RunError
        There is no run, its ``run.json`` is damaged, or there is a link in it.
    SchemaError
        It was written by another version of the schema.

    Examples
    --------
    >>> read_record(Location.of("/no-such-run"), "no-such-run")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.RunError: no run at no-such-run; make one with `safetyfilter scan SOURCE --out no-such-run`
    """
    refuse_links(path)
    place = path / "run.json"
    try:
        text = place.read_text()
    except (FileNotFoundError, NotADirectoryError) as error:
        name = called if path.is_local else path
        raise RunError(f"no run at {name}; make one with `safetyfilter scan SOURCE --out {name}`") from error
    except (PermissionError, IsADirectoryError, UnicodeDecodeError, Unreadable) as error:
        raise RunError(f"can't read {place}: {error}; restore it, or scan into a new directory") from error
    return RunRecord.from_json(text, place)
