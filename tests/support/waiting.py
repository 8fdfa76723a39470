"""Waiting for what happens in other tasks and processes."""

import asyncio
from collections.abc import Callable, Iterator

DEADLINE_SECONDS = 30.0
"""So long that only what never happens runs into it."""

_SHORTEST, _LONGEST = 0.005, 0.25


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds. Raises TimeoutError where it never does."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        for pause in poll_intervals():
            if condition():
                return
            await asyncio.sleep(pause)


def poll_intervals() -> Iterator[float]:
    """Seconds to wait between one look and the next, for as long as it takes: a moment at first, and then a tenth of
    what was waited for already. Each look takes the machine from what is waited for.
    """
    waited = 0.0
    while True:
        pause = min(max(_SHORTEST, waited / 10), _LONGEST)
        waited += pause
        yield pause
