"""Loops that run while a test does."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def run_in_background(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `loops` beside the block, and cancel them at its end. Should one die, the block ends with its error."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in started:
                task.cancel()
