"""A scripted model server on loopback: the test decides each answer of the model, in any protocol."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Final, Protocol

from tests.support.loopback import QuietHandler, served_by

JSON: Final = {"Content-Type": "application/json"}

_PIECES: Final = 40
"""Pieces of an answer that is sent slowly."""


@dataclass(frozen=True)
class Says:
    """The model answers with a text, which ends its turn. seconds: time over which the answer is sent."""

    text: str
    input_tokens: int = 100
    output_tokens: int = 10
    seconds: float = 0


@dataclass(frozen=True)
class Calls:
    """The model calls a tool. text: said before the call. namespace: of the tool, if it has one."""

    tool: str
    input: dict[str, Any] | str
    text: str = ""
    input_tokens: int = 100
    output_tokens: int = 10
    namespace: str | None = None


@dataclass(frozen=True)
class Refuses:
    """The server answers this request with an HTTP error. details: fields of its body beside kind and message."""

    status: int
    kind: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fails:
    """The server begins its answer and then reports this error."""

    code: str
    message: str


@dataclass(frozen=True)
class Stalls:
    """The server accepts the request and does not answer until the test is over."""


Turn = Says | Calls | Refuses | Fails | Stalls


class Dialect(Protocol):
    """The protocol of a model's API."""

    path: str

    def answer(self, turn: Says | Calls | Fails, number: int, request: dict[str, Any]) -> tuple[str, bytes]:
        """Return the content type and the body of an answer."""

    def error(self, turn: Refuses) -> dict[str, Any]:
        """Return the body of an HTTP error."""


@dataclass
class ModelServer:
    """A model server that plays `turns`, one for each request, and repeats the last turn for further requests.

    requests: the bodies of the requests so far. headers: of the latest request.
    rejected: keys that are not accepted any more. Requests with one play no turn.
    is_aside: whether the program makes a request on its own, such as for a title. It plays no turn either.
    models: the names that the server lists. asides: the bodies of these requests so far.
    """

    turns: Sequence[Turn]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: Message = field(default_factory=Message)
    rejected: set[str | None] = field(default_factory=set)
    is_aside: Callable[[dict[str, Any]], bool] = lambda _: False
    models: Sequence[str] = ()
    asides: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str | None:
        """The API key of the latest request, from X-Api-Key or Authorization."""
        authorization = self.headers["Authorization"]
        return self.headers["X-Api-Key"] or (authorization and authorization.removeprefix("Bearer "))

    def answer_from_now_on(self, *turns: Turn) -> None:
        """Play `turns` from the next request on."""
        self.turns = [*[Says("")] * len(self.requests), *turns]

    def next_turn(self, body: dict[str, Any], headers: Message) -> tuple[int, Turn]:
        """Record a request. Return its number, from 1, and the turn that answers it."""
        self.headers = headers
        self.requests.append(body)
        number = len(self.requests)
        return number, self.turns[min(number, len(self.turns)) - 1]


@contextmanager
def scripted_model(
    dialect: Dialect, turns: Sequence[Turn], listener: socket.socket | None = None
) -> Iterator[ModelServer]:
    """Run a model server with `turns` until the end of the block. listener: a listening socket to use, if any."""
    script = ModelServer(turns)

    class Handler(_Handler):
        server_script = script
        server_dialect = dialect

    with served_by(Handler, listener) as script.port:
        try:
            yield script
        finally:
            script.over.set()


def server_sent_event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


class _Handler(QuietHandler):
    server_script: ModelServer
    server_dialect: Dialect

    def do_HEAD(self) -> None:
        self.answer(200)

    def do_GET(self) -> None:
        models = [{"id": name} for name in self.server_script.models]
        if models and self.path.endswith("/models"):
            self.answer(200, json.dumps({"data": models}).encode(), JSON)
        else:
            self.answer(404, b"{}", JSON)

    def do_POST(self) -> None:
        body = json.loads(self.body())
        if self.path.partition("?")[0] != self.server_dialect.path:
            self.answer(404, b"{}", JSON)
            return
        turn: Turn
        if self.headers["Authorization"] and self.headers["Authorization"].split()[-1] in self.server_script.rejected:
            number, turn = 0, Refuses(401, "invalid_token", "the token has expired")
        elif self.server_script.is_aside(body):
            self.server_script.asides.append(body)
            number, turn = 0, Says("A title")
        else:
            number, turn = self.server_script.next_turn(body, self.headers)
        match turn:
            case Refuses():
                error = json.dumps(self.server_dialect.error(turn)).encode()
                self.answer(turn.status, error, {**JSON, **turn.headers})
            case Stalls():
                self.server_script.over.wait()
                self.close_connection = True
            case _:
                content_type, content = self.server_dialect.answer(turn, number, body)
                if isinstance(turn, Says) and turn.seconds:
                    self._answer_slowly(content, content_type, turn.seconds)
                else:
                    self.answer(200, content, {"Content-Type": content_type})

    def _answer_slowly(self, content: bytes, content_type: str, seconds: float) -> None:
        """Send the answer in pieces, whose ends are anywhere in its events."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        size = -(-len(content) // _PIECES)
        for start in range(0, len(content), size):
            self.wfile.write(content[start : start + size])
            self.server_script.over.wait(seconds / _PIECES)
