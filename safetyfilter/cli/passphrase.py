"""The passphrase of an officer's keys: from a file, from the environment, or asked for without echo."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from safetyfilter.errors import UsageError

VARIABLE = "SAFETYFILTER_OFFICER_PASSPHRASE"
_MOST_BYTES = 8192

PassphraseFileOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help=f"A file whose first line is the passphrase; else the variable {VARIABLE}, else it is asked for.",
        show_default=False,
    ),
]


def passphrase_from(file: str | None, *, new: bool = False) -> str:
    """Return the passphrase; it is never an argument, which everyone on the machine could read.

    Parameters
    ----------
    file : str or None
        The file that holds it, before the environment and the terminal.
    new : bool
        It is asked for twice, and must be long enough.

    Raises
    ------
    UsageError
        The file can't be read; or there is nowhere to ask; or both answers differ, or a new one is too short.
    """
    from safetyfilter.sealed.private_keys import require_passphrase

    passphrase = _of_file(file) if file is not None else os.environ.get(VARIABLE) or _asked(new)
    if new:
        require_passphrase(passphrase)
    return passphrase


def _of_file(file: str) -> str:
    from safetyfilter.batches import Unreadable
    from safetyfilter.storage import Location

    try:
        text = Location.of(file).read_bytes(_MOST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError, Unreadable) as error:
        raise UsageError(
            f"{file} can't be read as a passphrase's file ({type(error).__name__}); give a file whose first line is it"
        ) from error
    return text.split("\n", 1)[0].rstrip("\r")


def _asked(new: bool) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            f"there is no terminal to ask for the passphrase; give --passphrase-file FILE, or set {VARIABLE}"
        )
    import getpass

    passphrase = getpass.getpass("Passphrase of the officer's keys: ")
    if new and getpass.getpass("The same again: ") != passphrase:
        raise UsageError("the two passphrases differ; nothing was written: run the command again")
    return passphrase
