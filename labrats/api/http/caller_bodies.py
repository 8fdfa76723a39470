"""Limit on the large JSON bodies of one caller that are in progress, since each takes several times its size."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from labrats.api.http.signed_body import FREE_BYTES

BUDGET_BYTES: Final = 64 * 2**20
"""Limit on the bodies of one caller that are received and handled at a time. Bodies of FREE_BYTES do not count."""


class CallerBodies:
    """Budgets for bodies, one for each caller, so that no caller can fill the memory or keep others from sending."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._used = Counter[str]()
        self._released = asyncio.Event()

    @asynccontextmanager
    async def room_for(self, size: int, caller_id: str) -> AsyncIterator[None]:
        """Wait until there is room for a body of `size` bytes, and reserve it during the block.

        The size is known before the body arrives. Two bodies that each wait for the rest of the budget would never end.
        """
        if size <= FREE_BYTES:
            yield
            return
        while self._used[caller_id] and self._used[caller_id] + size > self._budget_bytes:
            await self._released.wait()
        self._used[caller_id] += size
        try:
            yield
        finally:
            self._used[caller_id] -= size
            if not self._used[caller_id]:
                del self._used[caller_id]
            self._released.set()
            self._released = asyncio.Event()
