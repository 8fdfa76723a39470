"""Responses on the wire: the head travels with the start of the body, and does not wait for one."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from labrats.api.http.server import Server

GET = "GET {path} HTTP/1.1\r\nHost: engine.test\r\n\r\n"
TCP_INFO_BYTES = 160
RECEIVED_SEGMENTS = struct.Struct("=I")
RECEIVED_SEGMENTS_OFFSET = 152
"""Position of `tcpi_data_segs_in` in Linux's `struct tcp_info`: the received packets with data."""


class Application:
    """An application that answers `/short` at once, and the body of `/late` once `may_continue` is set."""

    def __init__(self) -> None:
        self.may_continue = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_short = Request(scope).url.path == "/short"
        response = PlainTextResponse("short") if is_short else StreamingResponse(self._late())
        await response(scope, receive, send)

    async def _late(self) -> AsyncIterator[bytes]:
        await self.may_continue.wait()
        yield b"late"


@asynccontextmanager
async def connected(app: Application) -> AsyncIterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        server = Server(app)
        serving = asyncio.create_task(server.serve([listener]))
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, listener.getsockname())
        yield client
        client.close()
        server.should_exit = True
        await serving


async def until(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        more = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65536), 10)
        assert more, f"the connection ended after {received!r}"
        received += more
    return received


async def test_head_and_short_body_are_one_packet() -> None:
    async with connected(Application()) as client:
        for number in range(1, 4):
            await asyncio.get_running_loop().sock_sendall(client, GET.format(path="/short").encode())
            assert (await until(client, b"short")).startswith(b"HTTP/1.1 200 OK\r\n")
            info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
            assert RECEIVED_SEGMENTS.unpack_from(info, RECEIVED_SEGMENTS_OFFSET) == (number,)


async def test_head_does_not_wait_for_a_late_body() -> None:
    app = Application()
    async with connected(app) as client:
        await asyncio.get_running_loop().sock_sendall(client, GET.format(path="/late").encode())
        head = await until(client, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        app.may_continue.set()
        assert await until(client, b"0\r\n\r\n") == b"4\r\nlate\r\n0\r\n\r\n"
