"""The entry point: the command line, as ``safetyfilter`` and as ``python -m safetyfilter``."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; one that is interrupted before it has begun ends as others do, with exit status 130."""
    try:
        from safetyfilter.cli import main as run  # takes a good part of a second
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
