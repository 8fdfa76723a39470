"""Helpers that wait for other tasks and processes."""

import asyncio
from collections.abc import Callable, Iterator

DEADLINE_SECONDS = 90.0
"""A generous timeout: a condition that is not met by then never will be."""

_SHORTEST, _LONGEST = 0.005, 0.25


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds. Raises TimeoutError after DEADLINE_SECONDS."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        for pause in poll_intervals():
            if condition():
                return
            await asyncio.sleep(pause)


def poll_intervals() -> Iterator[float]:
    """Yield the seconds to sleep between polls, without end: 5 ms at first, then a tenth of the time waited so far, at
    most 0.25 s. Each poll takes processor time from the awaited work.
    """
    waited = 0.0
    while True:
        pause = min(max(_SHORTEST, waited / 10), _LONGEST)
        waited += pause
        yield pause
