"""A key proxy in front of a model server whose every byte the test decides."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labrats.executor.key_proxy.model_server import ApprovedRequest, ModelServer
from labrats.executor.key_proxy.proxy import KeyProxy
from labrats.executor.key_proxy.request_policy import RequestPolicy
from labrats.model.ai_model import Prices
from labrats.model.config import JobConfig
from labrats.model.protocol import ModelRequest
from tests.unit.executor.attempts import a_task

TOKEN = "test-token-of-the-attempt"
KEY = "sk-test-0123456789"
MODEL = "claude-sonnet-5-5"
MESSAGES = "/v1/messages"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Served:
    """A proxy that serves `port`, the requests that it has reported, and the heads and bodies that its server got."""

    port: int
    policy: RequestPolicy
    proxy: KeyProxy
    reported: list[ModelRequest]
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def send(self, request: bytes) -> bytes:
        """Send raw bytes on a new connection. Return all that the proxy sends until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def a_proxy(
    tmp_path: Path,
    answer: Handler,
    *,
    provider: str = "claude",
    endpoint: str | None = None,
    prices: Prices | None = None,
    other_prices: Mapping[str, Prices] | None = None,
    **config: Any,
) -> AsyncIterator[Served]:
    """Run a proxy in front of a server that reads a request and then calls `answer`, until it closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                served.heads.append(head)
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
                )
                served.bodies.append(await reader.readexactly(length))
                await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    tasks = set[asyncio.Task[None]]()
    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=2**20)
    url = endpoint or f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    job_config = JobConfig(provider=provider, **{"model": MODEL} | config)
    task = a_task(tmp_path, config=job_config, prices=prices, other_prices=other_prices or {})
    key_name = {"claude": "ANTHROPIC_API_KEY", "codex": "OPENAI_API_KEY"}[provider]
    policy = RequestPolicy(TOKEN, ModelServer.of(provider, url, key_name, KEY), task)
    listener = socket.create_server(("127.0.0.1", 0))
    reported = list[ModelRequest]()
    proxy = KeyProxy(policy, reported.append)
    served = Served(listener.getsockname()[1], policy, proxy, reported)
    async with proxy.serving(listener):
        yield served
    server.close()
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # closed sockets are released in the loop's next round


def a_request(
    body: bytes | None = None, *, path: str = MESSAGES, token: str = TOKEN, headers: str = "", close: bool = True
) -> bytes:
    """Return a request with the body, or for the job's model."""
    body = json.dumps({"model": MODEL, "stream": True}).encode() if body is None else body
    connection = "Connection: close\r\n" if close else ""
    head = f"POST {path} HTTP/1.1\r\nHost: proxy\r\nX-Api-Key: {token}\r\nContent-Length: {len(body)}\r\n"
    return (head + connection + headers + "\r\n").encode() + body


def an_approved_request(body: bytes, path: str = MESSAGES) -> ApprovedRequest:
    """Return a request as the proxy forwards it, for the functions that examine one."""
    return ApprovedRequest(b"POST", path.encode(), [], body, MODEL)


def a_response(body: bytes, *, status: str = "200 OK", kind: str = "application/json", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def answers(response: bytes) -> Handler:
    """Return a handler that sends the response."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response)
        await writer.drain()

    return answer


def body_of(response: bytes) -> bytes:
    """Return the body of a response as far as it has arrived, joined from its chunks if it has some."""
    head, _, rest = response.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return rest
    body = b""
    while (end := rest.find(b"\r\n")) > 0 and (length := int(rest[:end], 16)):
        body += rest[end + 2 : end + 2 + length]
        rest = rest[end + 2 + length + 2 :]
    return body


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1]) if response else 0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition for a generous time."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)
