"""Waiting for what happens in other tasks and processes."""

import asyncio
from collections.abc import Callable

DEADLINE_SECONDS = 30.0
"""So long that only what never happens runs into it."""


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds. Raises TimeoutError where it never does."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
