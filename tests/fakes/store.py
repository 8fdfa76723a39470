"""An in-memory Store."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from labrats.model.errors import BecameUnreadable, Conflict, LabratsError, NotFound
from labrats.model.record import OwnerReference, Resource, taken_by
from labrats.ports import Change, Changed, Clock, Deleted, Reset, Synced, SystemClock

R = TypeVar("R", bound=Resource)


class MemoryStore:
    """A Store (labrats/ports.py) for unit tests. Every call yields to other tasks first, as a real one does.

    spoiled:  names of resources that a person has made invalid, so that only former versions of them are known.
    refusals: the error of each update, by the name of the resource.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._resources: dict[tuple[str, str], Any] = {}
        self._version = 0
        self._watchers: list[tuple[str, asyncio.Queue[Any]]] = []
        self.spoiled: set[str] = set()
        self.refusals: dict[str, LabratsError] = {}

    async def get(self, kind: type[R], name: str) -> R:
        await asyncio.sleep(0)
        if name in self.spoiled:
            raise BecameUnreadable(f"{kind.kind()} {name!r} has become invalid", delay_seconds=15)
        return self._find(kind, name)

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        await asyncio.sleep(0)
        return [self._resources[kind.kind(), name] for name in names if (kind.kind(), name) in self._resources]

    async def list(self, kind: type[R], labels: Mapping[str, str] | None = None) -> list[R]:
        await asyncio.sleep(0)
        wanted = (labels or {}).items()
        return [resource for resource in self._all(kind) if wanted <= resource.metadata.labels.items()]

    async def create(self, resource: R, parts: Sequence[Resource] = ()) -> R:
        await asyncio.sleep(0)
        added: Sequence[Resource] = (resource, *parts)
        keys = [(each.kind(), each.name) for each in added]
        for position, key in enumerate(keys):
            if key in self._resources or key in keys[:position]:
                raise Conflict(f"{key[0]} {key[1]!r} exists already")
        self._refuse_taken(resource)
        created = self._add(resource, resource.metadata.owner)
        for part in parts:
            self._add(part, created.as_owner())
        return created

    async def update(self, resource: R) -> R:
        await asyncio.sleep(0)
        if refusal := self.refusals.get(resource.name):
            raise refusal
        if resource.name in self.spoiled:
            raise Conflict(f"{resource.kind()} {resource.name!r} has another version")
        found = self._find(type(resource), resource.name)
        self._check_version(found, resource.metadata.resource_version)
        if found.claim != resource.claim:
            self._refuse_taken(resource)
        return self._put(resource)

    def apply(self, resource: R) -> R:
        """Add a resource as `kubectl apply` does, without a check of its claim."""
        return self._add(resource, resource.metadata.owner)

    async def delete(self, kind: type[R], name: str, resource_version: str | None = None) -> None:
        await asyncio.sleep(0)
        found = self._find(kind, name)
        if resource_version is not None:
            self._check_version(found, resource_version)
        self._remove(found)

    @property
    def identity(self) -> str:
        return ""

    def watchers_of(self, kind: type[Resource]) -> int:
        """Return how many watches of a kind have begun."""
        return sum(name == kind.kind() for name, _ in self._watchers)

    async def watch(self, kind: type[R], *, after: int = 0, unsettled_only: bool = False) -> AsyncIterator[Change[R]]:
        if after:
            yield Reset()
        changes: asyncio.Queue[Change[R]] = asyncio.Queue()  # unbounded: a slow watcher delays no other
        watcher = (kind.kind(), changes)
        self._watchers.append(watcher)
        try:
            for resource in self._all(kind):
                if not (unsettled_only and resource.is_settled):
                    yield Changed(resource)
            yield Synced()
            while True:
                yield await changes.get()
        finally:
            self._watchers.remove(watcher)

    def silent_seconds(self, kind: type[Resource]) -> float:
        return 0.0

    def _all(self, kind: type[R]) -> Sequence[R]:
        return [self._resources[key] for key in sorted(self._resources) if key[0] == kind.kind()]

    def _find(self, kind: type[R], name: str) -> R:
        found: R | None = self._resources.get((kind.kind(), name))
        if found is None:
            raise NotFound(f"there is no {kind.kind()} {name!r}")
        return found

    def _refuse_taken(self, resource: Resource) -> None:
        for other in self._all(type(resource)):
            if resource.claim and other.claim == resource.claim and other.name != resource.name:
                raise taken_by(other)

    def _check_version(self, stored: Resource, resource_version: str) -> None:
        if stored.metadata.resource_version != resource_version:
            raise Conflict(f"{stored.kind()} {stored.name!r} was written since it was read")

    def _add(self, resource: R, owner: OwnerReference | None) -> R:
        created_at = resource.metadata.created_at or self._clock.now()
        metadata = replace(resource.metadata, uid=str(uuid.uuid4()), created_at=created_at, owner=owner)
        return self._put(replace(resource, metadata=metadata))

    def _put(self, resource: R) -> R:
        self._version += 1
        stored = replace(resource, metadata=replace(resource.metadata, resource_version=str(self._version)))
        self._resources[stored.kind(), stored.name] = stored
        self._notify(Changed(stored))
        return stored

    def _remove(self, resource: Resource) -> None:
        del self._resources[resource.kind(), resource.name]
        self._notify(Deleted(resource))
        for part in list(self._resources.values()):
            if (owner := part.metadata.owner) and (owner.kind, owner.name) == (resource.kind(), resource.name):
                self._remove(part)

    def _notify(self, change: Changed[Any] | Deleted[Any]) -> None:
        for kind, changes in self._watchers:
            if kind == change.resource.kind():
                changes.put_nowait(change)
