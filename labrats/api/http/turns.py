"""Fair turns of the event loop for work that many requests do at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Lets one task at a time do a piece of work, in the order in which they ask.

    The loop gets to all else between two turns: with hundreds of streams at work, another request waits for one turn.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for this task's turn. The piece of work in the block must not wait for anything."""
        async with self._lock:
            await asyncio.sleep(0)
            yield
