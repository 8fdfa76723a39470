"""Time that belongs to the test."""

import asyncio
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while anything can be done, and then jumps to what is due next.

    So an hour's wait takes no time, what waits wakes in the order of its time, and a run depends on nothing but its
    inputs. Only for code that waits for no thread and no other process. Raises StuckForEver where nothing is due.
    """

    def __init__(self) -> None:
        self._virtual_time = 0.0
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        return self._virtual_time

    def _jump(self, seconds: float) -> None:
        self._virtual_time += seconds


class StuckForEver(BaseException):
    """Every task waits for something that none of them will do."""


class _JumpingSelector(selectors.SelectSelector):
    """Asked to wait while nothing is ready, it has the time jump instead."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise StuckForEver
            self._jump(timeout)
        return ready


class FakeClock:
    """Clock (labrats/ports.py): noon when it is made, and from there on with the time of the running loop."""

    def __init__(self, now: datetime = NOON) -> None:
        self._zero = now
        self._loop_zero: float | None = None

    def now(self) -> datetime:
        time = asyncio.get_running_loop().time()
        if self._loop_zero is None:
            self._loop_zero = time
        return self._zero + timedelta(seconds=time - self._loop_zero)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    async def advance(self, seconds: float) -> None:
        """Let time pass on a VirtualTimeLoop: whatever is due until then has happened, in order, on return."""
        await asyncio.sleep(seconds)

    def step(self, seconds: float) -> None:
        """Set the time of day forward (or back) as an administrator would: no wait gets any shorter."""
        self._zero += timedelta(seconds=seconds)
