"""The Store on Kubernetes: custom resources, ConfigMaps and Secrets of one namespace."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from labrats.backends.kubernetes.client import JSON, JSON_PATCH, ApiClient, Status
from labrats.backends.kubernetes.codec import ResourceType, resource_type
from labrats.backends.kubernetes.events import EventRecorder, event_of
from labrats.backends.kubernetes.invalid_objects import InvalidObjectReporter
from labrats.backends.kubernetes.reflector import (
    ObjectChanged,
    ObjectCollection,
    ObjectDeleted,
    Reflector,
    RejectionListener,
    WatchTimeouts,
)
from labrats.model.errors import Conflict, LabratsError, NotFound, RetryLater
from labrats.model.job import Job
from labrats.model.record import Resource, encode, taken_by
from labrats.ports import Change, Changed, Clock, Deleted, Synced, SystemClock

R = TypeVar("R", bound=Resource)

log = structlog.get_logger()

MENDED_SECONDS: Final = 15.0
"""How soon to look again at a job that somebody has made unreadable while it runs."""


class Reflectors:
    """The one reflector of each kind, which is started for whoever wants it first, and ends with `tasks`."""

    def __init__(self, client: ApiClient, namespace: str, tasks: asyncio.TaskGroup, timeouts: WatchTimeouts) -> None:
        self._client, self._namespace, self._tasks, self._timeouts = client, namespace, tasks, timeouts
        self._reflectors: dict[type[Resource], Reflector[Any]] = {}
        self._running: list[asyncio.Task[None]] = []

    def of(self, kind: type[R]) -> Reflector[R]:
        if (known := self._reflectors.get(kind)) is not None:
            return known
        resources = resource_type(kind)
        path = resources.path(self._namespace)
        collection = ObjectCollection(kind, path, resources.read, resources.query, keeps_last=kind is Job)
        reflector = self._reflectors[kind] = Reflector(self._client, collection, self._timeouts)
        self._running.append(self._tasks.create_task(reflector.run(), name=f"watch {resources.plural}"))
        return reflector

    def known(self, kind: type[R]) -> Reflector[R] | None:
        """That of `kind`, where somebody has wanted it."""
        return self._reflectors.get(kind)

    def end(self) -> None:
        for task in self._running:
            task.cancel()


class Leadership:
    """What the store of a leader must know more than that of others. since: the moment, of time.monotonic(), from which
    on nobody else has led.
    """

    def __init__(self, since: float, quarantine: InvalidObjectReporter) -> None:
        self.since = since
        self._quarantine = quarantine
        self._heard: dict[Reflector[Any], RejectionListener] = {}

    async def take_over(self, resources: ResourceType[Any], reflector: Reflector[Any]) -> None:
        """Return once the reflector knows whatever former leaders have written. What it cannot read is told so."""
        await reflector.fresh_since(self.since)
        if reflector not in self._heard:
            hear = self._heard[reflector] = partial(self._quarantine.report, resources)
            reflector.hear_of_rejected(hear)

    def end(self) -> None:
        for reflector, hear in self._heard.items():
            reflector.stop_hearing(hear)


class KubernetesStore:
    """Store (labrats/ports.py) on the objects of one namespace.

    Whoever else writes them is seen to, by `watch` as well. An object that makes no sense, since a person wrote it,
    does not exist. A job that did make sense stays what it was to watchers, so that nobody ends what it runs.

    The parts of a resource are created after it, one by one, and deleted after it, by the cluster: others may see it
    without them for a moment. Parts that are yet to be deleted make way for those of the next one of its name. One
    whose claim another has is there for a moment, too, until it is taken back.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        watches: Reflectors,
        events: EventRecorder,
        clock: Clock,
        lead: Leadership | None = None,
    ) -> None:
        self._client, self._namespace, self._watches = client, namespace, watches
        self._events, self._clock, self._lead = events, clock, lead

    @classmethod
    @asynccontextmanager
    async def open(
        cls, client: ApiClient, namespace: str, clock: Clock | None = None, timeouts: WatchTimeouts | None = None
    ) -> "AsyncIterator[KubernetesStore]":
        """The store in `namespace`, where the custom resources are known. On leaving, its watches end."""
        clock = clock or SystemClock()
        events = EventRecorder(client, namespace, clock)
        try:
            async with asyncio.TaskGroup() as tasks:
                watches = Reflectors(client, namespace, tasks, timeouts or WatchTimeouts())
                telling = tasks.create_task(events.run(), name="events")
                try:
                    yield cls(client, namespace, watches, events, clock)
                finally:
                    telling.cancel()
                    watches.end()
        except BaseExceptionGroup as errors:
            if len(errors.exceptions) > 1:
                raise
            raise errors.exceptions[0] from None  # as it was raised within the block, or by the watch that failed

    @asynccontextmanager
    async def led(self, client: ApiClient, since: float) -> "AsyncIterator[KubernetesStore]":
        """This store for an engine that leads. client: says so with each write.

        The watches are the same, but what they tell is at least as new as `since`, the moment, of time.monotonic(),
        from which on nobody else has led. What they cannot make sense of is told so, which one engine does for all.
        """
        events = EventRecorder(client, self._namespace, self._clock)
        quarantine = InvalidObjectReporter(client, self._namespace, events, self._clock)
        lead = Leadership(since, quarantine)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each.run()) for each in (events, quarantine)]
            try:
                yield KubernetesStore(client, self._namespace, self._watches, events, self._clock, lead)
            finally:
                lead.end()
                for task in running:
                    task.cancel()

    async def get(self, kind: type[R], name: str) -> R:
        resources = resource_type(kind)
        body = await self._client.request("GET", resources.path(self._namespace, name))
        if (found := self._read(resources, body)) is not None:
            return found
        if (reflector := self._watches.known(kind)) and reflector.get(name):
            raise RetryLater(f"{kind.kind()} {name!r} makes no sense any more", MENDED_SECONDS)
        raise NotFound(f"{kind.kind()} {name!r} makes no sense")

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        reflector = self._watches.known(kind)
        if reflector and reflector.is_caught_up and (self._lead is None or reflector.is_fresh_since(self._lead.since)):
            found = [reflector.get(name) for name in names]
        else:
            found = await asyncio.gather(*(self._find(kind, name) for name in names))
        return [each for each in found if each is not None]

    async def list(self, kind: type[R], labels: Mapping[str, str] | None = None) -> list[R]:
        selector = {"labelSelector": ",".join(f"{name}={value}" for name, value in labels.items())} if labels else {}
        return [*await self._list(kind, selector)]

    async def create(self, resource: R, parts: Sequence[Resource] = ()) -> R:
        named = Counter((part.kind(), part.name) for part in parts)
        if twice := [f"{kind} {name!r}" for (kind, name), count in named.items() if count > 1]:
            raise Conflict(f"of one name in {resource.kind()} {resource.name!r}: {', '.join(twice)}")
        created = await self._create(resource)
        if created.claim is not None and (holder := await self._earlier_holder(created)):
            await self._take_back([created])
            raise taken_by(holder)
        owned = [replace(part, metadata=replace(part.metadata, owner=created.as_owner())) for part in parts]
        outcomes = await asyncio.gather(*(self._create_part(part) for part in owned), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if not failures:
            return created
        if final := [failure for failure in failures if not isinstance(failure, RetryLater)]:
            await self._take_back([created, *(outcome for outcome in outcomes if isinstance(outcome, Resource))])
            raise final[0]
        raise failures[0]  # nothing is taken back: another request may have found it, and be completing it

    async def update(self, resource: R) -> R:
        if resource.claim is None:
            return await self._update(resource)
        former = await self.get(type(resource), resource.name)
        changed = await self._update(resource, former)
        if changed.claim != former.claim and (holder := await self._earlier_holder(changed)):
            await self._change_back(_as_of(former, changed))
            raise taken_by(holder)
        return changed

    async def delete(self, kind: type[R], name: str, resource_version: str | None = None) -> None:
        conditions = {} if resource_version is None else {"resourceVersion": resource_version}
        await self._delete(kind, name, conditions)

    def begin_watch(self, kind: type[Resource]) -> None:
        """Begin to read what exists, for whoever will watch."""
        self._watches.of(kind)

    async def watch(self, kind: type[R]) -> AsyncIterator[Change[R]]:
        reflector = self._watches.of(kind)
        if self._lead:
            await self._lead.take_over(resource_type(kind), reflector)
        async with aclosing(reflector.changes()) as changes:
            async for change in changes:
                match change:
                    case ObjectChanged(resource):
                        yield Changed(resource)
                    case ObjectDeleted(resource):
                        yield Deleted(resource)
                    case _:
                        yield Synced()

    def silent_seconds(self, kind: type[Resource]) -> float:
        reflector = self._watches.known(kind)
        return reflector.silent_seconds if reflector else 0.0

    def _tell_what_happened(self, resource: Resource) -> None:
        if isinstance(resource, Job) and (event := event_of(resource)):
            self._events.record(event)

    async def _find(self, kind: type[R], name: str) -> R | None:
        try:
            return await self.get(kind, name)
        except NotFound:
            return None

    async def _list(self, kind: type[R], selector: Mapping[str, str], version: str = "") -> Sequence[R]:
        """version: of the moment that is asked for, rather than now."""
        resources = resource_type(kind)
        pages = self._client.pages(resources.path(self._namespace), {**resources.query, **selector}, version)
        read = [self._read(resources, item) async for page in pages for item in page.items]
        return [each for each in read if each is not None]

    async def _earlier_holder(self, written: R) -> R | None:
        """Who had the claim of `written` already at the moment when it was written.

        The API server has put all writes in one order. So of several who claim the same at once, each of which asks
        this, the first one finds nobody, and all others find it.
        """
        everybody = await self._list(type(written), {}, written.metadata.resource_version)
        return next((each for each in everybody if each.claim == written.claim and each.name != written.name), None)

    async def _create(self, resource: R) -> R:
        try:
            return await self._add(resource)
        except Conflict:
            if not await self._remove_left_over(resource):
                raise
        return await self._add(resource)

    async def _create_part(self, part: Resource) -> Resource:
        """Another replica may have been quicker, which was asked for the same and found its owner without it."""
        try:
            return await self._create(part)
        except Conflict:
            found = await self._find(type(part), part.name)
            if found is None or found.metadata.owner != part.metadata.owner:
                raise
            return found

    async def _remove_left_over(self, new: Resource) -> bool:
        """Remove what has the name of `new` and belonged to one that had the name of its owner: the cluster has yet to.

        False where the name is another's. Raises RetryLater, also for who may create but not delete it.
        """
        if (owner := new.metadata.owner) is None:
            return False
        if (found := await self._find(type(new), new.name)) is None:
            return True
        if not owner.succeeds(found.metadata.owner):
            return False
        try:
            await self._delete(type(new), new.name, {"resourceVersion": found.metadata.resource_version})
        except NotFound:
            pass  # the cluster was quicker
        except RetryLater as error:
            raise RetryLater(f"the {new.kind()} {new.name!r} of a deleted {owner.kind} is yet to be removed") from error
        return True

    async def _add(self, resource: R) -> R:
        resources = resource_type(type(resource))
        new = replace(resource, metadata=replace(resource.metadata, created_at=self._clock.now()))
        try:
            return await self._write(resources, "POST", resources.path(self._namespace), resources.new_object(new))
        except RetryLater:
            # It may have been carried out. The time to the microsecond tells ours from somebody else's.
            found = await self._find(type(new), new.name)
            if found is None or found.metadata.created_at != new.metadata.created_at:
                raise
            return found

    async def _take_back(self, resources: Sequence[Resource]) -> None:
        """Delete what was just made, the owner first, so that nobody begins with it. What cannot be deleted is left."""
        for resource in resources:
            try:
                await self._delete(type(resource), resource.name, {"uid": resource.metadata.uid})
            except LabratsError as error:
                log.warning("left behind", kind=resource.kind(), name=resource.name, reason=str(error))

    async def _update(self, resource: R, former: R | None = None) -> R:
        """former: what it replaces, where that is known: its status is not written once more."""
        resources = resource_type(type(resource))
        if not resources.has_status or (former and _status(former) == _status(resource)):
            return await self._patch(resource)
        status = resources.status_object(resource, self._clock.now())
        path = resources.path(self._namespace, resource.name, "status")
        stored = await self._write(resources, "PUT", path, status)
        self._tell_what_happened(stored)
        return await self._patch(_as_of(resource, stored)) if resources.differ(stored, resource) else stored

    async def _change_back(self, former: Resource) -> None:
        """What cannot be changed back is left: the engine that leads says on it what is wrong."""
        try:
            await self._patch(former)
        except LabratsError as error:
            log.warning("left changed", kind=former.kind(), name=former.name, reason=str(error))

    async def _patch(self, resource: R) -> R:
        """Write all of it but its status."""
        resources = resource_type(type(resource))
        path = resources.path(self._namespace, resource.name)
        return await self._write(resources, "PATCH", path, resources.patch(resource), JSON_PATCH)

    async def _write(self, resources: ResourceType[R], method: str, path: str, body: Any, content: str = JSON) -> R:
        answer = await self._client.request(method, path, encode(body), content_type=content)
        written = resources.read(answer)
        if reflector := self._watches.known(type(written)):
            reflector.expect(written.name, written.metadata.resource_version)
        return written

    async def _delete(self, kind: type[Resource], name: str, conditions: dict[str, str]) -> None:
        options = {"preconditions": conditions, "propagationPolicy": "Background"}
        answer = await self._client.request("DELETE", resource_type(kind).path(self._namespace, name), encode(options))
        # There is no uid where the answer is the object, which a finalizer of somebody else's keeps for now.
        uid = msgspec.json.decode(answer, type=Status).details.uid
        if uid and (reflector := self._watches.known(kind)):
            reflector.expect_removal(name, uid)

    def _read(self, resources: ResourceType[R], body: bytes | msgspec.Raw) -> R | None:
        try:
            return resources.read(body)
        except ValueError as error:
            log.error("an object makes no sense", kind=resources.record.kind(), reason=str(error))
            return None


def _as_of(resource: R, written: Resource) -> R:
    """`resource`, to be written after `written`, which is the same one as it was stored last."""
    version = written.metadata.resource_version
    return replace(resource, metadata=replace(resource.metadata, resource_version=version))


def _status(resource: Resource) -> Any:
    return getattr(resource, "status")  # noqa: B009, not every kind has one
