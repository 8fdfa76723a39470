"""Serve callers in the same pod who know a token. The agent can connect, too, and must not fill the server's memory."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from hmac import compare_digest
from typing import Final

TOKEN_SECONDS: Final = 5.0
"""Time for a caller to send the token."""

_MOST_CONNECTIONS: Final = 8
_LINE_BYTES: Final = 1024

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def start_token_server(token: bytes, listener: socket.socket, serve: Serve) -> asyncio.Server:
    """Call `serve` for each connection on which the first line is the token. It is closed when `serve` returns.

    Further connections than eight are closed, and those that send no token for five seconds or a long line.
    """
    connections = 0

    async def serve_if_known(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            # The caller is gone, late, or has sent a line that is too long.
            with contextlib.suppress(OSError, ValueError):
                if connections <= _MOST_CONNECTIONS and await _knows(token, reader):
                    await serve(reader, writer)
        finally:
            connections -= 1
            writer.close()

    return await asyncio.start_server(serve_if_known, sock=listener, limit=_LINE_BYTES)


async def _knows(token: bytes, reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(TOKEN_SECONDS):
        return compare_digest(await reader.readline(), token + b"\n")
