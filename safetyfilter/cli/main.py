"""Runs a command, and turns errors into one sentence and an exit status."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from typing import Any, NoReturn

import typer

from safetyfilter.cli.app import app
from safetyfilter.cli.interruption import Interrupted
from safetyfilter.errors import SafetyFilterError

_ClickError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""The root of Typer's errors of usage, which lies in another package with each of its versions."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write for which there is no room."""


class _Log(logging.Handler):
    """Shows records as Rich does, which is imported when there is one to show."""

    def emit(self, record: logging.LogRecord) -> None:
        from rich.logging import RichHandler

        from safetyfilter.cli.output import err

        RichHandler(console=err, show_time=False, show_path=False).emit(record)


def main() -> NoReturn:
    """Run the command line: exit status 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[_Log()],
    )
    logging.getLogger("safetyfilter.embed.cuda").setLevel(logging.INFO)  # that it compiles, which takes up to a minute
    warnings.filterwarnings("ignore", module="PIL")  # of a damaged picture, whose status in the record says more
    if not os.environ.get("COLUMNS", "1").strip("0"):  # as some job runners have it: Rich would print nothing
        del os.environ["COLUMNS"]
    for name in ("stdout", "stderr"):  # None where whoever started this closed it: nobody reads it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open to the end
    exit_status = 0
    try:
        exit_status = app(standalone_mode=False, prog_name="safetyfilter") or 0
    except SafetyFilterError as error:
        _fail(str(error), error.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", Interrupted.exit_status)
    except _ClickError as error:
        _fail_usage(error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            _fail(f"the result can't be written ({error.strerror}); make room, or send it elsewhere", 1)
        if os.environ.get("SAFETYFILTER_DEBUG"):
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error}; set SAFETYFILTER_DEBUG=1 for the traceback, and report it", 1
        )
    if exit_status == Interrupted.exit_status:  # Typer makes this of an interruption, without a word
        _fail("interrupted", exit_status)
    sys.exit(exit_status)


def _fail_usage(error: Any) -> NoReturn:
    """End with Typer's finding in one sentence, and where to read on; where nothing was given, with the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    message += "" if message.endswith("?") else ";"
    _fail(f"{message} see `{context.command_path if context else 'safetyfilter'} --help`", error.exit_code)


def _fail(message: str, exit_status: int) -> NoReturn:
    from safetyfilter.cli.output import show_error  # Rich is imported when there is something to show

    show_error(message)
    sys.exit(exit_status)
