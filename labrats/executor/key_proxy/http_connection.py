"""One HTTP/1.1 connection: h11's state machine on asyncio's streams."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import h11

HEAD_BYTES: Final = 64 * 1024
READ_BYTES: Final = 64 * 1024

Event = h11.Request | h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage | h11.ConnectionClosed


@dataclass
class HttpConnection:
    """A connection to a client (`role` is h11.SERVER) or to a server (h11.CLIENT). was_used: by an earlier request."""

    role: type[h11.SERVER] | type[h11.CLIENT]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    was_used: bool = False
    http: h11.Connection = field(init=False)

    def __post_init__(self) -> None:
        self.http = h11.Connection(self.role, max_incomplete_event_size=HEAD_BYTES)

    async def receive(self) -> Event:
        """Return the next event. Raises OSError and h11.RemoteProtocolError."""
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                if self.http.they_are_waiting_for_100_continue:
                    await self.send(h11.InformationalResponse(status_code=100, headers=[]))
                self.http.receive_data(await self.reader.read(READ_BYTES))
            else:
                assert event is not h11.PAUSED
                return event  # type: ignore[return-value]

    async def send(self, *events: h11.Event) -> None:
        """Send events, and wait while the other side does not read."""
        if data := b"".join(self.http.send(event) or b"" for event in events):
            self.writer.write(data)
            await self.writer.drain()

    async def closed_by_peer(self) -> None:
        """Wait until the other side closes the connection. What it sends before is read later."""
        unread = 0
        while data := await self.reader.read(READ_BYTES):
            self.http.receive_data(data)
            unread += len(data)
            if unread > HEAD_BYTES:  # leave the rest in the socket's buffer
                await asyncio.Event().wait()
        self.http.receive_data(b"")

    def start_next_cycle(self) -> bool:
        """Prepare for another request. Return False if the connection must be closed."""
        self.was_used = True
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            return True
        return False

    @property
    def is_open(self) -> bool:
        """True unless the other side is known to have closed the connection."""
        return not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        """Close the connection, after sending what is still buffered."""
        self.writer.close()

    async def close_after_sending(self) -> None:
        """Close the connection, and wait until the other side has everything. Raises OSError."""
        self.writer.close()
        await self.writer.wait_closed()

    def abort(self) -> None:
        """Close the connection without sending what is still buffered, so that the other side notices the failure."""
        self.writer.transport.abort()
