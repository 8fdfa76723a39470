"""The Store on Kubernetes: custom resources, ConfigMaps and Secrets of one namespace."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar, cast

import msgspec
import structlog
from msgspec.structs import replace

from labrats.backends.kubernetes.client import JSON, JSON_PATCH, ApiClient, Status
from labrats.backends.kubernetes.codec import LABRATS_API, ResourceType, resource_type
from labrats.backends.kubernetes.events import EventRecorder, event_of
from labrats.backends.kubernetes.invalid_objects import InvalidObjectReporter
from labrats.backends.kubernetes.reflector import (
    FREQUENT,
    ObjectChanged,
    ObjectCollection,
    ObjectDeleted,
    Reflector,
    RejectionListener,
    WatchTimeouts,
)
from labrats.backends.kubernetes.text_archive import TextArchive, text_names
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import BecameUnreadable, Conflict, LabratsError, NotFound, RetryLater, Unreadable
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.record import Resource, encode, taken_by
from labrats.ports import Change, Changed, Clock, Deleted, Reset, Synced, SystemClock

R = TypeVar("R", bound=Resource)

log = structlog.get_logger()

SAMPLE: Final = 20
"""Jobs that are read to estimate the size of all."""

UNREADABLE_DELAY_SECONDS: Final = 15.0
"""Delay before a job is read again that a person made invalid while it runs."""


class Reflectors:
    """One reflector per kind, started on first use in the task group `tasks`."""

    def __init__(
        self, client: ApiClient, namespace: str, tasks: asyncio.TaskGroup, timeouts: WatchTimeouts | None
    ) -> None:
        self._client, self._namespace, self._tasks, self._timeouts = client, namespace, tasks, timeouts
        self._reflectors: dict[type[Resource], Reflector[Any]] = {}
        self._running: list[asyncio.Task[None]] = []

    def get(self, kind: type[R]) -> Reflector[R]:
        if (known := self._reflectors.get(kind)) is not None:
            return known
        resources = resource_type(kind)
        path = resources.path(self._namespace)
        collection = ObjectCollection(
            kind,
            path,
            resources.read,
            resources.query,
            keeps_last=kind is Job,
            is_settled=lambda each: each.is_settled,
        )
        # Keys are Secrets, and must not be accepted long after they were revoked.
        timeouts = self._timeouts or (FREQUENT if kind is Secret else WatchTimeouts())
        reflector = self._reflectors[kind] = Reflector(self._client, collection, timeouts)
        self._running.append(self._tasks.create_task(reflector.run(), name=f"watch {resources.plural}"))
        return reflector

    def find(self, kind: type[R]) -> Reflector[R] | None:
        """Return the reflector of a kind if it was started."""
        return self._reflectors.get(kind)

    def stop(self) -> None:
        for task in self._running:
            task.cancel()


class Leadership:
    """The additions to a leader's store: fresh watches, and reports of invalid objects.

    since: start of the leadership, by time.monotonic().
    """

    def __init__(self, since: float, reporter: InvalidObjectReporter) -> None:
        self.since = since
        self._reporter = reporter
        self._listeners: dict[Reflector[Any], RejectionListener] = {}

    async def catch_up(self, resources: ResourceType[Any], reflector: Reflector[Any]) -> None:
        """Wait until the reflector includes all writes of former leaders, and report its invalid objects."""
        await reflector.fresh_since(self.since)
        if reflector not in self._listeners:
            listener = self._listeners[reflector] = partial(self._reporter.report, resources)
            reflector.add_rejection_listener(listener)

    def end(self) -> None:
        for reflector, listener in self._listeners.items():
            reflector.remove_rejection_listener(listener)


class KubernetesStore:
    """The Store (labrats/ports.py) of one namespace.

    Other clients may write the same objects. An object that a person made invalid does not exist for readers. A running
    job that becomes invalid keeps its last valid version for watchers, so that its attempt is not ended.

    The parts of a resource are created after it, one by one, and the cluster deletes them after it. So a resource may
    be visible without its parts for a moment. Parts of a deleted resource are replaced by those of a new resource of
    the same name. A resource whose claim is taken is visible for a moment, too, until it is deleted again.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        reflectors: Reflectors,
        events: EventRecorder,
        clock: Clock,
        leadership: Leadership | None = None,
        texts: TextArchive | None = None,
    ) -> None:
        self._client, self._namespace, self._reflectors = client, namespace, reflectors
        self._events, self._clock, self._leadership = events, clock, leadership
        self._texts = texts

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        client: ApiClient,
        namespace: str,
        clock: Clock | None = None,
        timeouts: WatchTimeouts | None = None,
        texts: TextArchive | None = None,
    ) -> "AsyncIterator[KubernetesStore]":
        """Open the store of a namespace. The custom resources must be installed.

        texts: the archive of the texts of ended jobs; None for a process that needs none.
        """
        clock = clock or SystemClock()
        events = EventRecorder(client, namespace, clock)
        try:
            async with asyncio.TaskGroup() as tasks:
                reflectors = Reflectors(client, namespace, tasks, timeouts)
                recording = tasks.create_task(events.run(), name="events")
                try:
                    yield cls(client, namespace, reflectors, events, clock, texts=texts)
                finally:
                    recording.cancel()
                    reflectors.stop()
        except BaseExceptionGroup as errors:
            if len(errors.exceptions) > 1:
                raise
            raise errors.exceptions[0] from None  # unwrap the error of the block or of the watch

    @asynccontextmanager
    async def as_leader(self, client: ApiClient, since: float) -> "AsyncIterator[KubernetesStore]":
        """Yield this store for the leader, which also reports invalid objects.

        client: client that sends the leader's epoch with each write.
        since:  start of the leadership, by time.monotonic(). The watches include all earlier writes.
        """
        events = EventRecorder(client, self._namespace, self._clock)
        reporter = InvalidObjectReporter(client, self._namespace, events, self._clock)
        leadership = Leadership(since, reporter)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each.run()) for each in (events, reporter)]
            try:
                shared = (self._reflectors, events, self._clock)
                yield KubernetesStore(client, self._namespace, *shared, leadership, self._texts)
            finally:
                leadership.end()
                for task in running:
                    task.cancel()

    async def get(self, kind: type[R], name: str) -> R:
        try:
            return await self.get_live(kind, name)
        except NotFound:
            if kind is ConfigMap and self._texts and (found := await asyncio.to_thread(self._texts.find, name)):
                return cast(R, found)
            raise

    async def get_live(self, kind: type[R], name: str) -> R:
        """Return what `get` does, but no archived text."""
        resources = resource_type(kind)
        body = await self._client.request("GET", resources.path(self._namespace, name))
        if (found := self._read(resources, body)) is not None:
            return found
        if (reflector := self._reflectors.find(kind)) and reflector.get(name):
            raise BecameUnreadable(f"{kind.kind()} {name!r} has become invalid", UNREADABLE_DELAY_SECONDS)
        raise Unreadable(f"{kind.kind()} {name!r} is invalid")

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        reflector = self._reflectors.find(kind)
        if (
            reflector
            and reflector.is_caught_up
            and (self._leadership is None or reflector.is_fresh_since(self._leadership.since))
        ):
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
            raise Conflict(f"{resource.kind()} {resource.name!r} has two parts of one name: {', '.join(twice)}")
        created = await self._create(resource)
        if created.claim is not None:
            try:
                await self._check_claim(created)
            except LabratsError:
                await self._roll_back([created])
                raise
        owned = [replace(part, metadata=replace(part.metadata, owner=created.as_owner())) for part in parts]
        outcomes = await asyncio.gather(*(self._create_part(part) for part in owned), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if not failures:
            return created
        if final := [failure for failure in failures if not isinstance(failure, RetryLater)]:
            await self._roll_back([created, *(outcome for outcome in outcomes if isinstance(outcome, Resource))])
            raise final[0]
        raise failures[0]  # no rollback: another request may have found the resource, and be creating its parts

    async def restore_texts(self, job: Job) -> None:
        """Create the ConfigMaps of a job again that were archived: its next pod mounts them. Raises RetryLater."""
        for name in text_names(job):
            if self._texts and (found := await asyncio.to_thread(self._texts.find, name)):
                with suppress(Conflict):  # it is there
                    await self._add(found)

    async def update(self, resource: R) -> R:
        if isinstance(resource, Job) and resource.phase is Phase.PENDING and resource.status.attempts:
            await self.restore_texts(resource)
        if resource.claim is None:
            return await self._update(resource)
        former = await self.get(type(resource), resource.name)
        changed = await self._update(resource, former)
        if changed.claim != former.claim:
            try:
                await self._check_claim(changed)
            except LabratsError:
                await self._restore(_with_version_of(former, changed))
                raise
        return changed

    async def delete(self, kind: type[R], name: str, resource_version: str | None = None) -> None:
        conditions = {} if resource_version is None else {"resourceVersion": resource_version}
        await self._delete(kind, name, conditions)

    def begin_watch(self, kind: type[Resource]) -> None:
        """Start the watch of a kind before its first watcher."""
        self._reflectors.get(kind)

    @property
    def identity(self) -> str:
        return ""  # the API server promises nothing about versions beyond a watch

    async def watch(self, kind: type[R], *, after: int = 0, unsettled_only: bool = False) -> AsyncIterator[Change[R]]:
        if after:
            yield Reset()
        reflector = self._reflectors.get(kind)
        if self._leadership:
            await self._leadership.catch_up(resource_type(kind), reflector)
        # The index, which reads all jobs, need not wait for the last of them.
        as_they_arrive = kind is Job and not unsettled_only and self._leadership is None
        async with aclosing(reflector.changes(unsettled_only=unsettled_only, as_they_arrive=as_they_arrive)) as changes:
            async for change in changes:
                match change:
                    case ObjectChanged(resource):
                        yield Changed(resource)
                    case ObjectDeleted(resource):
                        yield Deleted(resource)
                    case _:
                        yield Synced()

    async def history_bytes(self) -> int:
        """Estimate the bytes of all jobs in etcd: the real size of a sample, and the size of all in the local copy."""
        reflector = self._reflectors.get(Job)
        await reflector.caught_up()
        packed = reflector.packed_sizes()
        sample = random.sample(sorted(packed), min(SAMPLE, len(packed)))
        path, real, measured = resource_type(Job).path, 0, 0
        for name in sample:
            with suppress(NotFound):
                real += len(await self._client.request("GET", path(self._namespace, name)))
                measured += packed[name]
        return round(sum(packed.values()) * real / measured) if measured else 0

    def silent_seconds(self, kind: type[Resource]) -> float:
        reflector = self._reflectors.find(kind)
        return reflector.silent_seconds if reflector else 0.0

    def _record_event(self, resource: Resource) -> None:
        if isinstance(resource, Job) and (event := event_of(resource)):
            self._events.record(event)

    async def _find(self, kind: type[R], name: str) -> R | None:
        try:
            return await self.get_live(kind, name)
        except NotFound:
            return None

    async def _list(self, kind: type[R], selector: Mapping[str, str], version: str = "") -> Sequence[R]:
        """List resources. version: resource version of the list; empty for the latest."""
        resources = resource_type(kind)
        pages = self._client.pages(resources.path(self._namespace), {**resources.query, **selector}, version)
        read = [self._read(resources, item) async for page in pages for item in page.items]
        return [each for each in read if each is not None]

    async def _check_claim(self, written: Resource) -> None:
        """Raise Taken if another resource has the claim of `written` already, and RetryLater if that is unknown."""
        if holder := await self._earlier_holder(written):
            raise taken_by(holder)

    async def _earlier_holder(self, written: R) -> R | None:
        """Return the resource that already had the claim of `written` when that was written.

        The API server orders all writes. If several resources with the same claim are written at once, only the first
        finds no earlier holder.
        """
        existing = await self._list(type(written), {}, written.metadata.resource_version)
        return next((each for each in existing if each.claim == written.claim and each.name != written.name), None)

    async def _create(self, resource: R) -> R:
        try:
            return await self._add(resource)
        except Conflict:
            if not await self._delete_leftover(resource):
                raise
        return await self._add(resource)

    async def _create_part(self, part: Resource) -> Resource:
        """Create a part, unless another replica that handles the same request has created it."""
        try:
            return await self._create(part)
        except Conflict:
            found = await self._find(type(part), part.name)
            if found is None or found.metadata.owner != part.metadata.owner:
                raise
            return found

    async def _delete_leftover(self, new: Resource) -> bool:
        """Delete the part of a deleted owner that still has the name of `new`. Return False if the name is taken.

        Raises RetryLater, also if this client may create such parts but not delete them.
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
            pass  # the cluster has deleted it
        except RetryLater as error:
            raise RetryLater(f"the {new.kind()} {new.name!r} of a deleted {owner.kind} still exists") from error
        return True

    async def _add(self, resource: R) -> R:
        resources = resource_type(type(resource))
        created_at = resource.metadata.created_at or self._clock.now()
        new = replace(resource, metadata=replace(resource.metadata, created_at=created_at))
        try:
            return await self._write(resources, "POST", resources.path(self._namespace), resources.new_object(new))
        except RetryLater:
            # The write may have been carried out. The creation time in microseconds identifies this write.
            found = await self._find(type(new), new.name)
            if found is None or found.metadata.created_at != new.metadata.created_at:
                raise
            return found

    async def _roll_back(self, resources: Sequence[Resource]) -> None:
        """Delete resources that were just created, the owner first. A failure is only logged."""
        for resource in resources:
            try:
                await self._delete(type(resource), resource.name, {"uid": resource.metadata.uid})
            except LabratsError as error:
                log.warning("resource not rolled back", kind=resource.kind(), name=resource.name, reason=str(error))

    async def _update(self, resource: R, former: R | None = None) -> R:
        """Write a resource. former: the stored version, if it is known; an unchanged status is not written."""
        resources = resource_type(type(resource))
        if not resources.has_status or (former and _status(former) == _status(resource)):
            return await self._patch(resource)
        status = resources.status_object(resource, self._clock.now())
        path = resources.path(self._namespace, resource.name, "status")
        stored = await self._write(resources, "PUT", path, status)
        self._record_event(stored)
        return await self._patch(_with_version_of(resource, stored)) if resources.differ(stored, resource) else stored

    async def _restore(self, former: Resource) -> None:
        """Write the former version again. A failure is only logged: the leader reports the duplicate claim."""
        try:
            await self._patch(former)
        except LabratsError as error:
            log.warning("resource not restored", kind=former.kind(), name=former.name, reason=str(error))

    async def _patch(self, resource: R) -> R:
        """Write everything but the status."""
        resources = resource_type(type(resource))
        path = resources.path(self._namespace, resource.name)
        return await self._write(resources, "PATCH", path, resources.patch(resource), JSON_PATCH)

    async def _write(self, resources: ResourceType[R], method: str, path: str, body: Any, content: str = JSON) -> R:
        # Otherwise a field that older custom resources lack would be dropped, such as one that restricts a job.
        query = {"fieldValidation": "Strict"} if resources.api_version == LABRATS_API else {}
        answer = await self._client.request(method, path, encode(body), query=query, content_type=content)
        written = resources.read(answer)
        if reflector := self._reflectors.find(type(written)):
            reflector.expect_version(written.name, written.metadata.resource_version)
        return written

    async def _delete(self, kind: type[Resource], name: str, conditions: dict[str, str]) -> None:
        options = {"preconditions": conditions, "propagationPolicy": "Background"}
        answer = await self._client.request("DELETE", resource_type(kind).path(self._namespace, name), encode(options))
        # Without a uid, the answer is the object itself, whose deletion waits for a finalizer.
        uid = msgspec.json.decode(answer, type=Status).details.uid
        if uid and (reflector := self._reflectors.find(kind)):
            reflector.expect_removal(name, uid)

    def _read(self, resources: ResourceType[R], body: bytes | msgspec.Raw) -> R | None:
        try:
            return resources.read(body)
        except ValueError as error:
            log.error("invalid object ignored", kind=resources.record.kind(), reason=str(error))
            return None


def _with_version_of(resource: R, written: Resource) -> R:
    """Return `resource` with the version of `written`, so that it can replace that."""
    version = written.metadata.resource_version
    return replace(resource, metadata=replace(resource.metadata, resource_version=version))


def _status(resource: Resource) -> Any:
    return getattr(resource, "status")  # noqa: B009, not every kind has one
