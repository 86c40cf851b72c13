"""Compiles the C loops for this machine and loads them, once in a process; None where that can't be."""

from __future__ import annotations

import ctypes
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.c", "resize.c"))
COMPILERS = ("cc", "gcc", "clang")
"""Compilers that are tried, where ``CC`` names none."""
_FLAGS = ("-O3", "-fno-math-errno", "-fPIC", "-shared", "-std=gnu11")
_MACHINES = ("-march=native", "-mcpu=native")
"""Ways to ask for this processor's instructions, of which each compiler knows one."""
_TIMEOUT_S = 180.0
_INSTEAD = "slower functions take their place, whose scores are the same to a millionth and all else to the bit"
_lock = threading.Lock()
_log = logging.getLogger(__name__)


def library() -> ctypes.CDLL | None:
    """Return the compiled loops; None, after one warning, where there is no compiler, or none that does."""
    with _lock:
        return _compiled()


@lru_cache(maxsize=1)
def _compiled() -> ctypes.CDLL | None:
    if sys.byteorder != "little":
        return None
    try:
        compiler = _compiler()
    except ValueError as error:
        _log.warning(
            "no fast loops are compiled, as CC can't be read (%s): %s; name a compiler in CC, or unset it",
            error,
            _INSTEAD,
        )
        return None
    if compiler is None:
        _log.warning(
            "no C compiler is found for the loops that score stored embeddings, digest keys and resize pictures: %s; "
            "install gcc or clang, or name one in CC",
            _INSTEAD,
        )
        return None
    said = []
    for machine in _MACHINES:
        try:
            # A folder of its own, gone when the loops are loaded: nothing that was compiled elsewhere is ever run.
            with tempfile.TemporaryDirectory(prefix="safetyfilter-") as folder:
                made = os.path.join(folder, "kernels.so")  # noqa: PTH118
                done = subprocess.run(
                    [*compiler, *_FLAGS, machine, *map(str, SOURCES), "-o", made, "-lm"],
                    process_group=0,  # Ctrl-C is for the caller, who may go on: a notebook, with the loops it has then
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=_TIMEOUT_S,
                    check=False,
                )
                if done.returncode == 0:
                    return ctypes.CDLL(made)
                said.append((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0])
        except subprocess.TimeoutExpired:
            said.append(f"it was not done in {_TIMEOUT_S:.0f} s")
            break
        except (OSError, subprocess.SubprocessError) as error:  # no folder for temporary files is one of these
            said.append(f"{type(error).__name__}: {error}")
    told = "; ".join(dict.fromkeys(said))
    _log.warning("%s can't compile the fast loops (%s): %s", compiler[0], told, _INSTEAD)
    return None


def _compiler() -> list[str] | None:
    if named := shlex.split(os.environ.get("CC", "")):
        return named
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    return None if found is None else [found]
