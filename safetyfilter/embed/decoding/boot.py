"""Starts the server of decoding processes with all that each would otherwise make anew: the loops compiled once.

It imports little itself: the compiler works while the server's modules, which take as long, are imported.
"""

from __future__ import annotations

import threading

from safetyfilter.native.build import library


def main(fd: int) -> None:
    """Serve on an inherited socket."""
    compiling = threading.Thread(target=library)
    compiling.start()
    from safetyfilter.embed.decoding import server
    from safetyfilter.embed.pictures.resizing import compile_loop

    compiling.join()  # before anything forks
    compile_loop()
    server.main(fd)
