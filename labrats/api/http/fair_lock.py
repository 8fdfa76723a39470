"""A lock that keeps the event loop responsive while many requests do the same work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairLock:
    """A lock for one piece of work at a time. Tasks hold it in the order of their requests.

    The event loop runs all other tasks between two pieces. With hundreds of streams active, another request waits for
    one piece of work instead of hundreds.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold the lock. The block must not await anything."""
        async with self._lock:
            await asyncio.sleep(0)
            yield
