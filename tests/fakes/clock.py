"""Virtual time: an event loop that never waits, and a clock on it."""

import asyncio
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while a task is ready, and then jumps to the next timer.

    A sleep of an hour takes no time, timers fire in order, and a run depends only on its inputs. Not for code that
    waits for threads or other processes. Raises Deadlock if no task is ready and no timer is set.
    """

    def __init__(self) -> None:
        self._virtual_time = 0.0
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        return self._virtual_time

    def _jump(self, seconds: float) -> None:
        self._virtual_time += seconds


class Deadlock(BaseException):
    """Every task waits for another one."""


class _JumpingSelector(selectors.SelectSelector):
    """A selector that moves the virtual time instead of waiting."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Deadlock
            self._jump(timeout)
        return ready


class FakeClock:
    """A Clock (labrats/ports.py) that starts at noon and follows the time of the running loop."""

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
        """Let time pass on a VirtualTimeLoop. All timers up to then have fired on return."""
        await asyncio.sleep(seconds)

    def step(self, seconds: float) -> None:
        """Set the time of day forward or back, as an administrator would. No sleep becomes shorter."""
        self._zero += timedelta(seconds=seconds)
