"""The entry point: runs a command, and turns errors into one sentence and an exit status."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import NoReturn

from rich.logging import RichHandler

from safetyfilter.cli import (  # noqa: F401  (each adds its commands)
    decide,
    demo,
    export,
    measure,
    probes,
    scan,
    status,
    train,
)
from safetyfilter.cli.app import app
from safetyfilter.cli.output import Interrupted, err, show_error
from safetyfilter.errors import SafetyFilterError


def main() -> NoReturn:
    """Run the command line: exit status 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=err, show_time=False, show_path=False)],
    )
    warnings.filterwarnings("ignore", module="PIL")  # of a damaged picture, whose status in the record says more
    try:
        app()
    except SafetyFilterError as error:
        _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        _fail("interrupted", Interrupted.exit_status)
    except SystemExit as ended:  # Typer makes this of an interruption, without a word
        if ended.code == Interrupted.exit_status:
            _fail("interrupted", Interrupted.exit_status)
        raise
    except Exception as error:
        if os.environ.get("SAFETYFILTER_DEBUG"):
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error}; set SAFETYFILTER_DEBUG=1 for the traceback, and report it", 1
        )
    sys.exit(0)


def _fail(message: str, exit_status: int) -> NoReturn:
    show_error(message)
    sys.exit(exit_status)
