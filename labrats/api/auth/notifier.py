"""Wakes tasks that wait for a change of in-memory state."""

import asyncio


class Notifier:
    """Sets `next` at each change. Waiters re-read `next`, since every change replaces the event."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def notify(self) -> None:
        self.next.set()
        self.next = asyncio.Event()
