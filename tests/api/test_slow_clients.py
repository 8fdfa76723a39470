"""Slow clients: they are disconnected at the limits, and do not slow others.

Server and clients share one event loop with virtual time, so that the real limits are tested quickly. Unix sockets
replace TCP, since they deliver at once, before time moves.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from labrats.api.http.server import ClientLimits, Server
from tests.fakes.clock import VirtualTimeLoop

HEAD = b"POST /echo HTTP/1.1\r\nHost: engine.test\r\nContent-Length: 10\r\n\r\n"
LIMITS = ClientLimits()
MIB = 1024 * 1024
AN_HOUR = 3600
"""Virtual seconds after which a test stops waiting."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


class Application:
    """An application that echoes the body.

    `/endless` never ends, `/refuse` responds without reading the body, and `/wait` responds once `may_respond` is set.
    """

    def __init__(self) -> None:
        self.streams_open = 0
        self.may_respond = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._response(Request(scope, receive))
        await response(scope, receive, send)

    async def _response(self, request: Request) -> ASGIApp:
        match request.url.path:
            case "/endless":
                return StreamingResponse(self._endless())
            case "/refuse":
                return PlainTextResponse("no", 413)
            case "/wait":
                await self.may_respond.wait()
                return PlainTextResponse("done")
            case _:
                return PlainTextResponse(await request.body())

    async def _endless(self) -> AsyncIterator[bytes]:
        self.streams_open += 1
        try:
            while True:
                await asyncio.sleep(0)
                yield b"x" * 4 * MIB
        finally:
            self.streams_open -= 1


@dataclass(frozen=True)
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def trickle(self, data: bytes, *, every_seconds: float) -> None:
        """Send `data` byte by byte, until all is sent or the server closes the connection."""
        with suppress(ConnectionError):
            for position in range(len(data)):
                await self.send(data[position : position + 1])
                await asyncio.sleep(every_seconds)

    async def answer(self) -> tuple[int, bytes]:
        """Return status and body of the next response."""
        async with asyncio.timeout(AN_HOUR):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            length = next(line for line in head.lower().splitlines() if line.startswith("content-length:"))
            return int(head.split()[1]), await self.reader.readexactly(int(length.partition(":")[2]))

    async def is_disconnected(self) -> bool:
        """Wait for the end of the connection. Return whether nothing arrived before it."""
        try:
            async with asyncio.timeout(AN_HOUR):
                return await self.reader.read() == b""
        except ConnectionError:
            return True


Connect = Callable[[], Awaitable[Client]]


@asynccontextmanager
async def served(app: ASGIApp, limits: ClientLimits = LIMITS) -> AsyncIterator[Connect]:
    """Run a server. Yield a function that connects to it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")  # the kernel picks an abstract name, which needs no file
    listener.listen()
    name = listener.getsockname()
    server = Server(app, limits)
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_unix_connection(name.decode())))
        return clients[-1]

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve([listener]))
        await server.listening.wait()
        yield connect
        for client in clients:
            client.writer.transport.abort()
        server.should_exit = True


@pytest.fixture
def app() -> Application:
    return Application()


@pytest.fixture
async def connect(app: Application) -> AsyncIterator[Connect]:
    async with served(app) as connect:
        yield connect


def seconds() -> float:
    return asyncio.get_running_loop().time()


async def test_a_client_that_sends_no_request_is_disconnected(connect: Connect) -> None:
    started, client = seconds(), await connect()

    assert await client.is_disconnected()
    assert seconds() - started == pytest.approx(LIMITS.head_seconds, abs=0.2)


async def test_headers_that_arrive_byte_by_byte_time_out(connect: Connect) -> None:
    started, client = seconds(), await connect()
    trickling = asyncio.create_task(client.trickle(HEAD * 100, every_seconds=0.5))

    status, body = await client.answer()

    assert seconds() - started == pytest.approx(LIMITS.head_seconds, abs=0.2)
    assert (status, json.loads(body)["code"]) == (408, "request_timeout")
    await trickling


async def test_a_slow_request_within_the_limits_is_served(connect: Connect) -> None:
    client = await connect()

    await client.trickle(HEAD, every_seconds=9 / len(HEAD))
    await client.trickle(b"0123456789", every_seconds=25)

    assert await client.answer() == (200, b"0123456789")


async def test_blank_lines_do_not_keep_a_connection_open(connect: Connect) -> None:
    started, client = seconds(), await connect()

    trickling = asyncio.create_task(client.trickle(b"\r\n" * 100, every_seconds=1))

    assert await client.is_disconnected()
    assert seconds() - started == pytest.approx(LIMITS.head_seconds, abs=0.2)
    await trickling


async def test_a_connection_may_idle_between_requests_but_a_started_request_times_out(connect: Connect) -> None:
    client = await connect()
    for _ in range(3):
        await client.send(HEAD + b"0123456789")
        assert (await client.answer())[0] == 200
        await asyncio.sleep(60)

    started = seconds()
    await client.send(HEAD[:5])

    assert (await client.answer())[0] == 408
    assert seconds() - started == pytest.approx(LIMITS.head_seconds, abs=0.2)


async def test_blank_lines_between_requests_start_the_timeout(connect: Connect) -> None:
    client = await connect()
    await client.send(HEAD + b"0123456789")
    await client.answer()

    started = seconds()
    await client.send(b"\r\n")

    assert await client.is_disconnected()
    assert seconds() - started == pytest.approx(LIMITS.head_seconds, abs=0.2)


async def test_a_body_that_stops_arriving_times_out(connect: Connect) -> None:
    client = await connect()
    await client.send(HEAD + b"01234")
    started = seconds()

    status, body = await client.answer()

    assert seconds() - started == pytest.approx(LIMITS.idle_seconds, abs=0.2)
    assert (status, json.loads(body)["code"]) == (408, "request_timeout")
    assert await client.is_disconnected()


async def test_too_large_headers_are_refused(connect: Connect) -> None:
    endless, many = await connect(), await connect()

    await endless.send(b"GET / HTTP/1.1\r\nx: " + b"y" * (LIMITS.head_bytes + 1))
    await many.send(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * (LIMITS.head_bytes // 6 + 1))

    for client in (endless, many):
        status, body = await client.answer()
        assert (status, json.loads(body)["code"]) == (431, "request_header_fields_too_large")
        assert await client.is_disconnected()


@pytest.mark.parametrize("trailers", [b"a: b\r\n" * 100, b"a: " + b"b" * 600], ids=["many", "long"])
async def test_endless_trailers_end_the_connection(connect: Connect, trailers: bytes) -> None:
    """The parser would hold them in memory."""
    client = await connect()
    chunked = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n"
    await client.send(chunked + trailers)
    sent = 0
    with suppress(ConnectionError):
        while sent < 10 * MIB:
            await client.send(trailers)
            sent += len(trailers)
    assert sent < MIB
    assert await client.is_disconnected()


async def test_a_few_trailers_are_ignored() -> None:
    """An application that has the body would find them among the headers."""

    async def count_headers(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await PlainTextResponse(str(len(scope["headers"])))(scope, receive, send)

    async with served(count_headers) as connect:
        client = await connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n")
        await client.send(b"a: b\r\n" * 10 + b"\r\n")
        assert await client.answer() == (200, b"2")
        await client.send(HEAD + b"0123456789")
        assert await client.answer() == (200, b"2")


async def test_large_headers_within_the_limit_are_served(connect: Connect) -> None:
    client = await connect()
    filler = b"x: " + b"y" * (LIMITS.head_bytes // 2)

    for _ in range(3):  # the limit applies to each request
        await client.send(HEAD.removesuffix(b"\r\n") + filler)
        await asyncio.sleep(1)
        await client.send(b"\r\n\r\n0123456789")
        assert await client.answer() == (200, b"0123456789")


async def test_a_client_that_reads_nothing_of_a_response_is_disconnected(connect: Connect, app: Application) -> None:
    client = await connect()
    await client.send(b"GET /endless HTTP/1.1\r\nHost: engine.test\r\n\r\n")
    await asyncio.sleep(LIMITS.idle_seconds - 1)
    assert app.streams_open == 1

    await asyncio.sleep(LIMITS.idle_seconds + 2)  # the first check may come soon after the socket is full

    assert app.streams_open == 0


async def test_a_client_that_sends_thousands_of_requests_ahead_is_disconnected(connect: Connect) -> None:
    """Each of them would take kilobytes of memory, until the client reads the answers."""
    client = await connect()
    with suppress(ConnectionError):
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 5000)
    assert await client.is_disconnected()


async def test_each_response_ends_with_its_client_although_further_requests_wait(
    connect: Connect, app: Application
) -> None:
    client = await connect()
    await client.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n" + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    await client.reader.readexactly(MIB)
    assert app.streams_open == 1

    client.writer.transport.abort()

    async with asyncio.timeout(LIMITS.idle_seconds - 1):
        while app.streams_open:
            await asyncio.sleep(0.1)


async def test_a_few_requests_ahead_are_answered_in_turn(connect: Connect) -> None:
    client = await connect()
    await client.send(b"".join(HEAD + b"%010d" % number for number in range(LIMITS.waiting_requests)))

    assert [await client.answer() for _ in range(LIMITS.waiting_requests)] == [
        (200, b"%010d" % number) for number in range(LIMITS.waiting_requests)
    ]


async def test_a_client_that_reads_slowly_is_served(connect: Connect, app: Application) -> None:
    client = await connect()
    await client.send(b"GET /endless HTTP/1.1\r\nHost: engine.test\r\n\r\n")

    for _ in range(10):  # so little that the server's buffer stays full
        await asyncio.sleep(LIMITS.idle_seconds * 0.8)
        assert await client.reader.readexactly(256 * 1024)

    assert app.streams_open == 1


async def test_a_refusal_reaches_a_client_that_is_still_sending_and_the_connection_stays_open(connect: Connect) -> None:
    client = await connect()
    await client.send(b"POST /refuse HTTP/1.1\r\nHost: engine.test\r\nContent-Length: 1000000\r\n\r\n")

    assert await client.answer() == (413, b"no")
    await client.send(b"x" * 1_000_000)
    await client.send(HEAD + b"0123456789")
    assert await client.answer() == (200, b"0123456789")


async def test_a_refused_body_is_not_read_without_limit(connect: Connect) -> None:
    client = await connect()
    await client.send(b"POST /refuse HTTP/1.1\r\nHost: engine.test\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert await client.answer() == (413, b"no")

    sent = 0
    with suppress(ConnectionError):
        while sent < 2 * LIMITS.discarded_bytes:
            await client.send(b"%x\r\n" % MIB + b"x" * MIB + b"\r\n")
            sent += MIB

    assert LIMITS.discarded_bytes - MIB <= sent <= LIMITS.discarded_bytes + 8 * MIB


async def test_a_slow_refused_body_is_aborted_after_ten_seconds(connect: Connect) -> None:
    client, started = await connect(), seconds()
    await client.send(b"POST /refuse HTTP/1.1\r\nHost: engine.test\r\nContent-Length: 1000000\r\n\r\n")
    assert await client.answer() == (413, b"no")
    await client.trickle(b"x" * 1000, every_seconds=0.5)
    assert await client.is_disconnected()
    assert seconds() - started == pytest.approx(LIMITS.discard_seconds, abs=1)


async def test_a_refused_body_that_keeps_arriving_is_read_to_its_end(connect: Connect) -> None:
    client = await connect()
    await client.send(b"POST /refuse HTTP/1.1\r\nHost: engine.test\r\nContent-Length: %d\r\n\r\n" % (8 * MIB))
    assert await client.answer() == (413, b"no")
    for _ in range(8):
        await client.send(b"x" * MIB)
        await asyncio.sleep(LIMITS.discard_seconds * 0.8)
    await client.send(HEAD + b"0123456789")
    assert await client.answer() == (200, b"0123456789")


async def test_a_connection_beyond_the_limit_takes_the_place_of_the_one_that_has_waited_longest(
    app: Application,
) -> None:
    async with served(app, ClientLimits(connections=2)) as connect:
        first, second = await connect(), await connect()
        await first.send(HEAD + b"0123456789")
        assert await first.answer() == (200, b"0123456789")
        third = await connect()
        status, body = await second.answer()
        assert (status, json.loads(body)["code"]) == (503, "service_unavailable")
        assert await second.is_disconnected()
        for client in (third, first):
            await client.send(HEAD + b"0123456789")
            assert await client.answer() == (200, b"0123456789")


ENDLESS = b"GET /endless HTTP/1.1\r\nHost: engine.test\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        HEAD + b"01234",
        ENDLESS,
        (ENDLESS, ENDLESS),
        b"POST /refuse HTTP/1.1\r\nHost: engine.test\r\nContent-Length: 1000000\r\n\r\n",
    ],
    ids=["nothing", "part of a head", "part of a body", "reads nothing", "reads nothing, asks more", "refused body"],
)
async def test_clients_that_keep_the_server_waiting_take_no_place_of_others(
    app: Application, sent: bytes | tuple[bytes, ...]
) -> None:
    async with served(app, ClientLimits(connections=3)) as connect:
        for _ in range(10):
            slow = await connect()
            for part in sent if isinstance(sent, tuple) else (sent,):
                await slow.send(part)
                await asyncio.sleep(0.1)
            quick = await connect()
            await quick.send(HEAD + b"0123456789")
            assert await quick.answer() == (200, b"0123456789")
    assert app.streams_open == 0


async def test_a_connection_gets_a_503_if_all_others_wait_for_the_server(app: Application) -> None:
    async with served(app, ClientLimits(connections=2)) as connect:
        served_now = [await connect(), await connect()]
        for client in served_now:
            await client.send(b"GET /wait HTTP/1.1\r\nHost: engine.test\r\n\r\n")
        await asyncio.sleep(0.1)
        third = await connect()
        status, body = await third.answer()
        assert (status, json.loads(body)["code"]) == (503, "service_unavailable")
        assert await third.is_disconnected()
        app.may_respond.set()
        for client in served_now:
            assert await client.answer() == (200, b"done")


async def test_a_refused_client_that_expects_100_continue_is_disconnected(connect: Connect) -> None:
    client = await connect()
    await client.send(
        b"POST /refuse HTTP/1.1\r\nHost: engine.test\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
    )

    assert await client.answer() == (413, b"no")
    assert await client.is_disconnected()


async def test_hundreds_of_slow_clients_do_not_slow_others(connect: Connect) -> None:
    slow = [await connect() for _ in range(300)]
    for number, client in enumerate(slow):
        await client.send([b"", b"GET / HT", HEAD + b"01234"][number % 3])

    quick = await connect()
    for _ in range(10):
        await quick.send(HEAD + b"0123456789")
        assert await quick.answer() == (200, b"0123456789")

    for client in slow:
        await client.reader.read()  # until the server disconnects it
