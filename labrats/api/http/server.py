"""The HTTP server: uvicorn without its signal handlers and log, with an event for readiness and limits on clients."""

import asyncio
import json
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from labrats.api.http.errors import error_body

UNSENT_BYTES: Final = 64 * 1024
"""Unsent bytes that the kernel buffers per connection."""
_TCP_NOTSENT_LOWAT: Final = 25  # missing in Python's socket module

_JOINED_BYTES: Final = 64 * 1024
"""Longest start of a body that is copied to be sent with the head."""

_DISCARD_STEP_BYTES: Final = 1024 * 1024

DRAIN_SECONDS: Final = 5
"""Time that requests in progress may take when the engine stops."""


@dataclass(frozen=True)
class ClientLimits:
    """Limits on the data and the time of a client. A client beyond them is disconnected."""

    head_seconds: float = 10.0
    """Time from the connection, or from the first byte of a further request, to the end of the request's headers."""
    idle_seconds: float = 30.0
    """Time without progress: no further byte of the body arrives, or the client reads nothing of the response."""
    head_bytes: int = 64 * 1024
    """Maximum size of request line and headers, and of what follows the body, which nobody reads."""
    discarded_bytes: int = 1024 * 1024 * 1024
    """Bytes of a refused body that are read and discarded. Most clients read the response only after they have sent the
    whole body, and would lose it if the connection were closed at once."""
    discard_seconds: float = 10.0
    """Time for each further mebibyte of a refused body."""
    waiting_requests: int = 16
    """Maximum number of requests that a connection may send ahead of their answers. Each takes some 200 bytes of a
    client, and kilobytes of the engine's memory."""
    connections: int = 10_000
    """Maximum number of connections. Each uses a file descriptor, and without a free one the engine cannot work. A
    further connection takes the place of the one that has waited longest for its client."""


class Server(uvicorn.Server):
    """Server of `app`. It runs until `should_exit` is set. The caller handles signals."""

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
            log_level="error",  # requests that are not valid HTTP are not worth a line each
            access_log=False,
            server_header=False,
            forwarded_allow_ips=list(trusted_proxies),
            timeout_keep_alive=75,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        self.limits = limits
        self.waiting: dict[DeadlineProtocol, None] = {}
        """Connections that wait for their clients: for a request or its body, or to read. The first waits longest."""


class _Deadline:
    """A timer that calls `on_missed`, unless it is cancelled or set again first."""

    def __init__(self, on_missed: Callable[[], None]) -> None:
        self._on_missed = on_missed
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._timer is not None

    def set(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now."""
        self.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._miss)

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _miss(self) -> None:
        self._timer = None
        self._on_missed()


def _limit_unsent_bytes(transport: asyncio.Transport) -> None:
    """Limit the unsent bytes in the kernel. By default a response that nobody reads takes megabytes there."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)


class _ResponseTransport(asyncio.Transport):
    """Transport for one response: sends its head and the start of its body in one packet.

    uvicorn writes them one after the other, which costs a second system call and wakes the client twice. Here the first
    write is held until the next one, at most until the event loop's next turn.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport, self._loop = transport, loop
        self._is_first, self._held = True, b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_first:
            self._is_first, self._held = False, bytes(data)
            self._loop.call_soon(self._flush)
        elif self._held and len(data) <= _JOINED_BYTES:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        else:
            self._flush()
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(self._held)
        self._held = b""


class _ParserState(Enum):
    """The part of a request that the parser expects next."""

    REQUEST = auto()
    HEAD = auto()
    BODY = auto()


class DeadlineProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with deadlines for the client. uvicorn has none for receiving a request."""

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
        self._parser_state = _ParserState.REQUEST
        self._unanswered = deque[RequestResponseCycle]()
        self._head_bytes = 0
        self._body_started = self._body_arrived = False
        self._discarded_bytes = 0
        self._unsent_bytes = 0
        self._head_deadline = _Deadline(self._head_missed)
        self._body_deadline = _Deadline(self._body_missed)
        self._discard_deadline = _Deadline(self._discard_missed)
        self._discarded_at_last_check = 0
        self._write_deadline = _Deadline(self._write_missed)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            longest = next(iter(self.config.waiting), self)
            longest.make_room()
            if longest is self:
                return
        self._await_client()
        _limit_unsent_bytes(transport)
        self._head_deadline.set(self._limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        for deadline in (self._head_deadline, self._body_deadline, self._discard_deadline, self._write_deadline):
            deadline.cancel()
        self._stop_waiting()
        for cycle in self._unanswered:  # uvicorn tells only the last one: the others would never end
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._body_arrived = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._parser_state is _ParserState.BODY:
            self._head_bytes = 0 if self._body_arrived else self._head_bytes + len(data)
            if self._head_bytes > self._limits.head_bytes:
                self.transport.abort()  # the parser holds the end of a chunked body, of any length, in memory
                return
            if not self._body_started and self._is_answering:
                self._await_body()
            return
        if self._parser_state is _ParserState.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's headers are too large")
                return
        # The data may be only blank lines, on which uvicorn stops its keep-alive timer.
        if not self._head_deadline.is_set and (self._parser_state is _ParserState.HEAD or not self._is_answering):
            self._head_deadline.set(self._limits.head_seconds)

    def on_message_begin(self) -> None:
        if len(self._unanswered) > self._limits.waiting_requests:
            raise ValueError("too many requests at once")  # ends the parser's loop over the received data
        self._parser_state = _ParserState.HEAD
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._parser_state is not _ParserState.BODY:  # otherwise it follows the body
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._parser_state, self._head_bytes = _ParserState.BODY, 0
        self._body_started, self._discarded_bytes, self._discarded_at_last_check = False, 0, 0
        self._head_deadline.cancel()
        self._end_wait_for_request()
        super().on_headers_complete()
        self.cycle.transport = _ResponseTransport(self.transport, self.loop)  # its task starts in the loop's next turn
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._body_started = self._body_arrived = True
        super().on_body(body)
        if self._is_answering:
            self._await_body()
            return
        self._discarded_bytes += len(body)
        if self._discarded_bytes > self._limits.discarded_bytes:
            self.transport.abort()

    def on_message_complete(self) -> None:
        self._parser_state = _ParserState.REQUEST
        self._body_deadline.cancel()
        self._discard_deadline.cancel()
        if self._is_answering:
            self._end_wait_for_request()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        super().on_response_complete()
        if not self._unanswered:
            self._await_client()
        if self._parser_state is not _ParserState.BODY:
            return
        if self.expect_100_continue and not self._body_started:
            # The client waits for 100 Continue, and would now send its next request in place of the body.
            self.transport.close()
            return
        self._body_deadline.cancel()
        self._discard_deadline.set(self._limits.discard_seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        self._write_deadline.cancel()
        if self._unanswered:
            self._stop_waiting()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP")

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_client(self) -> None:
        self._stop_waiting()
        self.config.waiting[self] = None

    def _stop_waiting(self) -> None:
        self.config.waiting.pop(self, None)

    def _end_wait_for_request(self) -> None:
        if not self.flow.write_paused:  # a client that does not read keeps the engine waiting all the same
            self._stop_waiting()

    def _await_body(self) -> None:
        self._body_deadline.set(self._limits.idle_seconds)
        if not self.flow.read_paused:  # otherwise the client waits for the engine
            self._await_client()

    def make_room(self) -> None:
        """Close this connection, because there are too many."""
        self._stop_waiting()
        if self._unanswered or self.transport.get_write_buffer_size():
            self.transport.abort()  # the client may never read an answer
        elif self._parser_state is _ParserState.BODY or (self.cycle and self._parser_state is _ParserState.REQUEST):
            self.transport.close()  # it has its answer
        else:
            message = "too many connections; try again later"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, message, "retry-after: 5\r\n")

    def _head_missed(self) -> None:
        if self._parser_state is _ParserState.HEAD:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request's headers did not arrive in time")
        else:
            self.transport.close()  # no request to answer

    def _body_missed(self) -> None:
        if self.flow.read_paused:  # the server stopped reading, not the client sending
            self._body_deadline.set(self._limits.idle_seconds)
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request's body stopped arriving")

    def _discard_missed(self) -> None:
        if self._discarded_bytes < self._discarded_at_last_check + _DISCARD_STEP_BYTES:
            self.transport.abort()
            return
        self._discarded_at_last_check = self._discarded_bytes
        self._discard_deadline.set(self._limits.discard_seconds)

    def _await_reader(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._write_deadline.set(self._limits.idle_seconds)
        self._await_client()

    def _write_missed(self) -> None:
        if self.transport.get_write_buffer_size() < self._unsent_bytes:
            self._await_reader()  # the client reads slowly
        else:
            self.transport.abort()

    def _refuse(self, status: HTTPStatus, message: str, headers: str = "") -> None:
        """Send an error response, unless another response has started, and close the connection.

        headers: further header lines, each with its line break.
        """
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
