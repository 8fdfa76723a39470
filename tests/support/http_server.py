"""A small HTTP server that records its requests."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.loopback import QuietHandler, served_by

ANSWER = b"the answer of the server\n"


@contextmanager
def an_http_server() -> Iterator[tuple[int, list[str]]]:
    """Serve on 127.0.0.1. Yield the port, and the list of requests: method, path, Host and body."""
    requests: list[str] = []

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.command} {self.path} {self.headers['Host']} {self.body().decode()}".rstrip())
            self.answer(200, ANSWER)

        do_POST = do_GET

    with served_by(Handler) as port:
        yield port, requests
