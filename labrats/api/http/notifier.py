"""Waiting for a change of what is kept in memory."""

import asyncio


class Notifier:
    """Wakes everybody who waits for `next` each time something has changed."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def announce(self) -> None:
        self.next.set()
        self.next = asyncio.Event()
