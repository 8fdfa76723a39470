"""The keys that need a look: each once however often it was added, and never at two workers at a time."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from labrats.model.errors import RetryLater

log = structlog.get_logger()

ERROR_DELAY_SECONDS: Final = 5.0
"""After an unforeseen error: long enough not to fill the log, short enough to heal soon."""


class WorkQueue:
    """A key added while it is being worked on comes again afterwards, so no change is missed."""

    def __init__(self) -> None:
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()
        self._busy: set[str] = set()
        self._wake: deque[asyncio.Future[None]] = deque()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def add(self, key: str) -> None:
        if key in self._queued:
            return
        self._queued.add(key)
        if key not in self._busy:
            self._make_ready(key)

    def add_later(self, key: str, delay_seconds: float) -> None:
        """Add `key` after a while. A key has one timer: the latest wish counts."""
        self.cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(max(0.0, delay_seconds), self._timer_fired, key)

    def cancel_timer(self, key: str) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[str]:
        """The next key, held by this worker until the block ends."""
        while not self._ready:
            waiter = asyncio.get_running_loop().create_future()
            self._wake.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():
                    self._wake_one()  # it was woken and dies: the key is another worker's
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

    def _timer_fired(self, key: str) -> None:
        del self._timers[key]
        self.add(key)


async def work_forever(queue: WorkQueue, work: Callable[[str], Awaitable[None]]) -> None:
    """Be one of the workers of `queue`, whose keys are jobs, until cancelled. What fails is tried again later."""
    while True:
        async with queue.take() as job_id:
            try:
                await work(job_id)
            except RetryLater as error:
                log.warning("will try again", job=job_id, reason=str(error))
                queue.add_later(job_id, error.delay_seconds)
            except Exception:
                # A bug met on one job must not stop the others.
                log.exception("reconciling failed", job=job_id)
                queue.add_later(job_id, ERROR_DELAY_SECONDS)
