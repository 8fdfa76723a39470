"""A scripted model server on loopback: what the model says next is decided by the test, in whatever protocol."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol


@dataclass(frozen=True)
class Says:
    """The model answers with a text, which ends its turn."""

    text: str
    input_tokens: int = 100
    output_tokens: int = 10


@dataclass(frozen=True)
class Calls:
    """The model calls a tool, after a word of explanation. namespace: of the tool, where it has one."""

    tool: str
    input: dict[str, Any] | str
    text: str = ""
    input_tokens: int = 100
    output_tokens: int = 10
    namespace: str | None = None


@dataclass(frozen=True)
class Refuses:
    """The server answers with an HTTP error, this time. details: what its body says beside kind and message."""

    status: int
    kind: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fails:
    """The server begins to answer, and then reports this error."""

    code: str
    message: str


@dataclass(frozen=True)
class Stalls:
    """The server takes the request, and says nothing until the test is over."""


Turn = Says | Calls | Refuses | Fails | Stalls


class Dialect(Protocol):
    """How a model's API is spoken."""

    path: str

    def answer(self, turn: Says | Calls | Fails, number: int, request: dict[str, Any]) -> tuple[str, bytes]:
        """Content type and body."""

    def error(self, turn: Refuses) -> dict[str, Any]:
        """The body of an HTTP error."""


@dataclass
class ModelServer:
    """Plays `turns`, one for each request; the last one again for every further request.

    requests: the bodies of the requests so far. headers: those of the latest.
    """

    turns: Sequence[Turn]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: Message = field(default_factory=Message)
    port: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str | None:
        """The one that came with the latest request, in either of the ways there are."""
        authorization = self.headers["Authorization"]
        return self.headers["X-Api-Key"] or (authorization and authorization.removeprefix("Bearer "))

    def answer_from_now_on(self, *turns: Turn) -> None:
        """Play `turns`, as if the next request were the first."""
        self.turns = [*[Says("")] * len(self.requests), *turns]

    def next_turn(self, body: dict[str, Any], headers: Message) -> tuple[int, Turn]:
        """The number of the request, and what it is answered."""
        self.headers = headers
        self.requests.append(body)
        number = len(self.requests)
        return number, self.turns[min(number, len(self.turns)) - 1]


@contextmanager
def scripted_model(dialect: Dialect, turns: Sequence[Turn]) -> Iterator[ModelServer]:
    """Serve `turns` until the end of the block."""
    script = ModelServer(turns)

    class Handler(_Handler):
        server_script = script
        server_dialect = dialect

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        http_server.daemon_threads = True
        script.port = http_server.server_port
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield script
        finally:
            script.over.set()
            http_server.shutdown()
            thread.join()


def server_sent_event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


class _Handler(BaseHTTPRequestHandler):
    server_script: ModelServer
    server_dialect: Dialect
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._send(200, "application/json", b"")

    def do_GET(self) -> None:
        self._send(404, "application/json", b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.partition("?")[0] != self.server_dialect.path:
            self._send(404, "application/json", b"{}")
            return
        number, turn = self.server_script.next_turn(body, self.headers)
        match turn:
            case Refuses():
                error = json.dumps(self.server_dialect.error(turn)).encode()
                self._send(turn.status, "application/json", error, turn.headers)
            case Stalls():
                self.server_script.over.wait()
                self.close_connection = True
            case _:
                self._send(200, *self.server_dialect.answer(turn, number, body))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        """Quiet."""

    def _send(self, status: int, content_type: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
