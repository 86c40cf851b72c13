"""Runs the command line as ``python -m safetyfilter``."""

from safetyfilter.cli import main

main()
