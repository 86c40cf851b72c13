"""The server of decoding processes, started once by this process when it is first needed."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading

from safetyfilter.embed.decoding.protocol import DecodingSetup, LumaSetup
from safetyfilter.errors import EngineError

_BOOT = (
    "import sys; sys.path[:] = sys.argv[2:]; from safetyfilter.embed.decoding.boot import main; main(int(sys.argv[1]))"
)
_END_S = 5.0
NOT_STARTED = (
    "processes that decode images can't be started; decode in threads (decoders='threads', --decoders threads)"
)


class DecodingServer:
    """A process that forks decoding processes, and this process's end of the socket by which it is asked.

    It runs none of the caller's own script, unlike a process that `multiprocessing` starts.
    """

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), *sys.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
            )

    @property
    def pid(self) -> int:
        """The server's process number."""
        return self._process.pid

    def fork(self, setup: DecodingSetup | LumaSetup, *fds: int) -> socket.socket:
        """Have a decoding process forked, and return the socket that leads to it; `OSError` where the server ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [setup.to_json()], [theirs.fileno(), *fds])
            except OSError:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """End the server, and with it all that it forked whose sockets are closed."""
        self._control.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Leave the server to the process that started it; for a copy of that process."""
        self._control.close()
        self._process.returncode = 0  # it is no child of ours, and can't be waited for


_lock = threading.Lock()
_server: DecodingServer | None = None


def forked(setup: DecodingSetup | LumaSetup, rows_fd: int, encoded_fd: int) -> socket.socket:
    """Return a socket that leads to a new decoding process; the server is started where there is none.

    Parameters
    ----------
    setup : DecodingSetup or LumaSetup
        All that it needs to know.
    rows_fd, encoded_fd : int
        Files that are shared with it: what it decodes into, and an `Exchange`'s.

    Raises
    ------
    EngineError
        No server can be started.
    """
    global _server
    with _lock:
        for _ in range(2):
            try:
                _server = _server or DecodingServer()
                return _server.fork(setup, rows_fd, encoded_fd)
            except OSError:
                if _server is not None:  # it ended, of too little memory perhaps
                    _server.close()
                _server = None
    raise EngineError(NOT_STARTED)


def server_family() -> tuple[int, ...]:
    """Return the server's process number, alone; none where there is no server."""
    server = _server
    return () if server is None else (server.pid,)


def _close() -> None:
    global _server
    if _server is not None:
        _server.close()
        _server = None


def _forget() -> None:
    global _server, _lock
    _lock = threading.Lock()
    if _server is not None:
        _server.forget()
        _server = None


atexit.register(_close)
os.register_at_fork(after_in_child=_forget)
