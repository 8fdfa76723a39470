"""An HTTP client for URLs that users choose: callbacks and model files.

Every connection is checked by `labrats.net.address_policy` and goes to the checked address. The client ignores proxy
variables, follows redirects only on request, decompresses nothing and reuses no connection.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Semaphore
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit

import httpcore2

from labrats.model.errors import LabratsError
from labrats.net.address_policy import Forbidden, is_allowed, is_named, parse_networks, resolve_allowed
from labrats.net.tls import system_tls

IDLE_SECONDS: Final = 10.0
"""Timeout for connecting, and for each read and write."""

HEAD_BYTES: Final = 64 * 1024
"""Limit on what a server sends up to the end of the response's head, with any number of responses such as 100."""

_HEAD_PART_BYTES: Final = 4 * 1024
"""Limit on one read of it: no server can occupy the event loop with hundreds of small responses for long."""

_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_FAILURES: Final = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError)
_HOST: Final = re.compile(r"[a-z0-9._-]*|[0-9a-f:.]+(%[a-z0-9._-]+)?")
_KEPT_IN_TARGETS: Final = "/?&=+$,;:@!'()*~%[]-._"


class InvalidUrl(LabratsError):
    """The text is not a URL that the client accepts. The message names the problem."""


class Unreachable(LabratsError):
    """No response. The message has no reason, so that callers learn nothing about the network of the engine."""


@dataclass(frozen=True)
class Url:
    """An http or https URL in its parts. `host` is ASCII; `target` is the encoded path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True)
class Response:
    """An HTTP response. Header names are in lower case. `body` can be read once, within the block of the request."""

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]

    async def head(self, size: int) -> bytes:
        """Return up to `size` bytes from the beginning of the body. The rest is not read."""
        head = b""
        async for chunk in self.body:
            head += chunk
            if len(head) >= size:
                break
        return head[:size]


class OutboundClient:
    """An HTTP client without state between requests, so that it can be shared and needs no closing."""

    def __init__(
        self, allowed_cidrs: Sequence[str] = (), allowed_hosts: Iterable[str] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        """allowed_cidrs: networks that may be reached in addition to public addresses.
        allowed_hosts: names, with or without a port, that may be reached whatever their address.
        tls: the trusted certificates; by default, those of the system.
        """
        self._allowed_cidrs, self._allowed_hosts, self._tls = allowed_cidrs, frozenset(allowed_hosts), tls

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        idle_seconds: float = IDLE_SECONDS,
        redirects: int = 0,
        share: Semaphore | None = None,
    ) -> AsyncIterator[Response]:
        """Send a request and yield its response. The caller limits the total time.

        redirects: the number of redirects to follow. Each target is checked, and none leads from https to http. The
        response to the last request is yielded even if it redirects further.
        share: of the lookups of names, see `resolve_allowed`.
        Raises InvalidUrl, Forbidden, Unresolvable or Unreachable; reading the body may raise Unreachable, too.
        """
        parsed = parse_url(url)
        for followed in range(redirects + 1):
            async with self._exchange(method, parsed, headers or {}, content, idle_seconds, share) as response:
                target = _redirect_target(parsed, response) if followed < redirects else None
                if target is None:
                    yield response
                    return
            parsed = target

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        content: bytes,
        idle_seconds: float,
        share: Semaphore | None,
    ) -> AsyncIterator[Response]:
        request = httpcore2.Request(
            method,
            httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
            headers=_headers_to_send(method, url, headers, content),
            content=content,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), idle_seconds)},
        )
        tls = (self._tls or await asyncio.to_thread(system_tls)) if url.scheme == "https" else None
        head = _Head()
        network = _CheckedNetwork(self._allowed_cidrs, self._allowed_hosts, share, head)
        connection = httpcore2.AsyncHTTPConnection(request.url.origin, ssl_context=tls, network_backend=network)
        try:
            response = await _wait_for(connection.handle_async_request(request), url)
            head.is_complete = True
            async with aclosing(_body(response, url)) as body:
                yield Response(response.status, _headers_received(response), body)
        finally:
            await connection.aclose()


@dataclass
class _Head:
    """Progress of the head of a response. bytes_left: of its limit."""

    bytes_left: int = HEAD_BYTES
    is_complete: bool = False


class _LimitedStream(httpcore2.AsyncNetworkStream):
    """A stream that fails when the head of a response is too long."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream, head: _Head) -> None:
        self._stream, self._head = stream, head

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._head.is_complete:
            return await self._stream.read(max_bytes, timeout)
        if self._head.bytes_left <= 0:
            raise httpcore2.ReadError("the head of the response is too long")
        data = await self._stream.read(min(max_bytes, _HEAD_PART_BYTES), timeout)
        self._head.bytes_left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return _LimitedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._head)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """A network backend for one exchange that connects to allowed addresses only."""

    def __init__(
        self, allowed_cidrs: Sequence[str], allowed_hosts: frozenset[str], share: Semaphore | None, head: _Head
    ) -> None:
        self._allowed_cidrs, self._allowed_hosts, self._share, self._head = allowed_cidrs, allowed_hosts, share, head
        self._sockets = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve and check the host, then connect to the first of its addresses that answers. Each has `timeout`."""
        if is_named(host, port, self._allowed_hosts):
            stream = await self._sockets.connect_tcp(host, port, timeout, local_address, socket_options)
            return _LimitedStream(stream, self._head)
        failure: Exception | None = None
        for address in await resolve_allowed(host, port, self._allowed_cidrs, share=self._share):
            try:
                stream = await self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
                continue
            await self._check_peer(stream, host)
            return _LimitedStream(stream, self._head)
        assert failure is not None, "a resolved name has an address"
        raise failure

    async def _check_peer(self, stream: httpcore2.AsyncNetworkStream, host: str) -> None:
        peer = stream.get_extra_info("server_addr")[0]
        if not is_allowed(ip_address(peer), parse_networks(self._allowed_cidrs)):
            await stream.aclose()
            raise Forbidden(f"the address of {host!r} is not allowed")


def parse_url(url: str) -> Url:
    """Parse a URL. Raises InvalidUrl."""
    if "\\" in url or any(ord(character) <= 32 or ord(character) == 127 for character in url):
        raise InvalidUrl("a URL must not contain spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        host, port = _ascii_host(parts.hostname or ""), parts.port
        target = quote(parts.path or "/", safe=_KEPT_IN_TARGETS)
        query = f"?{quote(parts.query, safe=_KEPT_IN_TARGETS)}" if parts.query else ""
    except ValueError:  # includes the UnicodeError of an invalid host name or a lone surrogate
        raise InvalidUrl("the URL is malformed") from None
    if parts.scheme not in _PORTS or not host:
        raise InvalidUrl("a URL must start with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise InvalidUrl("a URL must not contain credentials")
    if port == 0:
        raise InvalidUrl("the port must be between 1 and 65535")
    return Url(parts.scheme, host, port or _PORTS[parts.scheme], target + query)


def _ascii_host(host: str) -> str:
    ascii_host = host if host.isascii() else host.encode("idna").decode("ascii").lower()
    if not _HOST.fullmatch(ascii_host):
        raise ValueError(host)
    return ascii_host


def _redirect_target(url: Url, response: Response) -> Url | None:
    """Return the target of a redirect; None for any other response and for a redirect from https to http."""
    if response.status not in _REDIRECTS or "location" not in response.headers:
        return None
    try:
        target = parse_url(urljoin(url.text, response.headers["location"]))
    except ValueError:  # from urljoin
        raise InvalidUrl("the target of the redirect is malformed") from None
    return None if (url.scheme, target.scheme) == ("https", "http") else target


def _headers_to_send(method: str, url: Url, headers: Mapping[str, str], content: bytes) -> list[tuple[bytes, bytes]]:
    defaults = {"host": url.authority, "accept-encoding": "identity", "connection": "close", "user-agent": "labrats"}
    if content or method in ("POST", "PUT", "PATCH"):
        defaults["content-length"] = str(len(content))
    sent = defaults | {name.lower(): value for name, value in headers.items()}
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in sent.items()]


def _headers_received(response: httpcore2.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


async def _wait_for(response: Awaitable[httpcore2.Response], url: Url) -> httpcore2.Response:
    try:
        return await response
    except _FAILURES as error:
        raise Unreachable(f"no response from {url.host}") from error


async def _body(response: httpcore2.Response, url: Url) -> AsyncGenerator[bytes]:
    try:
        async for chunk in response.aiter_stream():
            yield chunk
    except _FAILURES as error:
        raise Unreachable(f"the response from {url.host} was interrupted") from error
