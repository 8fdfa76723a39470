"""The proxy of jobs with a restricted network, with real connections."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from labrats.executor.egress import proxy as proxy_module
from labrats.executor.egress.proxy import HEAD_BYTES, EgressProxy, HostRule, RequestRefused
from labrats.model.errors import LabratsError
from labrats.net.address_policy import Forbidden, Unresolvable
from tests.support.http_server import ANSWER, an_http_server
from tests.unit.executor.egress.test_server_name import hello

pytestmark = pytest.mark.anyio

LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass
class Proxy:
    """A proxy that allows `localhost` at all ports."""

    private_networks: tuple[str, ...] = LOOPBACK
    refused: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    names: bool = False

    def _refuse(self, server: str, reason: str) -> None:
        self.refused.append(server)
        self.reasons.append(reason)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        rule = HostRule(
            lambda host, _: host == "localhost",
            self.private_networks,
            self._refuse,
            names=lambda *_: self.names,
        )
        ours, its = socket.socketpair()
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(EgressProxy(rule).serve(its))
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                yield reader, writer
            finally:
                writer.close()
                await asyncio.wait([serving], timeout=5)
                serving.cancel()

    async def answer(self, request: bytes, *, end: bool = False) -> bytes:
        """Send a request, and return all that is answered."""
        async with self.connection() as (reader, writer):
            writer.write(request)
            if end:
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), 5)


async def test_request_for_an_allowed_url_is_forwarded_once() -> None:
    with an_http_server() as (port, requests):
        head = f"POST http://localhost:{port}/a?b=c HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 4\r\n"
        pipelined = f"GET http://localhost:{port}/second HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = await Proxy().answer(f"{head}Proxy-Authorization: x\r\n\r\nbody{pipelined}".encode())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(ANSWER)
    assert requests == [f"POST /a?b=c localhost:{port} body"]


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", b"HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\nbody"),
        (
            b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n\r\n\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\r\n\r\n",
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        ),
        (b"HTTP/1.1 200 OK\r\nA: b", b"HTTP/1.1 200 OK\r\nA: b"),
        (b"no head\n" * 10_000, b"no head\n" * 10_000),
        (b"", b""),
    ],
    ids=["usual", "keep-alive", "interim", "cut", "no head", "nothing"],
)
async def test_response_says_that_its_connection_serves_no_further_request(sent: bytes, received: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await Proxy().answer(f"GET http://localhost:{port}/ HTTP/1.1\r\n\r\n".encode()) == received


async def test_server_waits_while_the_client_reads_no_interim_responses() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        with suppress(OSError):
            while True:
                writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)
                await writer.drain()
                sent += 1

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, Proxy().connection() as (_, writer):
        port = server.sockets[0].getsockname()[1]
        writer.write(f"GET http://localhost:{port}/ HTTP/1.1\r\n\r\n".encode())
        before = 0
        async with asyncio.timeout(10):
            while not sent or before != sent:
                before = sent
                await asyncio.sleep(0.3)


async def test_tunnel_to_an_allowed_host_carries_both_directions() -> None:
    with an_http_server() as (port, requests):
        async with Proxy().connection() as (reader, writer):
            writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
            writer.write(b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(ANSWER)
    assert requests == ["GET /x localhost"]


@pytest.mark.parametrize("request_line", ["CONNECT {address} HTTP/1.1", "GET http://{address}/ HTTP/1.1"])
async def test_other_host_is_refused_and_reported(request_line: str) -> None:
    proxy = Proxy()
    for host in ("other.test", "localhost.evil.test", "127.0.0.1", "169.254.169.254"):
        answer = await proxy.answer(f"{request_line.format(address=f'{host}:443')}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert f"the network rule of this job does not allow {host}:443\n".encode() in answer
    assert set(proxy.reasons) == {"the network rule does not allow it"}
    assert proxy.refused == ["other.test:443", "localhost.evil.test:443", "127.0.0.1:443", "169.254.169.254:443"]


async def test_allowed_name_with_a_private_address_is_refused() -> None:
    proxy = Proxy(private_networks=())
    with an_http_server() as (port, requests):
        answer = await proxy.answer(f"GET http://localhost:{port}/ HTTP/1.1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert (requests, proxy.refused) == ([], [f"localhost:{port}"])
    assert proxy.reasons == [
        "localhost has no address that jobs may reach; OUTBOUND_ALLOWED_CIDRS allows private networks"
    ]


@pytest.mark.parametrize("names", [True, False])
async def test_answer_reveals_only_of_named_hosts_whether_they_exist(
    names: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for error in (Forbidden(""), Unresolvable("the host name 'localhost' could not be resolved")):

        async def resolve(*_: object, error: LabratsError = error) -> list[str]:
            raise error

        monkeypatch.setattr(proxy_module, "resolve_allowed", resolve)
        answers.append(await Proxy(names=names).answer(b"CONNECT localhost:443 HTTP/1.1\r\n\r\n"))
    private, missing = answers
    if names:
        assert b"localhost has an address that jobs must not reach" in private
        assert b"could not be resolved" in missing
    else:
        assert b"localhost has no address that jobs may reach" in private
        assert private == missing


async def test_model_server_is_reached_at_a_private_address() -> None:
    refused: list[str] = []
    with an_http_server() as (port, requests):
        rule = HostRule(lambda *_: False, (), lambda server, _: refused.append(server), ("localhost", port))
        _, writer = await rule.connect("localhost", port)
        writer.close()
        with pytest.raises(RequestRefused):
            await rule.connect("localhost", port + 1)
    assert (requests, refused) == ([], [f"localhost:{port + 1}"])


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /x?y HTTP/1.1\r\nHost: LOCALHOST.\r\n", b"200 OK"),
        ("GET /x?y HTTP/1.1\r\nHost: localhost:80\r\n", b"200 OK"),
        ("GET /x?y HTTP/1.1\r\nHost: evil.test\r\n", b"403 Forbidden"),
        ("GET /x?y HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n", b"403 Forbidden"),
        ("GET /x?y HTTP/1.1\r\nHost: localhost:8080\r\n", b"403 Forbidden"),
        ("GET /x?y HTTP/1.1\r\n", b"403 Forbidden"),
        ("GET http://evil.test/ HTTP/1.1\r\nHost: localhost\r\n", b"400 Bad Request"),
        ("POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n", b"411 Length Required"),
        ("SSH-2.0-OpenSSH_9.9\r\n", b"400 Bad Request"),
    ],
)
async def test_tunnel_for_http_carries_one_request_for_its_host(
    head: str, status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    with an_http_server() as (port, requests):
        monkeypatch.setattr("labrats.executor.egress.proxy._HTTP", port)
        another = "GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n"
        tunnel = f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n"
        text = head.replace(":80\r", f":{port}\r")
        answer = await proxy.answer(f"{tunnel}{text}\r\n{another}".encode())
    established, _, answer = answer.partition(b"\r\n\r\n")
    assert established == b"HTTP/1.1 200 Connection established"
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert requests == (["GET /x?y localhost"] if status == b"200 OK" else [])
    assert proxy.refused == ([f"localhost:{port}"] if status == b"403 Forbidden" else [])


@pytest.mark.parametrize(
    "first", [hello("other.test"), hello(None), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03"]
)
async def test_tunnel_for_https_ends_unless_it_begins_with_tls_for_its_host(
    first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = await received_through_tunnel(first, monkeypatch)
    assert received == (b"", ["localhost:443"])


async def test_tunnel_for_https_passes_tls_for_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    first = hello("localhost")
    assert await received_through_tunnel(first, monkeypatch) == (first, [])


async def received_through_tunnel(first: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[str]]:
    """Send `first` through a tunnel to the port 443 of localhost. Return what arrives there, and what is refused."""
    received = bytearray()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr("labrats.executor.egress.proxy._HTTPS", port)
    proxy = Proxy()
    async with server, proxy.connection() as (reader, writer):
        writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
    return bytes(received), [each.replace(f":{port}", ":443") for each in proxy.refused]


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET https://localhost/ HTTP/1.1\r\n\r\n", 400),
        ("GET http://user@localhost/ HTTP/1.1\r\n\r\n", 400),
        ("GET http://localhost:99999/ HTTP/1.1\r\n\r\n", 400),
        (f"GET http://localhost/ HTTP/1.1\r\nA:{' ' * (HEAD_BYTES - 1000)}\0\r\n\r\n", 400),
        (f"GET http://{'x' * 8000}/ HTTP/1.1\r\n\r\n", 400),
        ("GET http://`markdown`/ HTTP/1.1\r\n\r\n", 400),
        ("CONNECT localhost HTTP/1.1\r\n\r\n", 400),
        ("CONNECT localhost:443/x HTTP/1.1\r\n\r\n", 400),
        ("GET http://localhost/ HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET http://localhost/ HTTP/1.1\r\nName : x\r\n\r\n", 400),
        ("GET http://localhost/ HTTP/1.1\r\nA: x\r\n folded\r\n\r\n", 400),
        ("GET http://localhost/ HTTP/1.1\r\nA: x\nB: y\r\n\r\n", 400),
        ("GET http://localhost/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("GET http://localhost/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        ("POST http://localhost/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (f"GET http://localhost/ HTTP/1.1\r\nA: {'x' * HEAD_BYTES}\r\n\r\n", 431),
        ("\x00\x01\x02\r\n\r\n", 400),
    ],
)
async def test_invalid_request_is_answered_with_its_problem(request_text: str, status: int) -> None:
    answer = await Proxy().answer(request_text.encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_host_that_does_not_answer_is_a_bad_gateway() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        answer = await Proxy().answer(f"CONNECT localhost:{bound.getsockname()[1]} HTTP/1.1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


async def test_client_that_ends_early_gets_no_answer() -> None:
    assert await Proxy().answer(b"CONNECT local", end=True) == b""
