"""HTTP servers on loopback, each in a thread of the test process."""

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

_PORTS: Final = range(12_000, 30_000)
_MOST_IN_A_ROW: Final = 2

_given = set[int]()
"""The ports that were given to tests of this process, which may not listen on them yet."""


def free_port() -> int:
    """Return a port that is free, for a program that listens a moment later."""
    return _free_ports(1)


def two_free_ports() -> int:
    """Return a free port whose successor is free, too."""
    return _free_ports(2)


def _free_ports(count: int) -> int:
    """Return the first of so many free ports in a row.

    The kernel gives none of `_PORTS` to a process that connects, or that listens on any port, in the meantime. Nor does
    this function, here or in another worker.
    """
    while True:
        ports = range(first := random.choice(_ports_of_worker()), first + count)
        if not _given.isdisjoint(ports):
            continue
        with suppress(OSError), ExitStack() as taken:
            for port in ports:
                taken.enter_context(closing(socket.create_server(("127.0.0.1", port))))
            _given.update(ports)
            return first


def _ports_of_worker() -> range:
    """Return the share of `_PORTS` of this process, one of those among which pytest-xdist distributes the tests."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share, size = number % workers, len(_PORTS) // workers  # a worker in the place of a crashed one has a new number
    return _PORTS[share * size : (share + 1) * size - _MOST_IN_A_ROW]


class QuietHandler(BaseHTTPRequestHandler):
    """A request handler with persistent connections and without a log."""

    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        """Read the request's body."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answer the request. headers: a Content-Length among them replaces the size of the body."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def served_by(handler: Callable[..., BaseHTTPRequestHandler], listener: socket.socket | None = None) -> Iterator[int]:
    """Serve until the end of the block. Yields the port. listener: a listening socket to use instead of a new one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if listener:
            server.socket.close()
            server.socket = listener
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()
