"""Notification of tasks that wait for a change of in-memory state."""

import asyncio


class Notifier:
    """An event for the next change. It is set at the change, and replaced by a new one."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def notify(self) -> None:
        self.next.set()
        self.next = asyncio.Event()
