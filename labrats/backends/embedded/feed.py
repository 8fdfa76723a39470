"""The change feed: what the store committed, to whoever watches, in the order of the commits."""

import asyncio
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from labrats.backends.embedded.database import decode_body
from labrats.model.record import Resource
from labrats.ports import Changed, Deleted

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class CommittedWrite:
    """A resource was created or replaced."""

    version: int
    kind: str
    resource: Any


@dataclass(frozen=True, slots=True)
class CommittedDeletion:
    """A resource is gone; `body` is its last JSON."""

    version: int
    kind: str
    name: str
    body: bytes


class Feed:
    """Everybody who watches, by kind. Lives in the event loop."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, list[Subscription[Any]]] = {}

    def subscribe(self, kind: type[R]) -> "Subscription[R]":
        """What is committed from now on."""
        subscription = Subscription(kind)
        self._subscriptions.setdefault(kind.kind(), []).append(subscription)
        return subscription

    def unsubscribe(self, subscription: "Subscription[Any]") -> None:
        self._subscriptions[subscription.kind.kind()].remove(subscription)

    def publish(self, changes: Iterable[CommittedWrite | CommittedDeletion]) -> None:
        """Hand `changes` to their subscriptions. Never waits."""
        for change in changes:
            for subscription in self._subscriptions.get(change.kind, ()):
                subscription.push(change)


class Subscription(Generic[R]):
    """What one watcher has not read yet: the latest change of each resource, in the order in which they came.

    Keyed by uid, so that a watcher that reads nothing costs one entry a resource, however often it is written, and
    so that the end of one resource is not lost in the beginning of another of the same name.
    """

    def __init__(self, kind: type[R]) -> None:
        self.kind = kind
        self._unread: dict[str, tuple[int, Changed[R] | Deleted[R]]] = {}
        self._arrived = asyncio.Event()
        self._read_up_to: list[str] = []
        self._read_versions: list[int] = []

    def push(self, change: CommittedWrite | CommittedDeletion) -> None:
        if isinstance(change, CommittedWrite):
            self._add(change.version, Changed(change.resource))
        elif (last := decode_body(self.kind, change.name, change.body)) is not None:
            self._add(change.version, Deleted(last))

    def mark_read(self, name: str, version: int) -> None:
        """The watcher has read the tables as of `version` for the names after those it knew before, up to `name`.

        The last call counts for all names that follow, too.
        """
        self._read_up_to.append(name)
        self._read_versions.append(version)

    async def next_changes(self) -> list[Changed[R] | Deleted[R]]:
        """What is unread and not known otherwise. Waits for a change, yet may return none."""
        while not self._unread:
            self._arrived.clear()
            await self._arrived.wait()
        unread, self._unread = self._unread, {}
        return [change for version, change in unread.values() if version > self._read_version(change.resource.name)]

    def _add(self, version: int, change: Changed[R] | Deleted[R]) -> None:
        uid = change.resource.metadata.uid
        self._unread.pop(uid, None)  # so that it goes to the end
        self._unread[uid] = version, change
        self._arrived.set()

    def _read_version(self, name: str) -> int:
        """The version as of which the watcher knows `name`."""
        return self._read_versions[min(bisect_left(self._read_up_to, name), len(self._read_versions) - 1)]
