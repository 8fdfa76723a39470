"""Comments in streams of server-sent events, which keep a silent connection open."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

PING_SECONDS: Final = 15.0
PING: Final = b": ping\n\n"


async def with_pings(frames: AsyncIterator[bytes], stopping: asyncio.Event) -> AsyncGenerator[bytes]:
    """Yield `frames` until they end or the engine stops, and a comment after PING_SECONDS without a frame.

    One task reads all frames, because a task for each frame costs as much as reading it.
    """
    slot = _Slot()
    reading, stop = asyncio.create_task(slot.fill_from(frames)), asyncio.create_task(stopping.wait())
    for task in (reading, stop):
        task.add_done_callback(lambda _: slot.changed.set())
    timer = _call_later(slot.changed.set)
    try:
        while True:
            await slot.changed.wait()
            timer.cancel()
            slot.changed.clear()
            if stop.done():
                return
            if slot.frame is None and reading.done():
                reading.result()
                return
            if slot.frame is None:
                yield PING
            else:
                yield slot.frame
                slot.empty()
            timer = _call_later(slot.changed.set)
    finally:
        timer.cancel()
        stop.cancel()
        reading.cancel()
        await asyncio.gather(stop, reading, return_exceptions=True)


def _call_later(callback: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(PING_SECONDS, callback)


class _Slot:
    """A place for one frame, between the task that reads a stream's frames and the one that yields them.

    changed: set when a frame is there.
    """

    def __init__(self) -> None:
        self.frame: bytes | None = None
        self.changed = asyncio.Event()
        self._emptied = asyncio.Event()

    async def fill_from(self, frames: AsyncIterator[bytes]) -> None:
        """Put each frame into the slot once the earlier one has been taken out."""
        async for frame in frames:
            self.frame = frame
            self.changed.set()
            await self._emptied.wait()
            self._emptied.clear()

    def empty(self) -> None:
        """Make room for the next frame."""
        self.frame = None
        self._emptied.set()
