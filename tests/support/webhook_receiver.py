"""A receiver of callbacks: a real server on loopback that records its requests."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.waiting import eventually

OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer(status: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} As scripted", *headers, "content-length: 0", "", ""]).encode()


@dataclass(frozen=True)
class Delivery:
    """One recorded request."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def phase(self) -> str:
        return str(self.message["phase"])

    def is_signed_by(self, key: bytes) -> bool:
        """Return whether one of the signatures is that of `key` over id, timestamp and body."""
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return expected in self.headers.get("webhook-signature", "").split(" ")


@dataclass
class Receiver:
    """A running receiver. replies: the answers to the next requests, None to leave one unanswered; afterwards 200."""

    host: str = "127.0.0.1"
    port: int = 0
    replies: list[bytes | None] = field(default_factory=list)
    received: list[Delivery] = field(default_factory=list)
    _unanswered: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hook"

    @property
    def phases(self) -> list[str]:
        return [delivery.phase for delivery in self.received]

    async def got(self, *phases: str) -> list[Delivery]:
        """Wait for as many deliveries as there are `phases`, check that they report these phases, and return them."""
        await eventually(lambda: len(self.received) >= len(phases))
        assert self.phases == list(phases)
        return self.received

    def hang_up(self) -> None:
        """Close every connection that still waits for an answer."""
        while self._unanswered:
            self._unanswered.pop().close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            assert head[0].startswith("POST /hook HTTP/1.1")
            lines = (line.partition(":") for line in head[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in lines}
            self.received.append(Delivery(headers, await reader.readexactly(int(headers["content-length"]))))
            reply = self.replies.pop(0) if self.replies else OK
            if reply is None:
                self._unanswered.append(writer)
                await reader.read()  # until the client closes the connection
            else:
                writer.write(reply)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the engine disconnected, as some tests make it do
        finally:
            writer.close()


@asynccontextmanager
async def a_receiver(
    *replies: bytes | None, port: int = 0, listener: socket.socket | None = None
) -> AsyncIterator[Receiver]:
    """Run a receiver during the block. replies: its first answers. listener: a socket to use instead of loopback."""
    receiver = Receiver(replies=list(replies))
    listener = listener or socket.create_server((receiver.host, port))
    receiver.host, receiver.port = listener.getsockname()
    async with await asyncio.start_server(receiver.serve, sock=listener):
        yield receiver
