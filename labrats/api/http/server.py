"""uvicorn, made to fit: our signals, our log, an event for the moment when it listens, and patience that ends."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from labrats.api.http.errors import error_body

UNSENT_BYTES: Final = 64 * 1024
_TCP_NOTSENT_LOWAT: Final = 25  # which Python's socket module does not name

_DISCARDED_AT_LEAST: Final = 1024 * 1024

DRAIN_SECONDS: Final = 5
"""How long requests under way may take when the engine stops."""


@dataclass(frozen=True)
class ClientLimits:
    """What a client may take its time for; whoever takes longer is cut off, and blocks nobody until then."""

    head_seconds: float = 10.0
    """From its connection, or from the first byte of a further request, until the request's headers are complete."""
    idle_seconds: float = 30.0
    """Without any more of a body; or without taking any more of an answer, from one look at it to the next."""
    head_bytes: int = 64 * 1024
    """The largest request line and headers."""
    discarded_bytes: int = 1024 * 1024 * 1024
    """How much is read and thrown away of a body that has been refused. Were the connection closed at once, most
    clients would lose the answer, since they read none before they have sent all."""
    discard_seconds: float = 10.0
    """For each further mebibyte of a body that has been refused."""
    connections: int = 10_000
    """Connections at once, at most. Each uses a file descriptor; with none left the engine could do nothing."""


class Server(uvicorn.Server):
    """Serves `app` until `should_exit` is set. Who runs it takes care of signals."""

    def __init__(
        self, app: ASGIApp, limits: ClientLimits = ClientLimits(), trusted_proxies: Sequence[str] = ()
    ) -> None:
        super().__init__(_Config(app, limits, trusted_proxies))
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class _Config(uvicorn.Config):
    def __init__(self, app: ASGIApp, limits: ClientLimits, trusted_proxies: Sequence[str]) -> None:
        super().__init__(
            app,
            http=DeadlineProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # what strangers send is not worth a line each
            access_log=False,
            server_header=False,
            forwarded_allow_ips=list(trusted_proxies),
            timeout_keep_alive=75,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        self.limits = limits


class _Deadline:
    """Calls `missed` once, unless it is met or moved before."""

    def __init__(self, missed: Callable[[], None]) -> None:
        self._missed = missed
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._timer is not None

    def move(self, seconds: float) -> None:
        """Let it be `seconds` from now."""
        self.met()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._pass)

    def met(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _pass(self) -> None:
        self._timer = None
        self._missed()


def _bound_unsent_bytes(transport: asyncio.Transport) -> None:
    """Have the kernel take little more of an answer than it can send: else one that nobody reads fills megabytes."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)


class _Awaiting(Enum):
    """What the parser expects next of the client."""

    REQUEST = auto()
    HEAD = auto()
    BODY = auto()


class DeadlineProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which has no clock of its own on receiving a request, with deadlines on the client."""

    config: _Config

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = self.config.limits
        self._awaiting = _Awaiting.REQUEST
        self._head_bytes = 0
        self._body_has_begun = False
        self._discarded_bytes = 0
        self._unsent_bytes = 0
        self._head_deadline = _Deadline(self._head_is_late)
        self._body_deadline = _Deadline(self._body_is_late)
        self._discard_deadline = _Deadline(self._discarded_is_late)
        self._discarded_before = 0
        self._write_deadline = _Deadline(self._reader_is_late)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            message = "the engine has as many connections as it can serve"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, message, "retry-after: 5\r\n")
            return
        _bound_unsent_bytes(transport)
        self._head_deadline.move(self._limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        for deadline in (self._head_deadline, self._body_deadline, self._discard_deadline, self._write_deadline):
            deadline.met()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing() or self._awaiting is _Awaiting.BODY:
            return
        if self._awaiting is _Awaiting.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's headers are too large")
                return
        # What came may have been no more than blank lines, for which uvicorn gives up its own clock.
        if not self._head_deadline.is_set and (self._awaiting is _Awaiting.HEAD or not self._is_answering):
            self._head_deadline.move(self._limits.head_seconds)

    def on_message_begin(self) -> None:
        self._awaiting = _Awaiting.HEAD
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._awaiting, self._head_bytes = _Awaiting.BODY, 0
        self._body_has_begun, self._discarded_bytes, self._discarded_before = False, 0, 0
        self._head_deadline.met()
        self._body_deadline.move(self._limits.idle_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_has_begun = True
        super().on_body(body)
        if self._is_answering:
            self._body_deadline.move(self._limits.idle_seconds)
            return
        self._discarded_bytes += len(body)
        if self._discarded_bytes > self._limits.discarded_bytes:
            self.transport.abort()

    def on_message_complete(self) -> None:
        self._awaiting = _Awaiting.REQUEST
        self._body_deadline.met()
        self._discard_deadline.met()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._awaiting is not _Awaiting.BODY:
            return
        if self.expect_100_continue and not self._body_has_begun:
            self.transport.close()  # it waits for a word to send the body, and now would send the next request
            return
        self._body_deadline.met()
        self._discard_deadline.move(self._limits.discard_seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        self._write_deadline.met()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "this is not HTTP")

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _head_is_late(self) -> None:
        if self._awaiting is _Awaiting.HEAD:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request's headers took too long")
        else:
            self.transport.close()  # it has asked nothing

    def _body_is_late(self) -> None:
        if self.flow.read_paused:  # it is we who did not read
            self._body_deadline.move(self._limits.idle_seconds)
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request's body stopped arriving")

    def _discarded_is_late(self) -> None:
        if self._discarded_bytes < self._discarded_before + _DISCARDED_AT_LEAST:
            self.transport.abort()
            return
        self._discarded_before = self._discarded_bytes
        self._discard_deadline.move(self._limits.discard_seconds)

    def _await_reader(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._write_deadline.move(self._limits.idle_seconds)

    def _reader_is_late(self) -> None:
        if self.transport.get_write_buffer_size() < self._unsent_bytes:
            self._await_reader()  # slow, but alive
        else:
            self.transport.abort()

    def _refuse(self, status: HTTPStatus, message: str, headers: str = "") -> None:
        """Answer, unless another answer has begun, and close the connection. headers: each with its line break."""
        if self._is_answering and (self.cycle.response_started or self.pipeline):
            self.transport.abort()
            return
        body = json.dumps(error_body(status.name.lower(), message)).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
