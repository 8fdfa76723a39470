"""A small HTTP server that records its requests."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.loopback import QuietHandler, served_by

ANSWER = b"the answer of the server\n"


@contextmanager
def an_http_server(listener: socket.socket | None = None) -> Iterator[tuple[int, list[str]]]:
    """Serve on 127.0.0.1, or with `listener`. Yield the port, and the requests: method, path, Host and body."""
    requests: list[str] = []

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.command} {self.path} {self.headers['Host']} {self.body().decode()}".rstrip())
            self.answer(200, ANSWER)

        do_POST = do_GET

    with served_by(Handler, listener) as port:
        yield port, requests
