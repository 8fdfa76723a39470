"""An HTTP proxy that connects to the hosts that a job may reach, and refuses all others.

It resolves names itself and connects to checked addresses only. A tunnel to the port 443 must begin with TLS for the
same host, and one to the port 80 is for one request to it, so that no other server at the same address can be reached.
"""

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from labrats.executor.egress.gateway import ConnectionRefused, Ends, Gateway, authority
from labrats.executor.egress.server_name import ClientHello
from labrats.model.errors import LabratsError
from labrats.net.address_policy import Forbidden, Unresolvable, resolve_allowed
from labrats.sandbox.network_namespace import LOOPBACK

HEAD_BYTES: Final = 16 * 1024
HEAD_SECONDS: Final = 20.0
CONNECT_SECONDS: Final = 10.0
CONNECTIONS: Final = 256
"""Connections of one attempt to a port at the same time. Further ones wait."""

_HELLO_BYTES: Final = 16 * 1024 + 5
_CHUNK_BYTES: Final = 64 * 1024
_HTTP: Final = 80
_HTTPS: Final = 443
_EVERYWHERE: Final = ("0.0.0.0/0", "::/0")
_TLS_HANDSHAKE: Final = b"\x16\x03"
_HOP_BY_HOP: Final = frozenset(
    ("connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "upgrade", "host")
)
_INTERIM: Final = b"HTTP/1.1 1"
"""Start of a response that another one follows, such as `100 Continue`."""

_REQUEST: Final = re.compile(rb"([A-Z]{1,20}) ([!-~]{1,8192}) HTTP/1\.[01]")
_HOST: Final = r"(?P<host>[A-Za-z0-9_.-]{1,254}|\[[0-9A-Fa-f:.]{2,45}\])"
_HOST_AND_PORT: Final = re.compile(rf"{_HOST}:(?P<port>[0-9]{{1,5}})")
_AUTHORITY: Final = re.compile(rf"{_HOST}(:[0-9]{{0,5}})?")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}):([\x20-\x7e\x80-\xff\t]*)")


Headers = list[tuple[str, bytes]]


class RequestRefused(LabratsError):
    """The proxy does not serve this request. status: of the response."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class HostRule:
    """The rule of one attempt.

    allows:           whether a host, by its name, and a port may be reached.
    private_networks: networks in CIDR notation that may be reached in addition to public addresses.
    on_refusal:       called with each `host:port` that was refused, and the reason.
    model_server:     host and port of the model's server, which the operator has set: any address is allowed for it.
    gateway:          the proxy to connect through, which decides about addresses. None to connect from here.
    names:            whether the rule allows a host by its own name. The answer about any other name does not reveal
                      whether it exists, since an agent could find out the names of a private network.
    forbidden:        networks in CIDR notation that are not public, such as a cluster's own with public addresses.
    lookups:          the attempt's share of the lookups of names at the same time; None for a proxy of its own.
    inspects:         whether a tunnel to the ports 443 and 80 must be for the host that it names. Another host at the
                      same address could be reached otherwise, which matters only if the rule is about names.
    receive_bytes:    size of the kernel's buffer for what a server sends; None for a size that the kernel adjusts.
    """

    allows: Callable[[str, int], bool]
    private_networks: tuple[str, ...]
    on_refusal: Callable[[str, str], None]
    model_server: tuple[str, int] | None = None
    gateway: Gateway | None = None
    names: Callable[[str, int], bool] = lambda _host, _port: False
    forbidden: tuple[str, ...] = ()
    lookups: threading.Semaphore | None = None
    receive_bytes: int | None = None
    inspects: bool = True

    async def connect(self, host: str, port: int) -> Ends:
        """Connect to a host that may be reached. Raises RequestRefused, which is reported."""
        if not ((host, port) == self.model_server or self.allows(host, port)):
            self.on_refusal(authority(host, port), "the network rule does not allow it")
            raise RequestRefused(
                "403 Forbidden", f"the network rule of this job does not allow {authority(host, port)}"
            )
        if self.gateway is None or (host, port) == self.model_server == (LOOPBACK, port):
            return await _connect(await self._addresses(host, port), port, self.receive_bytes)
        try:
            return await self.gateway.connect(host, port)
        except ConnectionRefused as refusal:
            if refusal.status.startswith("403"):
                self.on_refusal(authority(host, port), str(refusal))
            raise RequestRefused(refusal.status, str(refusal)) from None

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of an allowed host, if all of them may be reached. Raises RequestRefused."""
        is_model_server = (host, port) == self.model_server
        try:
            allowed = _EVERYWHERE if is_model_server else self.private_networks
            return await resolve_allowed(host, port, allowed, self.forbidden, self.lookups)
        except (Forbidden, Unresolvable) as error:
            if is_model_server or self.names(host, port):
                if isinstance(error, Unresolvable):
                    raise RequestRefused("502 Bad Gateway", str(error)) from None
                message = f"{host} has an address that jobs must not reach"
            else:
                message = f"{host} has no address that jobs may reach"
            self.on_refusal(authority(host, port), f"{message}; OUTBOUND_ALLOWED_CIDRS allows private networks")
            raise RequestRefused("403 Forbidden", message) from None


class EgressProxy:
    """The proxy of one attempt. Each accepted connection is served by a task of the current event loop."""

    def __init__(self, rule: HostRule) -> None:
        self._rule = rule

    async def serve(self, client: socket.socket) -> None:
        """Serve one connection to its end."""
        reader, writer = await asyncio.open_connection(sock=client, limit=HEAD_BYTES)
        with closing(writer), suppress(OSError):
            async with refusals_answered(writer):
                await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, headers = await read_head(reader)
        if method == "CONNECT":
            await self.tunnel(target, reader, writer)
        else:
            await self._forward(method, target, headers, reader, writer)

    async def tunnel(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect the client with `host:port`. Raises RequestRefused."""
        if (parts := _HOST_AND_PORT.fullmatch(target)) is None:
            raise RequestRefused("400 Bad Request", "CONNECT needs a target such as pypi.org:443")
        host, port = parts["host"].lower().rstrip(".").strip("[]"), int(parts["port"])
        upstream = await self._rule.connect(host, port)
        with closing(upstream[1]):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            if port == _HTTP and self._rule.inspects:
                await self._forward_inside(host, reader, writer, upstream)
                return
            first = await self._first_bytes(host, port, reader)
            if first is None:
                self._rule.on_refusal(authority(host, port), "a connection to the port 443 must be TLS for this host")
                return
            upstream[1].write(first)
            await _relay((reader, writer), upstream)

    async def _first_bytes(self, host: str, port: int, reader: asyncio.StreamReader) -> bytes | None:
        """Read the beginning of a tunnel. None if it is for another server than `host`.

        On other ports than 443 and 80 the server may send first, so nothing is read, and the protocol may be any. A
        client sends no name for a server that it knows by its address.
        """
        if port != _HTTPS or _is_address(host) or not self._rule.inspects:
            return b""
        received, hello = bytearray(), ClientHello()
        async with asyncio.timeout(HEAD_SECONDS):
            while len(received) < _HELLO_BYTES and (chunk := await reader.read(_CHUNK_BYTES)):
                received += chunk
                if not _TLS_HANDSHAKE.startswith(received[:2]):
                    return None
                if hello.feed(chunk):
                    return bytes(received) if hello.server_name == host else None
        return None

    async def _forward(
        self,
        method: str,
        target: str,
        headers: Headers,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Forward one request for an http URL, and its response. Raises RequestRefused."""
        try:
            url = urlsplit(target)
            host, port = (url.hostname or "").rstrip("."), url.port or 80
        except ValueError:
            host = ""
        if not host or url.scheme != "http" or not _AUTHORITY.fullmatch(url.netloc):
            raise RequestRefused("400 Bad Request", "this proxy takes CONNECT, and requests for http:// URLs")
        length = _body_length(headers)
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        upstream = await self._rule.connect(host, port)
        with closing(upstream[1]):
            upstream[1].write(b"".join(_forwarded_head(method, target, host, port, headers)))
            await _exchange((reader, writer), upstream, length)

    async def _forward_inside(
        self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: Ends
    ) -> None:
        """Forward the request inside a tunnel to the port 80, and its response. Raises RequestRefused."""
        method, target, headers = await read_head(reader)
        if not target.startswith("/"):
            raise RequestRefused("400 Bad Request", "a request in a tunnel needs a path")
        named = [_host_of(value) for name, value in headers if name == "host"]
        if named != [host]:
            reason = f"the request in the tunnel must be for {host}, by its Host header"
            self._rule.on_refusal(authority(host, _HTTP), reason)
            raise RequestRefused("403 Forbidden", reason)
        length = _body_length(headers)
        upstream[1].write(b"".join(_forwarded_head(method, target, host, _HTTP, headers)))
        await _exchange((reader, writer), upstream, length)


@asynccontextmanager
async def refusals_answered(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Answer the client if its request is refused in the context."""
    try:
        yield
    except RequestRefused as refusal:
        text = f"{refusal}\n".encode()
        head = f"HTTP/1.1 {refusal.status}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + text)
        await writer.drain()


async def read_head(reader: asyncio.StreamReader) -> tuple[str, str, Headers]:
    """Read the head of a request: its method, target and headers. Raises RequestRefused."""
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        raise ConnectionAbortedError from None
    except asyncio.LimitOverrunError:
        raise RequestRefused("431 Request Header Fields Too Large", "the head of the request is too large") from None
    first, *lines = head[:-4].split(b"\r\n")
    request, headers = _REQUEST.fullmatch(first), list(map(_HEADER.fullmatch, lines))
    if request is None or not all(headers):
        raise RequestRefused("400 Bad Request", "the head of the request is not valid HTTP/1.1")
    found = [(each[1].decode().lower(), each[2].strip(b" \t")) for each in headers if each]
    return request[1].decode(), request[2].decode(), found


def _body_length(headers: Headers) -> int:
    """Return the length of the request's body; 0 without one. Raises RequestRefused for several or invalid ones."""
    lengths = {value for name, value in headers if name == "content-length"}
    if any(name == "transfer-encoding" for name, _ in headers):
        raise RequestRefused("411 Length Required", "a body needs a Content-Length")
    if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,18}", value) for value in lengths):
        raise RequestRefused("400 Bad Request", "the Content-Length is not a number")
    return int(lengths.pop()) if lengths else 0


def _host_of(header: bytes) -> str:
    """Return the host in a Host header, as in `HostRule.connect`; empty if the header names another port than 80."""
    host, port = header.decode("latin-1").lower(), ""
    if found := _HOST_AND_PORT.fullmatch(host):
        host, port = found["host"], found["port"]
    return host.rstrip(".").strip("[]") if port in ("", str(_HTTP)) else ""


def _forwarded_head(method: str, target: str, host: str, port: int, headers: Headers) -> Iterator[bytes]:
    """Yield the head for the server. It names the allowed host, and the connection serves no further request."""
    named = authority(host, port).removesuffix(f":{_HTTP}")
    yield f"{method} {target} HTTP/1.1\r\nHost: {named}\r\nConnection: close\r\n".encode()
    for name, value in headers:
        if name not in _HOP_BY_HOP:
            yield name.encode() + b": " + value + b"\r\n"
    yield b"\r\n"


async def _exchange(client: Ends, server: Ends, length: int) -> None:
    """Send the body of a request, of `length` bytes, while the response is copied."""
    sending = asyncio.create_task(_send_body(client[0], server[1], length))
    try:
        await _copy_response(server[0], client[1])
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)  # a failure shows in the response


async def _copy_response(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy a response. Its head says that the connection ends: a client would otherwise send another request to it."""
    try:
        while (head := await reader.readuntil(b"\r\n\r\n")).startswith(_INTERIM):
            writer.write(head)
            await writer.drain()
        writer.write(_closing_head(head))
    except asyncio.IncompleteReadError as cut:
        writer.write(cut.partial)
    except asyncio.LimitOverrunError:
        pass  # too large a head is copied as it is
    await _copy(reader, writer)


def _closing_head(head: bytes) -> bytes:
    """Return the head of a response with `Connection: close`."""
    status, *lines = head[:-4].split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in (b"connection", b"keep-alive")]
    return b"\r\n".join([status, *kept, b"Connection: close", b"", b""])


async def _send_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
    while length and (chunk := await reader.read(min(length, _CHUNK_BYTES))):
        length -= len(chunk)
        writer.write(chunk)
        await writer.drain()


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(host))
    return False


async def _connect(addresses: list[str], port: int, receive_bytes: int | None) -> Ends:
    """Connect to the first address that answers. Raises RequestRefused if none does."""
    for address in addresses:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(address, port)
            if receive_bytes:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            return reader, writer
    raise RequestRefused("502 Bad Gateway", "the host cannot be reached")


async def _relay(client: Ends, server: Ends) -> None:
    """Copy bytes in both directions until both have ended, or one fails."""
    try:
        async with asyncio.TaskGroup() as directions:
            directions.create_task(_copy_and_end(client[0], server[1]))
            directions.create_task(_copy_and_end(server[0], client[1]))
    except* OSError:
        pass  # a connection was cut


async def _copy_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _copy(reader, writer)
    if writer.can_write_eof():
        writer.write_eof()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()


async def relay_to(client: socket.socket, port: int) -> None:
    """Connect an accepted connection with a server on this machine's loopback. Closes it if there is none."""
    with suppress(OSError):
        ours = await asyncio.open_connection(sock=client)
        with closing(ours[1]):
            server = await asyncio.open_connection(LOOPBACK, port)
            with closing(server[1]):
                await _relay(ours, server)
