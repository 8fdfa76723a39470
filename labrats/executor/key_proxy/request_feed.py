"""Report requests to an executor in another container, over a connection on the pod's loopback address.

The executor sends the feed's token and a line break, and gets each request as a line of JSON, and an empty line while
answers arrive. The proxy serves the
agent while the executor follows, so that no request goes unseen. When the executor ends its half of the connection,
running requests end, and are reported before the other half ends.
"""

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Protocol

import msgspec

from labrats.executor.token_server import start_token_server
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import ModelRequest
from labrats.model.record import encode

START_SECONDS: Final = 60.0
"""Time for the proxy to start."""

_END_SECONDS: Final = 10.0
_ACTIVITY: Final = b"\n"
_PAUSE_SECONDS: Final = 0.05
_MOST_UNREAD_BYTES: Final = 16 * 1024 * 1024
_DECODER: Final = msgspec.json.Decoder(ModelRequest)
_LOST: Final = "the key proxy of this attempt's pod has ended; `kubectl logs POD -c key-proxy` shows why"
_LATE: Final = "the key proxy of this attempt's pod did not report all requests in time after the agent's end"


class Openable(Protocol):
    """A proxy that serves the agent only while an executor follows."""

    def open(self) -> None: ...

    async def close(self) -> None: ...


class RequestFeed:
    """The proxy's end of the connection."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._activity_at = -math.inf
        self._readers: set[asyncio.StreamWriter] = set()

    def report(self, request: ModelRequest) -> None:
        """Send a request to each reader. One that does not read is disconnected."""
        self._send(encode(request) + b"\n")

    def report_activity(self) -> None:
        """Tell each reader that a part of an answer has arrived, at most once a second."""
        if time.monotonic() - self._activity_at >= 1.0:
            self._activity_at = time.monotonic()
            self._send(_ACTIVITY)

    def _send(self, line: bytes) -> None:
        for writer in list(self._readers):
            if writer.transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
                writer.transport.abort()
            else:
                writer.write(line)

    async def serve(self, listener: socket.socket, proxy: Openable) -> asyncio.Server:
        """Serve the listening socket `listener` until the returned server is closed."""
        return await start_token_server(self._token, listener, partial(self._serve, proxy))

    async def _serve(self, proxy: Openable, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers.add(writer)
        try:
            proxy.open()
            writer.write(b"\n")
            await reader.read()  # until the executor ends its half
        finally:
            if self._readers == {writer}:
                await proxy.close()
            self._readers.discard(writer)


@asynccontextmanager
async def follow_requests(
    address: tuple[str, int],
    token: str,
    on_request: Callable[[ModelRequest], None],
    on_loss: Callable[[GiveUp], None],
    on_activity: Callable[[], None],
    start_seconds: float = START_SECONDS,
) -> AsyncIterator[None]:
    """Pass each request that the proxy reports to `on_request`, until the context exits.

    Raises GiveUp if the proxy does not start.

    on_loss:     called if the connection is lost, or if the proxy has not reported all requests in time at the end.
    on_activity: called while answers of the model's server arrive.
    """
    reader, writer = await _connect(address, token, start_seconds)
    ends = False

    async def follow() -> None:
        try:
            while line := await reader.readline():
                if line == _ACTIVITY:
                    on_activity()
                else:
                    on_request(_DECODER.decode(line))
        except OSError:
            pass
        finally:  # also after a line that cannot be read: no request must go unseen
            if not ends:
                on_loss(GiveUp(FailedCode.INTERNAL, _LOST))

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        ends = True
        with contextlib.suppress(OSError):
            writer.write_eof()
        await asyncio.wait([following], timeout=_END_SECONDS)
        if not following.done():
            on_loss(GiveUp(FailedCode.INTERNAL, _LATE))
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        writer.close()


async def _connect(
    address: tuple[str, int], token: str, start_seconds: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(start_seconds):
            while True:
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection(*address)
                    writer.write(token.encode() + b"\n")
                    with contextlib.suppress(OSError):
                        if await reader.readline() == b"\n":
                            return reader, writer
                    writer.close()
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        message = f"the key proxy of this attempt's pod did not start within {start_seconds:g} seconds; "
        message += "`kubectl logs POD -c key-proxy` shows why"
        raise GiveUp(FailedCode.INTERNAL, message) from None
