"""Responses of an engine that is not ready to serve its API, such as during a migration of its database."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

RETRY_SECONDS: Final = 5
REQUEST_SECONDS: Final = 10.0
"""Time in which a client must send the head of its request."""

_HEAD_BYTES: Final = 64 * 1024


@asynccontextmanager
async def starting_responses(listener: socket.socket, message: Callable[[], str]) -> AsyncIterator[None]:
    """Respond to requests during the block: /health with 200, and everything else with 503.

    message: returns the reason, for the body of a 503. The listener stays open afterwards.
    """

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, message()))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(respond, sock=listener.dup(), limit=_HEAD_BYTES)
    try:
        yield
    finally:
        server.close()


def _response(head: bytes, message: str) -> bytes:
    path = head.split(b"\r\n", 1)[0].split(b" ")[1:2]
    is_alive = path == [b"/health"]
    body = {"status": "ok"} if is_alive else {"error": message, "code": "not_ready"}
    content = json.dumps(body).encode()
    lines = [
        "HTTP/1.1 200 OK" if is_alive else "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: close",
        *(() if is_alive else (f"Retry-After: {RETRY_SECONDS}",)),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if head.startswith(b"HEAD ") else content)
