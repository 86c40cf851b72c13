"""Reads a run's attestation, whose signature is checked before anything in it is believed."""

from __future__ import annotations

from typing import Any

from safetyfilter.attest.envelope import REMEDY, checked_payload
from safetyfilter.attest.statement import ATTESTATION_FILE, Statement
from safetyfilter.batches import Unreadable
from safetyfilter.errors import AttestationError, RunError
from safetyfilter.runs.held import refuse_links
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.storage import Location, Place, parse_json

_MOST_BYTES = 1 << 24
"""Of an attestation; ours have some ten thousand."""


def officer_key(key: Place | OfficerKey) -> OfficerKey:
    """Return an officer's public key, read from its file unless it is one already; errors as of `OfficerKey.load`."""
    return key if isinstance(key, OfficerKey) else OfficerKey.load(key)


def signed_statement(root: Location, key: OfficerKey) -> Statement:
    """Return what a run's attestation states, if it is signed with a key.

    Raises
    ------
    AttestationError
        There is none, or it can't be read, or it is not signed with this key alone.
    RunError
        There is a link in the run directory.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> signed_statement(Location.of("/no-such-run"), OfficerKey(sealing_key=bytes(32), verify_key=bytes(32)))
    Traceback (most recent call last):
        ...
    safetyfilter.errors.AttestationError: /no-such-run is not attested; run `safetyfilter attest /no-such-run --key ...
    """
    refuse_links(root)
    place = root / ATTESTATION_FILE
    try:
        content = place.read_bytes(_MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AttestationError(
            f"{root} is not attested; run `safetyfilter attest {root} --key FILE`, where the officer's key is"
        ) from error
    except (PermissionError, IsADirectoryError, Unreadable) as error:
        raise AttestationError(f"{place} can't be read ({error}); {REMEDY}") from error
    return Statement.read(checked_payload(content, key, place), place)


def present_fields(root: Location) -> dict[str, Any]:
    """Return the fields of a run's ``run.json`` as they are now.

    Raises
    ------
    RunError
        It is missing, or not an object of JSON.

    Examples
    --------
    >>> present_fields(Location.of("/no-such-run"))
    Traceback (most recent call last):
        ...
    safetyfilter.errors.RunError: no run at /no-such-run; make one with `safetyfilter scan SOURCE --out /no-such-run`
    """
    place = root / "run.json"
    try:
        text = place.read_text()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(f"no run at {root}; make one with `safetyfilter scan SOURCE --out {root}`") from error
    except (PermissionError, IsADirectoryError, UnicodeDecodeError, Unreadable) as error:
        raise RunError(f"can't read {place}: {error}; restore it, or scan into a new directory") from error
    try:
        data = parse_json(text)
    except ValueError as error:
        raise RunError(f"{place} is not JSON ({error}); restore it, or scan into a new directory") from error
    if not isinstance(data, dict):
        raise RunError(f"{place} is not an object of JSON; restore it, or scan into a new directory")
    return data
