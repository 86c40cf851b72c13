"""Runs a command line in this process, through `main`, as the installed script does."""

from __future__ import annotations

import io
import json
import logging
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest
from typer.main import get_command

from safetyfilter.cli import main
from safetyfilter.cli.app import app


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def message(self) -> str:
        """Standard error as running text, without the frame that Rich draws around errors of usage."""
        return " ".join(self.stderr.replace("│", " ").split())

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output, of a command that worked."""
        assert self.status == 0, self.stderr
        result = json.loads(self.stdout)
        assert isinstance(result, dict)
        return result


def every_command() -> Any:
    """Return the application's group with all of its commands themselves, not what stands for them until they run."""
    group: Any = get_command(app)
    group.commands = {name: later.built() for name, later in group.commands.items()}
    return group


def command(*arguments: object) -> Done:
    """Run ``safetyfilter`` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["safetyfilter", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    logging.getLogger("safetyfilter.embed.cuda").setLevel(logging.NOTSET)  # as it was before, for tests to come
    status = ended.value.code or 0
    assert isinstance(status, int)
    return Done(status=status, stdout=out.getvalue(), stderr=err.getvalue())
