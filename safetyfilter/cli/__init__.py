"""The command line: one module a group of commands, each thin over the library's own functions."""

from safetyfilter.cli.main import main

__all__ = ["main"]
