"""Responses of an engine whose database is being migrated."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from labrats.api.http.starting import starting_responses
from labrats.engine_port import listen


@pytest.fixture
async def port() -> AsyncIterator[int]:
    with listen("127.0.0.1", 0) as listener:
        async with starting_responses(listener, lambda: "the engine migrates its database: jobs 40 %"):
            yield listener.getsockname()[1]


async def respond_to(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_health_is_ok_while_the_engine_starts(port: int) -> None:
    answer = await respond_to(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"status": "ok"}


@pytest.mark.parametrize("path", ["/ready", "/api/jobs", "/health/", "/healthy", "*"])
async def test_other_paths_are_unavailable_with_the_reason(port: int, path: str) -> None:
    answer = await respond_to(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5" in head
    assert json.loads(body) == {"error": "the engine migrates its database: jobs 40 %", "code": "not_ready"}


async def test_head_has_no_body(port: int) -> None:
    answer = await respond_to(port, b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("request_head", [b"\r\n\r\n", b"nonsense\r\n\r\n", b"x" * 200_000, b"\xff \xff\r\n\r\n"])
async def test_malformed_requests_do_not_stop_it(port: int, request_head: bytes) -> None:
    try:
        answer = await respond_to(port, request_head)
    except ConnectionError:
        answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 503 ")
    assert (await respond_to(port, b"GET /health HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_the_listener_stays_open_for_the_engine() -> None:
    with listen("127.0.0.1", 0) as listener:
        async with starting_responses(listener, lambda: ""):
            pass
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()[:2], timeout=5):
            listener.accept()[0].close()
