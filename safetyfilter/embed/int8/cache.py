"""The user's cache of image towers in int8: written once, and read by every process and every scan that goes on.

A file has the name of its content's digest. Beside it lies, for what it was made of, a note that names it. Whoever
could write to the cache could put another model there: it is used only where nobody else can.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from safetyfilter.embed.int8.quantised import QuantisedTower
from safetyfilter.errors import OutputError, WeightsError
from safetyfilter.storage import cache_folder, parse_json
from safetyfilter.storage.allocation import is_full
from safetyfilter.storage.own_files import read_own, require_own, write_own

_OWN = "chmod go-w, and no link in its place"
_log = logging.getLogger(__name__)


def quantised_folder() -> Path:
    """Return the folder that quantised towers are kept in; `OutputError` where the cache is no folder here."""
    return cache_folder() / "int8"


def kept_tower(digest: str) -> QuantisedTower:
    """Return a tower by its digest.

    Raises
    ------
    WeightsError
        It is not in the cache of this user on this machine, or damaged there, or others may have changed it.
    """
    folder, name = quantised_folder(), f"{digest}.safetensors"
    place = folder / name
    try:
        content = read_own(folder, name, place.stat().st_size) if place.is_file() else None
    except OSError as error:
        raise WeightsError(
            f"can't read the quantised model {digest[:12]} in {folder}: {error.strerror or error}; make the folder and "
            f"the file this user's own ({_OWN}), or quantise again"
        ) from error
    if content is None:
        raise WeightsError(
            f"the quantised model {digest[:12]} is not in {folder}; copy {name} to it from where the encoder was "
            "quantised, or quantise again"
        )
    tower = QuantisedTower.from_bytes(content, place)
    if tower.digest != digest:
        raise WeightsError(f"{place} is another quantised model than its name says; remove it, and quantise again")
    return tower


def tower_made_of(key: str) -> QuantisedTower | None:
    """Return the tower that was kept under a key; None where there is none that can be trusted."""
    try:
        note = read_own(quantised_folder(), f"{key}.json", 1 << 10)
        return None if note is None else kept_tower(str(parse_json(note)["digest"]))
    except (OSError, LookupError, TypeError, ValueError) as error:
        _log.info("the encoder is quantised anew: %s", error)
        return None


def require_writable() -> None:
    """Raise `OutputError` where nothing can be kept, before anything is made to be kept."""
    try:
        require_own(quantised_folder())
    except OSError as error:
        raise _unkept(error) from error


def keep_tower(tower: QuantisedTower, key: str) -> None:
    """Keep a tower, under its digest and the key of what it was made of; `OutputError` where nothing can be written."""
    folder = quantised_folder()
    try:
        write_own(folder, f"{tower.digest}.safetensors", tower.to_bytes())
        write_own(folder, f"{key}.json", json.dumps({"digest": tower.digest}).encode())  # of a file that is there
    except OSError as error:
        raise _unkept(error) from error


def _unkept(error: OSError) -> OutputError:
    remedy = "make room" if is_full(error) else f"make the folder this user's own ({_OWN})"
    return OutputError(
        f"can't keep the quantised model in {quantised_folder()}: {error.strerror or error}; {remedy}, or name another "
        "cache by XDG_CACHE_HOME"
    )
