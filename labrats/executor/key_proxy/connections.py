"""Connections of the key proxy: HTTP/1.1 on asyncio's streams, and a pool of those to the model's server."""

import asyncio
import functools
import os
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

import h11

from labrats.executor.egress.gateway import ConnectionRefused, Ends, Gateway
from labrats.executor.key_proxy.model_server import ApprovedRequest, ModelServer, RunningRequest
from labrats.executor.key_proxy.responses import Refused, Unanswered
from labrats.net.tls import verifying_tls
from labrats.sandbox.network_namespace import LOOPBACK

HEAD_BYTES: Final = 64 * 1024
READ_BYTES: Final = 64 * 1024

Event = h11.Request | h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage | h11.ConnectionClosed


@dataclass
class HttpConnection:
    """A connection to a client (`role` is h11.SERVER) or to a server (h11.CLIENT). was_used: by an earlier request."""

    role: type[h11.SERVER] | type[h11.CLIENT]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    was_used: bool = False
    http: h11.Connection = field(init=False)

    def __post_init__(self) -> None:
        self.http = h11.Connection(self.role, max_incomplete_event_size=HEAD_BYTES)

    async def receive(self) -> Event:
        """Return the next event. Raises OSError and h11.RemoteProtocolError."""
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                if self.http.they_are_waiting_for_100_continue:
                    await self.send(h11.InformationalResponse(status_code=100, headers=[]))
                self.http.receive_data(await self.reader.read(READ_BYTES))
            else:
                assert event is not h11.PAUSED
                return event  # type: ignore[return-value]

    async def send(self, *events: h11.Event) -> None:
        """Send events, and wait while the other side does not read."""
        if data := b"".join(self.http.send(event) or b"" for event in events):
            self.writer.write(data)
            await self.writer.drain()

    async def closed_by_peer(self) -> None:
        """Wait until the other side closes the connection. What it sends before is read later."""
        unread = 0
        while data := await self.reader.read(READ_BYTES):
            self.http.receive_data(data)
            unread += len(data)
            if unread > HEAD_BYTES:  # leave the rest in the socket's buffer
                await asyncio.Event().wait()
        self.http.receive_data(b"")

    def start_next_cycle(self) -> bool:
        """Prepare for another request. Return False if the connection must be closed."""
        self.was_used = True
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            return True
        return False

    @property
    def is_open(self) -> bool:
        """True unless the other side is known to have closed the connection."""
        return not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        """Close the connection, after sending what is still buffered."""
        self.writer.close()

    async def close_after_sending(self) -> None:
        """Close the connection, and wait until the other side has everything. Raises OSError."""
        self.writer.close()
        await self.writer.wait_closed()

    def abort(self) -> None:
        """Close the connection without sending what is still buffered, so that the other side notices the failure."""
        self.writer.transport.abort()


CONNECT_SECONDS: Final = 15.0

_STALE_SECONDS: Final = 1.0
"""Time within which a request fails whose connection the server had closed before."""

_MOST_IDLE: Final = 8
_PART_BYTES: Final = 256 * 1024
_CA_FILES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""Files with the system's certificates. Operators mount a private authority over the first in pods, as git reads it."""


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Return the context that verifies servers by the system's certificates, or those that SSL_CERT_FILE names."""
    paths = ssl.get_default_verify_paths()
    if any(os.environ.get(name) for name in (paths.openssl_cafile_env, paths.openssl_capath_env)):
        return verifying_tls()
    return verifying_tls(next((file for file in map(Path, _CA_FILES) if file.exists()), None))


class Upstream:
    """The connections of one attempt to the model's server.

    gateway: the proxy to connect through; None to connect from here.
    """

    def __init__(self, server: ModelServer, gateway: Gateway | None = None) -> None:
        self._server, self._gateway = server, gateway
        self._idle: list[HttpConnection] = []

    async def request(self, sent: RunningRequest) -> tuple[HttpConnection, h11.Response]:
        """Send a request. Return its connection and the head of the response. Raises Refused if the server is no use.

        A server may close a connection that waits for a request. One more connection is then tried, unless the server
        may have worked on the request.
        """
        while True:
            sent.at = None
            connection = await self._connect()
            try:
                await _send(connection, sent.request)
                sent.at = monotonic()
                return connection, await _receive(connection)
            except (OSError, EOFError, h11.RemoteProtocolError) as error:
                connection.abort()
                if not connection.was_used or sent.seconds() > _STALE_SECONDS:
                    reason = _reason(error, has_closed=connection.http.trailing_data[1])
                    raise Unanswered(502, f"the model's server at {self._server.address} {reason}") from error
            except BaseException:
                connection.abort()
                raise

    def release(self, connection: HttpConnection) -> None:
        """Keep a connection, whose response was read to its end, for another request."""
        if connection.start_next_cycle() and connection.is_open and len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the connections that wait for a request."""
        while self._idle:
            self._idle.pop().abort()

    async def _connect(self) -> HttpConnection:
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
            connection.abort()
        server = self._server
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                streams = await self._open()
        except TimeoutError:
            message = f"accepted no connection within {CONNECT_SECONDS:g} seconds"
            raise Refused(502, f"the model's server at {server.address} {message}") from None
        except (OSError, ConnectionRefused) as error:
            raise Refused(502, f"the model's server at {server.address} cannot be reached: {_text(error)}") from error
        return HttpConnection(h11.CLIENT, *streams)

    async def _open(self) -> Ends:
        server, tls = self._server, tls_context() if self._server.is_secure else None
        if self._gateway is None:
            return await _connect(server.host, server.port, tls)
        reader, writer = await self._gateway.connect(server.host, server.port)
        if tls:
            try:
                await writer.start_tls(tls, server_hostname=server.host)
            except BaseException:
                writer.transport.abort()
                raise
        return reader, writer


async def _connect(host: str, port: int, tls: ssl.SSLContext | None) -> Ends:
    """Connect to a server. `localhost` is 127.0.0.1 where that answers: an agent could listen on the port of ::1."""
    if host == "localhost":
        with suppress(ConnectionRefusedError):
            return await asyncio.open_connection(LOOPBACK, port, ssl=tls, server_hostname=host if tls else None)
    return await asyncio.open_connection(host, port, ssl=tls)


async def _send(connection: HttpConnection, request: ApprovedRequest) -> None:
    head = h11.Request(method=request.method, target=request.target, headers=list(request.headers))
    first, size = request.body[:_PART_BYTES], len(request.body)
    # A larger body is copied in parts, as fast as the server reads it.
    await connection.send(head, *([h11.Data(data=first)] if first else []))
    for start in range(_PART_BYTES, size, _PART_BYTES):
        await connection.send(h11.Data(data=request.body[start : start + _PART_BYTES]))
    await connection.send(h11.EndOfMessage())


async def _receive(connection: HttpConnection) -> h11.Response:
    """Return the head of the response."""
    while True:
        event = await connection.receive()
        if isinstance(event, h11.Response):
            return event
        if not isinstance(event, h11.InformationalResponse):
            raise EOFError("it closed the connection without an answer")


def _reason(error: BaseException, *, has_closed: bool) -> str:
    """Return why a request has no response. has_closed: whether the server has ended its half of the connection."""
    if isinstance(error, h11.RemoteProtocolError):
        return "closed the connection without an answer" if has_closed else f"answered with invalid HTTP: {error}"
    return f"closed the connection without an answer: {_text(error)}"


def _text(error: BaseException) -> str:
    """Return the system's message for an error, which asyncio replaces by its own, or else the text of the error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        number = error.errno or 0
        return os.strerror(number) if number > 0 else error.strerror or str(error)  # failed look-ups are negative
    return str(error) or type(error).__name__
