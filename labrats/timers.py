"""Timers by key."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """At most one timer for each key. call: called with the key when its timer fires."""

    def __init__(self, call: Callable[[K], None]) -> None:
        self._call = call
        self._handles: dict[K, asyncio.TimerHandle] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._handles

    def start(self, key: K, delay_seconds: float) -> None:
        """Start the timer of a key. Replaces the earlier one."""
        self.cancel(key)
        self._handles[key] = asyncio.get_running_loop().call_later(max(0.0, delay_seconds), self._fire, key)

    def cancel(self, key: K) -> None:
        if handle := self._handles.pop(key, None):
            handle.cancel()

    def cancel_all(self) -> None:
        """Cancel all timers, which would otherwise keep their owner in memory."""
        for key in list(self._handles):
            self.cancel(key)

    def _fire(self, key: K) -> None:
        del self._handles[key]
        self._call(key)
