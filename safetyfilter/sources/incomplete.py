"""Exports that are not whole, which are no sources: they bear a marker until their last file is there."""

from __future__ import annotations

from safetyfilter.errors import SourceError
from safetyfilter.sources.files import Listing

INCOMPLETE = "_INCOMPLETE"
"""The file that lies beside those of an export on object storage until all are there.

Each export has another beside it with a random number in its name, by which two in one place are told apart."""


def is_marker(name: str) -> bool:
    """Return True for the path of such a file.

    >>> is_marker("_INCOMPLETE"), is_marker("clean/_INCOMPLETE-0f3a"), is_marker("_INCOMPLETE/a.jpg")
    (True, True, False)
    """
    return name.rpartition("/")[2].partition("-")[0] == INCOMPLETE


def require_whole(listing: Listing) -> None:
    """Raise `SourceError` for files that lie beside such a marker, also where a pattern leaves that out."""
    if any(map(is_marker, listing.names)) or (not listing.is_folder and (listing.base / INCOMPLETE).is_file()):
        raise SourceError(
            f"{listing.location} holds an export that was not finished, or one in progress, and is no complete data "
            f"set; wait for it, or remove it and export again (it is marked by {INCOMPLETE})"
        )
