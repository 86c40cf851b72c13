"""A real S3 API on loopback, whose answers can be spoiled: late, refused, or cut in the middle."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import fsspec
import pytest

PATIENCE = {"config_kwargs": {"connect_timeout": 60, "read_timeout": 60}}
"""What a client waits for a server that shares two cores with several tests."""
fsspec.config.conf["s3"] = PATIENCE
ENVIRONMENT = {
    "FSSPEC_S3": json.dumps(PATIENCE),  # the same, for processes that are started
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",  # else botocore has a patience of its own, below that of the library
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An answer in the place of the server's own.

    Attributes
    ----------
    status : str
        Its status line; empty for a connection that is cut.
    code : str
        The code in its body, as S3 has it.
    hangs : bool
        True for no answer at all, until the test is over.
    after : int
        Bytes of the right answer that a cut connection still delivers; with none, not even that there is one.
    """

    status: str = ""
    code: str = ""
    hangs: bool = False
    after: int = 0


SLOW_DOWN = Fault(status="503 Slow Down", code="SlowDown")
EXPIRED = Fault(status="403 Forbidden", code="ExpiredToken")
DENIED = Fault(status="403 Forbidden", code="AccessDenied")
INTERNAL = Fault(status="500 Internal Server Error", code="InternalError")
CUT = Fault(after=1_000)
CUT_AT_ONCE = Fault(after=0)
HANGS = Fault(hangs=True)


@dataclass
class Spoiled:
    """Wraps a server's application, and answers some requests by a fault.

    Attributes
    ----------
    fault : Fault
        What those requests are answered by.
    left : int
        How many are still to be spoiled.
    hits : callable
        Takes method and path with query; True for a request that is to be spoiled.
    seen : list of str
        All requests.
    """

    application: Callable[..., Iterable[bytes]]
    fault: Fault = SLOW_DOWN
    left: int = 0
    hits: Callable[[str], bool] = lambda request: True
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        query = environ.get("QUERY_STRING", "")
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}" + (f"?{query}" if query else "")
        with self.lock:
            self.seen.append(request)
            spoiled = self.left > 0 and self.hits(request)
            self.left -= spoiled
        if not spoiled:
            return self.application(environ, start_response)
        if self.fault.hangs:
            self.over.wait(60)
        if self.fault.status:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = f"<Error><Code>{self.fault.code}</Code><Message>spoiled</Message></Error>".encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
            is_head = environ["REQUEST_METHOD"] == "HEAD"  # which is told of credentials so, for want of a body
            start_response("400 Bad Request" if is_head and self.fault == EXPIRED else self.fault.status, headers)
            return [b"" if is_head else body]
        return self._cut(environ["werkzeug.socket"], self.application(environ, start_response))

    def _cut(self, connection: socket.socket, answer: Iterable[bytes]) -> Iterator[bytes]:
        if self.fault.after:
            yield b"".join(answer)[: self.fault.after]
        connection.shutdown(socket.SHUT_RDWR)
        yield b""  # which fails, so that the server gives the connection up


@dataclass
class S3:
    """A bucket of one test on the server.

    Attributes
    ----------
    bucket : str
        Its name.
    server : Spoiled
        Set its fault, and how many requests it is to spoil.
    """

    bucket: str
    server: Spoiled

    @property
    def url(self) -> str:
        """The bucket's URL."""
        return f"s3://{self.bucket}"

    @property
    def fs(self) -> Any:
        """A client of the bucket's storage that keeps nothing of what it once saw."""
        return fsspec.filesystem("s3", use_listings_cache=False)

    def put(self, folder: str | os.PathLike[str], name: str) -> str:
        """Put a local folder's or file's content there, and return its URL."""
        self.fs.put(str(folder), f"{self.bucket}/{name}", recursive=True)
        return f"{self.url}/{name}"

    @contextmanager
    def spoiling(self, fault: Fault, times: int = 1_000_000, hits: Callable[[str], bool] = lambda _: True):
        """Answer so many of the requests for which `hits` is true by a fault."""
        self.server.fault, self.server.hits, self.server.left = fault, hits, times
        self.server.over.clear()
        try:
            yield
        finally:
            self.server.left = 0
            self.server.over.set()


@contextmanager
def serving() -> Iterator[tuple[str, Spoiled]]:
    """Serve the S3 API on a free port; yield its address and what spoils its answers."""
    moto_app = pytest.importorskip("moto.moto_server.werkzeug_app", reason="moto[s3] and flask-cors are not installed")
    from botocore.loaders import JSONFileLoader
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *arguments: Any) -> None:
            pass

    # the one service: the dispatcher for all of them looks at moto's hundreds of folders at each request
    application = Spoiled(moto_app.create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            # each client would read botocore's descriptions of S3 anew, which is half of its work
            patch.setattr(JSONFileLoader, "load_file", staticmethod(cache(JSONFileLoader().load_file)))
            yield f"http://127.0.0.1:{server.server_port}", application
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
