"""The entry point: runs a command, and turns errors into one sentence and an exit status."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import NoReturn

from rich.logging import RichHandler

from safetyfilter.cli import demo, export, measure, probes, scan, train  # noqa: F401  (each adds its commands)
from safetyfilter.cli.app import app
from safetyfilter.cli.output import err, show_error
from safetyfilter.errors import SafetyFilterError

_EXIT_INTERRUPTED = 130
_INTERRUPTED = "interrupted; finished parts are kept, and the same command goes on from there"


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
        _fail(_INTERRUPTED, _EXIT_INTERRUPTED)
    except SystemExit as ended:  # Typer makes this of an interruption, without a word
        if ended.code == _EXIT_INTERRUPTED:
            _fail(_INTERRUPTED, _EXIT_INTERRUPTED)
        raise
    except Exception as error:
        if os.environ.get("SAFETYFILTER_DEBUG"):
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error}; set SAFETYFILTER_DEBUG=1 for the traceback, and report it", 1
        )
    sys.exit(0)


def _fail(message: str, status: int) -> NoReturn:
    show_error(message)
    sys.exit(status)
