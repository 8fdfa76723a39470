"""Requests to addresses that users name: callbacks and model files.

Every connection is checked by `labrats.net.address_policy` and pinned to the checked address. Nothing is taken from the
environment (no proxy), no redirect is followed unasked, no answer is decompressed, and no connection is kept.
"""

import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

import httpcore2

from labrats.model.errors import LabratsError
from labrats.net.address_policy import Forbidden, is_allowed, is_named, parse_networks, resolve_allowed

IDLE_SECONDS: Final = 10.0
"""How long the other side may be silent: while connecting, between two reads, while it takes nothing."""

_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_FAILURES: Final = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError)
_HOST: Final = re.compile(r"[a-z0-9._-]*|[0-9a-f:.]+(%[a-z0-9._-]+)?")
_KEPT_IN_TARGETS: Final = "/?&=+$,;:@!'()*~%[]-._"


class Malformed(LabratsError):
    """The text is no address that the client goes to: it says what would be."""


class Unreachable(LabratsError):
    """No answer came, for whatever reason: it says nothing of what is or is not there."""


@dataclass(frozen=True)
class Address:
    """An http or https address in its parts. `host` is ASCII, `target` the path and query as they are sent."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True)
class Answer:
    """What came back. Header names are in lower case; `body` can be read once, while the request's block lasts."""

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]

    async def head(self, size: int) -> bytes:
        """At most the first `size` bytes of the body; the rest is not read."""
        head = b""
        async for chunk in self.body:
            head += chunk
            if len(head) >= size:
                break
        return head[:size]


class OutboundClient:
    """Sends requests; keeps nothing between two of them, so it can be shared and needs no closing."""

    def __init__(
        self, allowed_cidrs: Sequence[str] = (), allowed_hosts: Iterable[str] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        """allowed_cidrs: networks that may be reached beside public ones.
        allowed_hosts: names, and names with a port, that may be reached wherever they are.
        tls: whom to trust; default: whom the system does.
        """
        self._network = _JudgedNetwork(allowed_cidrs, frozenset(allowed_hosts))
        self._tls = tls or httpcore2.default_ssl_context()

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
    ) -> AsyncIterator[Answer]:
        """Send one request, and read its answer within the block; how long all of it may take is the caller's to bound.

        redirects: how many may be followed, each judged anew, never from https to http; one too many is an answer like
        any other. Raises Malformed, Forbidden, Unresolvable, and Unreachable, this last also while the body is read.
        """
        address = parse_address(url)
        for followed in range(redirects + 1):
            async with self._exchange(method, address, headers or {}, content, idle_seconds) as answer:
                onward = _redirected(address, answer) if followed < redirects else None
                if onward is None:
                    yield answer
                    return
            address = onward

    @asynccontextmanager
    async def _exchange(
        self, method: str, address: Address, headers: Mapping[str, str], content: bytes, idle_seconds: float
    ) -> AsyncIterator[Answer]:
        request = httpcore2.Request(
            method,
            httpcore2.URL(scheme=address.scheme, host=address.host, port=address.port, target=address.target),
            headers=_headers_to_send(method, address, headers, content),
            content=content,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), idle_seconds)},
        )
        connection = httpcore2.AsyncHTTPConnection(
            request.url.origin, ssl_context=self._tls, network_backend=self._network
        )
        try:
            response = await _reached(connection.handle_async_request(request), address)
            async with aclosing(_body(response, address)) as body:
                yield Answer(response.status, _headers_received(response), body)
        finally:
            await connection.aclose()


class _JudgedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to judged addresses only."""

    def __init__(self, allowed_cidrs: Sequence[str], allowed_hosts: frozenset[str]) -> None:
        self._allowed_cidrs, self._allowed_hosts = allowed_cidrs, allowed_hosts
        self._sockets = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, judge, connect to what was judged, and look who is there. Each address is given the whole time."""
        if is_named(host, port, self._allowed_hosts):
            return await self._sockets.connect_tcp(host, port, timeout, local_address, socket_options)
        failure: Exception | None = None
        for address in await resolve_allowed(host, port, self._allowed_cidrs):
            try:
                stream = await self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
                continue
            await self._check_peer(stream, host)
            return stream
        assert failure is not None, "a name that resolved has an address"
        raise failure

    async def _check_peer(self, stream: httpcore2.AsyncNetworkStream, host: str) -> None:
        peer = stream.get_extra_info("server_addr")[0]
        if not is_allowed(ip_address(peer), parse_networks(self._allowed_cidrs)):
            await stream.aclose()
            raise Forbidden(f"the address of {host!r} is not allowed")


def parse_address(url: str) -> Address:
    """The parts of `url`. Raises Malformed."""
    if "\\" in url or any(ord(character) <= 32 or ord(character) == 127 for character in url):
        raise Malformed("an address has no spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        host, port = _ascii_host(parts.hostname or ""), parts.port
        target = quote(parts.path or "/", safe=_KEPT_IN_TARGETS)
        query = f"?{quote(parts.query, safe=_KEPT_IN_TARGETS)}" if parts.query else ""
    except ValueError:  # a UnicodeError too, for a host that is no name and a text that is no Unicode
        raise Malformed("the address is not well-formed") from None
    if parts.scheme not in _PORTS or not host:
        raise Malformed("an address starts with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise Malformed("an address must not carry a credential")
    if port == 0:
        raise Malformed("the port must be 1 to 65535")
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], target + query)


def _ascii_host(host: str) -> str:
    ascii_host = host if host.isascii() else host.encode("idna").decode("ascii").lower()
    if not _HOST.fullmatch(ascii_host):
        raise ValueError(host)
    return ascii_host


def _redirected(address: Address, answer: Answer) -> Address | None:
    """Where `answer` sends to; None where it does not, or where that may not be gone to without a second thought."""
    if answer.status not in _REDIRECTS or "location" not in answer.headers:
        return None
    try:
        onward = parse_address(urljoin(address.url, answer.headers["location"]))
    except ValueError:  # of urljoin
        raise Malformed("the address that it redirects to is not well-formed") from None
    return None if (address.scheme, onward.scheme) == ("https", "http") else onward


def _headers_to_send(
    method: str, address: Address, headers: Mapping[str, str], content: bytes
) -> list[tuple[bytes, bytes]]:
    ours = {"host": address.authority, "accept-encoding": "identity", "connection": "close", "user-agent": "labrats"}
    if content or method in ("POST", "PUT", "PATCH"):
        ours["content-length"] = str(len(content))
    sent = ours | {name.lower(): value for name, value in headers.items()}
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in sent.items()]


def _headers_received(response: httpcore2.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


async def _reached(response: Awaitable[httpcore2.Response], address: Address) -> httpcore2.Response:
    try:
        return await response
    except _FAILURES as error:
        raise Unreachable(f"no answer came from {address.host}") from error


async def _body(response: httpcore2.Response, address: Address) -> AsyncGenerator[bytes]:
    try:
        async for chunk in response.aiter_stream():
            yield chunk
    except _FAILURES as error:
        raise Unreachable(f"the answer of {address.host} broke off") from error
