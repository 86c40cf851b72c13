"""The run's secret, without which a run directory's digests can't be tied to any sample."""

from __future__ import annotations

import glob
import os
import secrets
from contextlib import suppress
from pathlib import Path

from safetyfilter.batches import Unreadable
from safetyfilter.errors import OutputError, SecretError, StorageError
from safetyfilter.runs.digests import Digester
from safetyfilter.storage import Location, create_private

VARIABLE = "SAFETYFILTER_SECRET"
_BYTES = 32


def secret_place(run: Location) -> Location:
    """Return the place of a run's secret: beside the run, never in it, so that the run can be passed on without it.

    >>> str(secret_place(Location.of("/runs/first")))
    '/runs/first.secret'
    """
    return run.folder / f"{run.name}.secret"


def create_secret(run: Location, given: Digester | None = None) -> Digester:
    """Return the secret of a new run: from the environment, else the file beside it, made where missing.

    On a local disk it is its owner's alone (mode 0600), on other storage whoever may read that may read it. The run
    must be held for writing. The file appears whole or not at all, and once only: of two processes that make it at
    once both take the one that is there. What a process that was killed has left of it is removed.

    Parameters
    ----------
    run : Location
        The run.
    given : Digester or None
        The secret that it is to have, another run's; a random one where None.

    Raises
    ------
    SecretError
        The secret that is there already can't be read, or is not the one given.
    OutputError
        It can't be written.
    """
    _make_secret(run, _text_of(secrets.token_bytes(_BYTES) if given is None else given.secret))
    found = read_secret(run)
    if given is not None and found != given:
        raise SecretError(
            f"the new run {run} is to have the secret of another run, and {secret_origin(run)} holds a third; remove "
            "that one if no run needs it, or give another place for the run"
        )
    return found


def _make_secret(run: Location, content: bytes) -> None:
    """Write the secret of a new run, unless there is one."""
    place = secret_place(run)
    if place.is_local:
        path = Path(place)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if left.is_symlink() or not left.is_dir():  # a folder is nobody's half-written secret
                left.unlink()
    if os.environ.get(VARIABLE):
        return
    try:
        with suppress(FileExistsError):
            create_private(place, content)
    except StorageError:
        raise
    except OSError as error:
        raise OutputError(
            f"can't write the secret {place}: {error.strerror or error}; choose a writable place, or set {VARIABLE}"
        ) from error


def _text_of(secret: bytes) -> bytes:
    return f"{secret.hex()}\n".encode("ascii")


def secret_origin(run: Location) -> str:
    """Return where a run's secret is taken from, in words: the environment variable goes before the file.

    >>> secret_origin(Location.of("/runs/first"))
    '/runs/first.secret'
    """
    if os.environ.get(VARIABLE):
        return f"the variable {VARIABLE} (unset it to use {secret_place(run)})"
    return str(secret_place(run))


def read_secret(run: Location) -> Digester:
    """Return the secret of a run: hexadecimal, from the environment variable, else from the file beside it.

    Raises
    ------
    SecretError
        It is missing, unreadable, not a file, or not a hexadecimal number of 16 to 64 bytes.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        try:
            text = secret_place(run).read_bytes(1024).decode("ascii")
        except (FileNotFoundError, NotADirectoryError, PermissionError, UnicodeDecodeError) as error:
            raise SecretError(
                f"no secret for the run {run}: put it into {secret_place(run)}, or its hexadecimal digits into the "
                f"variable {VARIABLE}"
            ) from error
        except (IsADirectoryError, Unreadable) as error:  # a container makes a folder of a file that it can't mount
            raise SecretError(
                f"{secret_place(run)} is a folder, a special file or far too long for a secret; put the file that "
                f"holds the secret in its place, or its hexadecimal digits into the variable {VARIABLE}; for a new "
                "run, remove it"
            ) from error
    try:
        return Digester(bytes.fromhex(text.strip()))
    except ValueError as error:
        raise SecretError(
            f"{secret_origin(run)} does not hold a secret; it must be hexadecimal, 16 to 64 bytes long"
        ) from error


def own_secret(run: Location, check: str) -> Digester:
    """Return the secret of a run by `RunRecord.secret_check`; errors as of `read_secret`, and for another run's."""
    digester = read_secret(run)
    if digester.text("secret") != check:
        raise SecretError(
            f"the secret in {secret_origin(run)} is not the one that the run {run} was made with; find that one"
        )
    return digester
