"""Requests to URLs that users choose, over real sockets."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.net.address_policy import Forbidden, Unresolvable
from labrats.net.client import HEAD_BYTES, IDLE_SECONDS, InvalidUrl, OutboundClient, Unreachable, parse_url
from tests.unit.net.test_address_policy import LOOPBACK_SPELLINGS, METADATA_SPELLINGS, PRIVATE_SPELLINGS

OPEN = ["127.0.0.0/8"]


@dataclass
class Server:
    """A server on loopback that sends prepared replies and records the requests."""

    replies: list[bytes]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    after_reply: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
            )
            self.requests.append(head + await reader.readexactly(length))
            writer.write(self.replies[min(len(self.requests), len(self.replies)) - 1])
            await writer.drain()
            if self.after_reply:
                await self.after_reply(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # some tests are about a client that disconnects
        finally:
            writer.close()


@asynccontextmanager
async def a_server(*replies: bytes, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    server = Server(list(replies) or [reply()])
    async with await asyncio.start_server(server.serve, host) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


def reply(body: bytes = b"ok", status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def redirect(location: str) -> bytes:
    return reply(b"", "302 Found", location=location)


async def fetch(client: OutboundClient, url: str, **options: Any) -> tuple[int, bytes]:
    async with asyncio.timeout(20), client.send("GET", url, **options) as response:
        return response.status, await response.head(1024)


def names_resolve(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Answer each look-up of a name with the next of `answers`, then with the last one, as with a TTL of 0."""
    upcoming = itertools.chain(answers, itertools.repeat(answers[-1]))

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(upcoming)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def test_a_request_reaches_an_allowed_network() -> None:
    async with a_server(reply(b"hello", etag="7")) as server:
        sending = OutboundClient(OPEN).send("POST", server.url("/hook?a=1"), headers={"X-Id": "3"}, content=b'{"a":1}')
        async with sending as response:
            assert (response.status, response.headers["etag"], await response.head(100)) == (200, "7", b"hello")
    head, body = server.requests[0].split(b"\r\n\r\n")
    assert head.startswith(b"POST /hook?a=1 HTTP/1.1\r\n")
    assert f"host: 127.0.0.1:{server.port}".encode() in head
    assert b"x-id: 3" in head
    assert body == b'{"a":1}'


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
async def test_no_spelling_of_a_loopback_address_is_connected_to(host: str) -> None:
    async with a_server(host="0.0.0.0") as canary:
        with pytest.raises((Forbidden, Unresolvable, InvalidUrl)):
            await fetch(OutboundClient(), canary.url(host=f"[{host}]" if ":" in host else host))
    assert canary.connections == 0


@pytest.mark.parametrize("host", METADATA_SPELLINGS + PRIVATE_SPELLINGS)
async def test_no_spelling_of_a_private_address_is_connected_to(host: str) -> None:
    with pytest.raises((Forbidden, Unresolvable, InvalidUrl)):
        await fetch(OutboundClient(), f"http://{f'[{host}]' if ':' in host else host}/")


async def test_a_name_is_looked_up_once_and_its_checked_address_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_server() as checked, a_server(host="127.0.0.2") as rebound:
        names_resolve(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
        client = OutboundClient(["127.0.0.1/32"])
        assert await fetch(client, checked.url(host="flips.example")) == (200, b"ok")
        with pytest.raises(Forbidden):
            await fetch(client, rebound.url(host="flips.example"))
    assert rebound.connections == 0
    assert f"host: flips.example:{checked.port}".encode() in checked.requests[0]


async def test_a_name_with_one_forbidden_address_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_server() as canary:
        names_resolve(monkeypatch, ["127.0.0.1", "10.0.0.1"])
        with pytest.raises(Forbidden):
            await fetch(OutboundClient(OPEN), canary.url(host="mixed.example"))
    assert canary.connections == 0


async def test_the_next_address_is_tried_when_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_server() as server:
        names_resolve(monkeypatch, ["127.0.0.3", "127.0.0.1"])
        assert await fetch(OutboundClient(OPEN), server.url(host="two.example")) == (200, b"ok")


async def test_an_allowed_host_is_reached_whatever_its_address() -> None:
    async with a_server() as server:
        assert (await fetch(OutboundClient(allowed_hosts=["localhost"]), server.url(host="localhost")))[0] == 200
        with pytest.raises(Forbidden):
            await fetch(OutboundClient(allowed_hosts=["localhost"]), server.url(host="127.0.0.1"))


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_server() as canary, a_server() as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, canary.url())
        assert await fetch(OutboundClient(OPEN), server.url()) == (200, b"ok")
    assert canary.connections == 0


# Redirects


async def test_a_redirect_is_not_followed_by_default() -> None:
    async with a_server() as canary, a_server(redirect(canary.url())) as server:
        assert (await fetch(OutboundClient(OPEN), server.url()))[0] == 302
    assert canary.connections == 0


async def test_a_redirect_is_followed_on_request_and_its_target_checked() -> None:
    async with a_server(host="127.0.0.2") as canary, a_server(redirect(canary.url(host="127.0.0.2"))) as server:
        assert await fetch(OutboundClient(OPEN), server.url(), redirects=1) == (200, b"ok")
        with pytest.raises(Forbidden):
            await fetch(OutboundClient(["127.0.0.1/32"]), server.url(), redirects=1)
    assert canary.connections == 1


async def test_a_host_allowed_with_a_port_is_reached_at_that_port_only() -> None:
    async with a_server() as server, a_server() as other:
        client = OutboundClient(allowed_hosts=[urlsplit(server.url(host="127.0.0.1")).netloc])
        assert (await fetch(client, server.url(host="127.0.0.1")))[0] == 200
        with pytest.raises(Forbidden):
            await fetch(client, other.url(host="127.0.0.1"))
        assert other.connections == 0


async def test_a_relative_redirect_stays_with_its_host() -> None:
    async with a_server(redirect("/there"), reply(b"found")) as server:
        assert await fetch(OutboundClient(OPEN), server.url("/here"), redirects=3) == (200, b"found")
    assert server.requests[1].startswith(b"GET /there HTTP/1.1")


async def test_redirects_stop_at_the_limit() -> None:
    async with a_server(redirect("/again")) as server:
        assert (await fetch(OutboundClient(OPEN), server.url(), redirects=5))[0] == 302
    assert server.connections == 6


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://user:pass@127.0.0.1/", "http://["]
)
async def test_a_redirect_to_an_invalid_url_is_refused(location: str) -> None:
    async with a_server(redirect(location)) as server:
        with pytest.raises(InvalidUrl):
            await fetch(OutboundClient(OPEN), server.url(), redirects=1)


# Failures


async def test_a_closed_port_and_a_missing_response_raise_the_same_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with a_server(b"220 mail.example ESMTP\r\n") as other_protocol, a_server(b"") as silent:
        failures = []
        for url in (f"http://127.0.0.1:{port}/", other_protocol.url(), silent.url()):
            with pytest.raises(Unreachable) as failure:
                await fetch(OutboundClient(OPEN), url)
            failures.append(str(failure.value))
    assert set(failures) == {"no response from 127.0.0.1"}


async def test_a_silent_server_is_given_up() -> None:
    async with a_server(b"HTTP/1.1 200 OK\r\n") as server:
        released = asyncio.Event()
        server.after_reply = lambda _: released.wait()  # type: ignore[assignment,return-value]
        with pytest.raises(Unreachable):
            await fetch(OutboundClient(OPEN), server.url(), idle_seconds=0.1)
        released.set()


async def test_an_interrupted_body_is_a_failure() -> None:
    async with a_server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf") as server:
        with pytest.raises(Unreachable):
            await fetch(OutboundClient(OPEN), server.url())


@pytest.mark.parametrize("part", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"])
async def test_endless_responses_before_the_response_are_given_up_soon(part: bytes) -> None:
    """A receiver of callbacks could keep the event loop of the engine busy."""
    sent = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(part * 100)
            await writer.drain()
            sent += 100 * len(part)

    async with a_server(part) as server:
        server.after_reply = flood
        client = OutboundClient(OPEN)
        async with asyncio.timeout(IDLE_SECONDS):
            with pytest.raises(Unreachable):
                await fetch(client, server.url())
    assert sent >= HEAD_BYTES


async def test_a_few_responses_before_the_response_are_skipped_and_a_long_body_is_read() -> None:
    body = b"y" * 3 * HEAD_BYTES
    async with (
        a_server(b"HTTP/1.1 100 Continue\r\n\r\n" * 5 + reply(body)) as server,
        OutboundClient(OPEN).send("GET", server.url()) as response,
    ):
        assert b"".join([chunk async for chunk in response.body]) == body


async def test_only_the_head_of_an_endless_body_is_read() -> None:
    async def flood(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with a_server(b"HTTP/1.1 200 OK\r\n\r\n") as server:
        server.after_reply = flood
        assert await fetch(OutboundClient(OPEN), server.url()) == (200, b"x" * 1024)


async def test_a_compressed_response_stays_compressed() -> None:
    async with a_server(reply(b"\x1f\x8b bomb", **{"content-encoding": "gzip"})) as server:
        assert await fetch(OutboundClient(OPEN), server.url()) == (200, b"\x1f\x8b bomb")
    assert b"accept-encoding: identity" in server.requests[0]


# URLs


@pytest.mark.parametrize(
    ("url", "as_sent"),
    [
        ("http://Example.COM", "http://example.com/"),
        ("https://example.com:443/a?b=c#d", "https://example.com/a?b=c"),
        ("http://example.com:8080/%2e%2e/ä", "http://example.com:8080/%2e%2e/%C3%A4"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://[2606:4700::1]:81/", "http://[2606:4700::1]:81/"),
    ],
)
def test_a_url_is_parsed_and_normalised(url: str, as_sent: str) -> None:
    assert parse_url(url).text == as_sent


@pytest.mark.parametrize(
    "url",
    [
        *"""
    http:/example.com //example.com example.com file:///etc/passwd ftp://example.com gopher://example.com http://
    https:// http://:80/ http://user@example.com http://user:pass@example.com http://@example.com http://[::1
    http://example.com:0 http://example.com:65536 http://example.com:x http://example.com\\@127.0.0.1/
    """.split(),
        "http://example.com/a b",
        "http://example.com/\r\nHost: a",
        " http://example.com",
        "http://exa\0mple.com",
        "",
    ],
)
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl):
        parse_url(url)


@given(st.text(max_size=60))
def test_any_text_is_a_valid_or_invalid_url(text: str) -> None:
    for url in (text, f"http://{text}", f"http://example.com{text}", f"http://example.com/{text}"):
        try:
            parsed = parse_url(url)
        except InvalidUrl:
            continue
        assert parsed.text.isascii()
        assert parse_url(parsed.text) == parsed
