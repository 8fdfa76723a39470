"""The change feed: it passes committed changes to the watchers, in the order of the commits."""

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
    """The creation or replacement of a resource."""

    version: int
    kind: str
    resource: Any


@dataclass(frozen=True, slots=True)
class CommittedDeletion:
    """The deletion of a resource. `body` is its last JSON."""

    version: int
    kind: str
    name: str
    body: bytes


class Feed:
    """The subscriptions of all watchers, by kind. It belongs to the event loop."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, list[Subscription[Any]]] = {}

    def subscribe(self, kind: type[R]) -> "Subscription[R]":
        """Subscribe to the changes that are committed from now on."""
        subscription = Subscription(kind)
        self._subscriptions.setdefault(kind.kind(), []).append(subscription)
        return subscription

    def unsubscribe(self, subscription: "Subscription[Any]") -> None:
        self._subscriptions[subscription.kind.kind()].remove(subscription)

    def publish(self, changes: Iterable[CommittedWrite | CommittedDeletion]) -> None:
        """Pass changes to their subscriptions, without waiting for the watchers."""
        for change in changes:
            for subscription in self._subscriptions.get(change.kind, ()):
                subscription.push(change)


class Subscription(Generic[R]):
    """The unread changes of one watcher: the latest of each resource, in order.

    They are keyed by uid. A watcher that reads nothing costs one entry per resource, however often the resource is
    written, and a deletion is not overwritten by the creation of another resource with the same name.
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
        """Record that the watcher read the tables as of `version`, from the last recorded name up to `name`.

        The version of the last call also applies to all names after `name`.
        """
        self._read_up_to.append(name)
        self._read_versions.append(version)

    async def next_changes(self) -> list[Changed[R] | Deleted[R]]:
        """Wait for changes, and return those that are newer than the watcher's reads, if any."""
        while not self._unread:
            self._arrived.clear()
            await self._arrived.wait()
        unread, self._unread = self._unread, {}
        return [change for version, change in unread.values() if version > self._read_version(change.resource.name)]

    def _add(self, version: int, change: Changed[R] | Deleted[R]) -> None:
        uid = change.resource.metadata.uid
        self._unread.pop(uid, None)  # moves it to the end
        self._unread[uid] = version, change
        self._arrived.set()

    def _read_version(self, name: str) -> int:
        """Return the version as of which the watcher has read `name`."""
        return self._read_versions[min(bisect_left(self._read_up_to, name), len(self._read_versions) - 1)]
