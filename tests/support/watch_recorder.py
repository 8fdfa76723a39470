"""A recorder of a store's watch, with which a test waits for changes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from labrats.model.record import Resource
from labrats.ports import Change, Changed, Deleted, Store, Synced
from tests.support.waiting import DEADLINE_SECONDS

R = TypeVar("R", bound=Resource)


class WatchRecorder(Generic[R]):
    """The changes that a watch has reported so far, and the resources that exist after them, by name."""

    def __init__(self) -> None:
        self.changes: list[Change[R]] = []
        self.current: dict[str, R] = {}
        self._grew = asyncio.Condition()

    @property
    def synced(self) -> bool:
        return Synced() in self.changes

    @property
    def resource_changes(self) -> list[Changed[R] | Deleted[R]]:
        return [change for change in self.changes if isinstance(change, Changed | Deleted)]

    async def follow(self, changes: AsyncIterator[Change[R]]) -> None:
        async for change in changes:
            async with self._grew:
                self._add(change)
                self._grew.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` is true, checking it after each change."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._grew:
            await self._grew.wait_for(holds)

    def _add(self, change: Change[R]) -> None:
        self.changes.append(change)
        match change:
            case Changed(resource):
                self.current[resource.name] = resource
            case Deleted(resource):
                del self.current[resource.name]
            case Synced():
                pass
        self.current = dict(sorted(self.current.items()))


@asynccontextmanager
async def record_watch(store: Store, kind: type[R]) -> AsyncIterator[WatchRecorder[R]]:
    """Record a watch during the block."""
    recorder = WatchRecorder[R]()
    following = asyncio.create_task(recorder.follow(store.watch(kind)))
    try:
        yield recorder
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
