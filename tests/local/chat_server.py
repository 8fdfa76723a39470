"""A scripted OpenAI-compatible server on loopback."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from tests.support.loopback import QuietHandler, served_by


@dataclass(frozen=True)
class Says:
    """A turn in which the model answers with a text, in pieces."""

    text: str
    finish_reason: str = "stop"
    usage: Mapping[str, Any] = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 10})


@dataclass(frozen=True)
class Calls:
    """A turn in which the model calls a tool. arguments: an object, or any text in its place."""

    tool: str
    arguments: Mapping[str, Any] | str
    text: str = ""
    usage: Mapping[str, Any] = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 10})


@dataclass(frozen=True)
class Refuses:
    """A turn in which the server answers with an HTTP error."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sends:
    """A turn in which the server streams `content`. breaks_off: True to end the stream improperly."""

    content: bytes
    breaks_off: bool = False


@dataclass(frozen=True)
class Floods:
    """A turn in which the server repeats `content` until the client disconnects or the test ends."""

    content: bytes
    pause_seconds: float = 0.0


Turn = Says | Calls | Refuses | Sends | Floods


@dataclass
class ChatScript:
    """A script of turns, one per request. The last turn is repeated.

    judge:    returns an error for a request, or None to play its turn.
    requests: the bodies of all requests so far.
    headers:  the headers of the latest request.
    """

    turns: Sequence[Turn]
    models: Any
    judge: Callable[[dict[str, Any]], Refuses | None]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: Message = field(default_factory=Message)
    port: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    played: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def next_turn(self, body: dict[str, Any], headers: Message) -> Turn:
        self.headers = headers
        self.requests.append(body)
        if refusal := self.judge(body):
            return refusal
        self.played += 1
        return self.turns[min(self.played, len(self.turns)) - 1]


@contextmanager
def chat_server(
    *turns: Turn,
    models: Any = None,
    judge: Callable[[dict[str, Any]], Refuses | None] = lambda body: None,
    listener: socket.socket | None = None,
) -> Iterator[ChatScript]:
    """Serve `turns` until the context exits, on loopback or with `listener`.

    models: the answer of /v1/models; None for 404.
    """
    script = ChatScript(turns, models, judge)

    class Handler(_Handler):
        served_script = script

    with served_by(Handler, listener) as script.port:
        try:
            yield script
        finally:
            script.over.set()


class _Handler(QuietHandler):
    served_script: ChatScript

    def do_GET(self) -> None:
        if self.path == "/v1/models" and self.served_script.models is not None:
            self._send(200, self.served_script.models)
        else:
            self._send(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        body = json.loads(self.body())
        if self.path != "/v1/chat/completions":
            self._send(404, {"error": {"message": "no such page"}})
            return
        match self.served_script.next_turn(body, self.headers):
            case Refuses() as refusal:
                self._send(refusal.status, refusal.body, refusal.headers)
            case Sends() as sending:
                self._stream([sending.content], breaks_off=sending.breaks_off)
            case Floods() as flood:
                self._stream(self._flood(flood))
            case Says() | Calls() as turn:
                self._stream(streamed(turn))

    def _send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        self.answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)

    def _stream(self, pieces: Sequence[bytes] | Iterator[bytes], *, breaks_off: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in pieces:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if not breaks_off:
                self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            pass
        self.close_connection = True

    def _flood(self, flood: Floods) -> Iterator[bytes]:
        while not self.served_script.over.wait(flood.pause_seconds):
            yield flood.content


def streamed(turn: Says | Calls) -> Iterator[bytes]:
    """Yield the events of a streamed answer: text and arguments in pieces, the usage and the end."""
    yield event({"role": "assistant", "content": ""})
    for piece in _pieces(turn.text):
        yield event({"content": piece})
    if isinstance(turn, Calls):
        arguments = turn.arguments if isinstance(turn.arguments, str) else json.dumps(turn.arguments)
        call = {"index": 0, "id": "call_a1", "type": "function", "function": {"name": turn.tool, "arguments": ""}}
        yield event({"tool_calls": [call]})
        for piece in _pieces(arguments):
            yield event({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        yield event({}, finish_reason="tool_calls")
    else:
        yield event({}, finish_reason=turn.finish_reason)
    if turn.usage:
        yield data({"choices": [], "usage": turn.usage})
    yield b": keep-alive\n\ndata: [DONE]\n\n"


def event(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
    return data({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})


def data(chunk: Any) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), 7):
        yield text[start : start + 7]
