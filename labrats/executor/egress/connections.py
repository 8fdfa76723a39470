"""The open connections of a server, of which nobody can occupy all."""

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Connections(Generic[T]):
    """Connections by owner, the oldest first, each with a value. most: the maximum of all owners together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_owner: dict[str, dict[asyncio.Task[None], T]] = {}

    def __iter__(self) -> Iterator[tuple[asyncio.Task[None], T]]:
        for owned in self._by_owner.values():
            yield from owned.items()

    def count(self, owner: str) -> int:
        return len(self._by_owner.get(owner, ()))

    def add(self, owner: str, task: asyncio.Task[None], value: T) -> None:
        """Add a connection. If there are too many, end the oldest one of the owner with the most."""
        if sum(map(len, self._by_owner.values())) >= self._most:
            self.end_oldest(max(self._by_owner, key=self.count))
        self._by_owner.setdefault(owner, {})[task] = value

    def remove(self, owner: str, task: asyncio.Task[None]) -> None:
        owned = self._by_owner.get(owner, {})
        owned.pop(task, None)
        if not owned:
            self._by_owner.pop(owner, None)

    def end_oldest(self, owner: str) -> None:
        oldest = next(iter(self._by_owner[owner]))
        self.remove(owner, oldest)
        oldest.cancel()
