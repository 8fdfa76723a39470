"""A queue of keys to reconcile. A key is queued once, and at most one worker has it at a time."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from labrats.model.errors import RetryLater
from labrats.timers import Timers

log = structlog.get_logger()

ERROR_DELAY_SECONDS: Final = 5.0
"""Delay before a key that failed with an unexpected error is reconciled again."""


class WorkQueue:
    """A queue of keys. A key that is added while a worker has it is queued again afterwards, so no change is missed."""

    def __init__(self) -> None:
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()
        self._busy: set[str] = set()
        self._wake: deque[asyncio.Future[None]] = deque()
        self._timers = Timers(self.add)

    def add(self, key: str) -> None:
        if key in self._queued:
            return
        self._queued.add(key)
        if key not in self._busy:
            self._make_ready(key)

    def add_later(self, key: str, delay_seconds: float) -> None:
        """Add the key after a delay. Replaces the earlier timer of the key."""
        self._timers.start(key, delay_seconds)

    def has_timer(self, key: str) -> bool:
        """Return whether the key is added after a delay."""
        return key in self._timers

    def cancel_timer(self, key: str) -> None:
        self._timers.cancel(key)

    def cancel_timers(self) -> None:
        self._timers.cancel_all()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[str]:
        """Wait for the next key, and hold it until the block ends."""
        while not self._ready:
            waiter = asyncio.get_running_loop().create_future()
            self._wake.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():
                    self._wake_one()  # this worker was woken, but another one has to take the key
                raise
        key = self._ready.popleft()
        self._queued.discard(key)
        self._busy.add(key)
        try:
            yield key
        finally:
            self._busy.discard(key)
            if key in self._queued:
                self._make_ready(key)

    def __len__(self) -> int:
        return len(self._queued)

    def _make_ready(self, key: str) -> None:
        self._ready.append(key)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._wake:
            if not (waiter := self._wake.popleft()).done():
                waiter.set_result(None)
                return


async def work_forever(queue: WorkQueue, work: Callable[[str], Awaitable[None]], kind: str = "job") -> None:
    """Work on the queue until cancelled. A key that fails is queued again after a delay.

    kind: of what the keys name, for the log.
    """
    while True:
        async with queue.take() as key:
            await work_once(queue, work, key, kind)
        await asyncio.sleep(0)  # the work may have waited for nothing, and the next key be ready


async def work_once(queue: WorkQueue, work: Callable[[str], Awaitable[None]], key: str, kind: str = "job") -> None:
    """Work on a key. If it fails, it is queued again after a delay."""
    try:
        await work(key)
    except RetryLater as error:
        log.warning("reconcile postponed", **{kind: key}, reason=str(error))
        queue.add_later(key, error.delay_seconds)
    except Exception:
        # A bug that one key triggers must not stop the others.
        log.exception("reconcile failed", **{kind: key})
        queue.add_later(key, ERROR_DELAY_SECONDS)
