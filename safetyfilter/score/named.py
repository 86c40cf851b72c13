"""Finds a probe file by its path, or by the name of a published detector in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from safetyfilter.errors import ProbeError
from safetyfilter.storage import Location, cache_folder, local_path

NAMES: tuple[str, ...] = ("laion-l14", "laion-b32", "laion-h14")
"""The published detectors that ``safetyfilter probes fetch`` knows."""


def cached_probe_file(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of a detector's probe file in a folder, the user's cache where None; OutputError for a URL.

    >>> str(cached_probe_file("laion-l14", "probes"))
    'probes/laion-l14.safetensors'
    """
    return (cache_folder() if folder is None else local_path(folder, "a detector's probe file")) / f"{name}.safetensors"


def probe_file(path_or_name: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the file that a path or the name of a published detector stands for.

    Raises
    ------
    ProbeError
        There is no such file, or the named detector was not fetched yet.

    Examples
    --------
    >>> probe_file("nowhere.safetensors")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.ProbeError: there is no probe file at nowhere.safetensors, and no published detector of that \
name (laion-l14, laion-b32, laion-h14); make a file with `safetyfilter train` or ProbeBank.save
    """
    if os.fspath(path_or_name) in NAMES:
        path = cached_probe_file(os.fspath(path_or_name))
        if not path.is_file():
            raise ProbeError(
                f"{path_or_name} is not at {path}; run `safetyfilter probes fetch {path_or_name}` where there is a "
                "network, or `safetyfilter probes convert` on LAION's file"
            )
        return path
    try:
        there = Location.of(path_or_name).is_file()
    except PermissionError as error:
        raise ProbeError(
            f"can't read the probes in {path_or_name}: {error.strerror or error}; make it readable"
        ) from error
    if not there:
        raise ProbeError(
            f"there is no probe file at {path_or_name}, and no published detector of that name ({', '.join(NAMES)}); "
            "make a file with `safetyfilter train` or ProbeBank.save"
        )
    return path_or_name
