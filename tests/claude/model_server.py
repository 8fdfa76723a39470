"""A scripted model behind the Anthropic Messages API, on loopback: what it says next is decided by the test."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Says:
    """The model answers with a text, which ends its turn."""

    text: str
    input_tokens: int = 100
    output_tokens: int = 10


@dataclass(frozen=True)
class Calls:
    """The model calls a tool, after a word of explanation."""

    tool: str
    input: dict[str, Any]
    text: str = ""
    input_tokens: int = 100
    output_tokens: int = 10


@dataclass(frozen=True)
class Refuses:
    """The server answers with an HTTP error, this time."""

    status: int
    kind: str
    message: str


@dataclass(frozen=True)
class Stalls:
    """The server takes the request, and says nothing until the test is over."""


Turn = Says | Calls | Refuses | Stalls


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

    def next_turn(self, body: dict[str, Any], headers: Message) -> tuple[int, Turn]:
        """The number of the request, and what it is answered."""
        self.headers = headers
        self.requests.append(body)
        number = len(self.requests)
        return number, self.turns[min(number, len(self.turns)) - 1]


@contextmanager
def model_server(*turns: Turn) -> Iterator[ModelServer]:
    """Serve `turns` until the end of the block."""
    script = ModelServer(turns)

    class Handler(_Handler):
        server_script = script

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


class _Handler(BaseHTTPRequestHandler):
    server_script: ModelServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._send(200, "application/json", b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.partition("?")[0] != "/v1/messages":
            self._send(404, "application/json", b"{}")
            return
        number, turn = self.server_script.next_turn(body, self.headers)
        match turn:
            case Says() | Calls():
                message = _message(turn, number, body["model"])
                if body.get("stream"):
                    self._send(200, "text/event-stream", b"".join(_streamed(message)))
                else:
                    self._send(200, "application/json", json.dumps(message).encode())
            case Refuses():
                error = {"type": "error", "error": {"type": turn.kind, "message": turn.message}}
                self._send(turn.status, "application/json", json.dumps(error).encode())
            case Stalls():
                self.server_script.over.wait()
                self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        """Quiet."""

    def _send(self, status: int, content_type: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _message(turn: Says | Calls, number: int, model: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text else []
    if isinstance(turn, Calls):
        content.append({"type": "tool_use", "id": f"toolu_{number}", "name": turn.tool, "input": turn.input})
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if isinstance(turn, Calls) else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": turn.input_tokens, "output_tokens": turn.output_tokens},
    }


def _streamed(message: dict[str, Any]) -> Iterator[bytes]:
    """The message as the API streams it: an opening, each block in pieces, and what only the end knows."""
    usage = message["usage"]
    opening = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    yield _event("message_start", message=opening)
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            empty, delta = block | {"text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty = block | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield _event("content_block_start", index=index, content_block=empty)
        yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", delta=end, usage={"output_tokens": usage["output_tokens"]})
    yield _event("message_stop")


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
