"""A local copy of one collection of objects: listed, then watched, with a stream of changes for subscribers."""

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, Self, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from labrats.backends.kubernetes.client import ApiClient, ApiServerRefusal, Expired, Status, decode_bounded, error_of
from labrats.backends.kubernetes.packing import Packer
from labrats.model.errors import RetryLater
from labrats.model.record import Record

log = structlog.get_logger()


class ObjectMetadata(Protocol):
    """The metadata that identifies an object and its version."""

    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def resource_version(self) -> str: ...


class ApiObject(Protocol):
    """An object of the API server."""

    @property
    def metadata(self) -> ObjectMetadata: ...


T = TypeVar("T", bound=ApiObject)


@dataclass(frozen=True)
class ObjectCollection(Generic[T]):
    """The objects at `path` that match the selectors in `query`.

    read:       decodes an object. Raises ValueError for an invalid one, which is hidden from subscribers.
    keeps_last: show the last valid version of an object that has become invalid, instead of hiding it.
    is_settled: returns whether an object is of no interest to subscribers that want only unsettled ones.
    """

    type: type[T]
    path: str
    read: Callable[[msgspec.Raw], T]
    query: Mapping[str, str] = field(default_factory=dict)
    keeps_last: bool = False
    is_settled: Callable[[T], bool] = lambda _: False


@dataclass(frozen=True)
class ObjectChanged(Generic[T]):
    """The current version of an object that was created or changed."""

    object: T


@dataclass(frozen=True)
class ObjectDeleted(Generic[T]):
    """The last version of an object that was deleted."""

    object: T


@dataclass(frozen=True)
class ListComplete:
    """Marker after the objects that existed at the beginning."""


@dataclass(frozen=True)
class RejectedObject:
    """An invalid object, and the reason for which it cannot be decoded."""

    name: str
    uid: str
    generation: int | None
    reason: str


RejectionListener = Callable[[RejectedObject], None]


@dataclass(frozen=True)
class WatchTimeouts:
    """Timeouts of a reflector.

    silence_seconds: time without data after which a watch is considered dead. The API server sends a bookmark a minute.
    watch_seconds:   duration that is requested for a watch.
    longest_pause:   maximum number of seconds between two tries.
    """

    silence_seconds: float = 68.0
    watch_seconds: int = 300
    longest_pause: float = 5.0


FREQUENT: Final = WatchTimeouts(silence_seconds=13.0, watch_seconds=10)
"""Timeouts of a watch whose silence must be noticed soon. The regular end of a watch is a sign of life, too."""

_FIRST_PAUSE: Final = 0.1
_DOUBLINGS: Final = 10
_VERSION_BYTES: Final = 8
_VERSION: Final = slice(2, 2 + _VERSION_BYTES)
_YIELD_INTERVAL: Final = 100
"""Number of objects after which a loop lets other tasks run."""


class _Entry(bytes):
    """An object: whether it is settled, its version, its uid, and its compressed JSON without these two.

    One value takes a fraction of a record's memory, and is no work for the garbage collector. Version and uid differ in
    each object, so they would hardly be compressed.
    """

    __slots__ = ()

    @classmethod
    def of(cls, uid: str, version: int, packed: bytes, *, is_settled: bool) -> Self:
        encoded = uid.encode()
        return cls(bytes([is_settled, len(encoded)]) + version.to_bytes(_VERSION_BYTES) + encoded + packed)

    @property
    def is_settled(self) -> bool:
        return self[0] == 1

    @property
    def version(self) -> int:
        return int.from_bytes(self[_VERSION])

    @property
    def uid(self) -> str:
        return self[_VERSION.stop : self._uid_end].decode()

    @property
    def packed(self) -> bytes:
        return self[self._uid_end :]

    @property
    def _uid_end(self) -> int:
        return _VERSION.stop + self[1]

    def is_of(self, identity: "_RawMetadata") -> bool:
        """Return whether the entry has this object, in this version."""
        return self.version == int(identity.resource_version) and self.uid == identity.uid


class Reflector(Generic[T]):
    """A copy of one collection, which follows the API server and is shared by all subscribers.

    The copy may lag behind the API server. `caught_up` waits until it includes the writes of this process.
    """

    def __init__(
        self, client: ApiClient, collection: ObjectCollection[T], timeouts: WatchTimeouts | None = None
    ) -> None:
        self._client = client
        self._collection = collection
        self._timeouts = timeouts or WatchTimeouts()
        self._decoder, self._packer = msgspec.json.Decoder(collection.type), Packer()
        self._entries: dict[str, _Entry] = {}
        self._rejected: dict[str, RejectedObject] = {}
        self._listeners: set[RejectionListener] = set()
        self._version = 0
        self._listed_at = self._requested_at = -math.inf
        self._watching: asyncio.Timeout | None = None
        self._failures = 0
        self._subscribers: set[_Subscriber[T]] = set()
        self._progress = asyncio.Event()
        self._last_contact_at = asyncio.get_running_loop().time()
        self._expected_versions: dict[str, int] = {}
        self._expected_removals: dict[str, str] = {}

    async def run(self) -> None:
        """List and watch the collection until cancelled."""
        while True:
            delay = 0.0
            try:
                while self._must_list():
                    await self._list()
                await self._watch()
                if self._must_list():
                    continue
            except Expired:
                self._listed_at = -math.inf
                self._failures += 1
            except RetryLater as error:
                # A refusal is tried again soon, too: an API server that has just started refuses what it allows later.
                delay = 0.0 if isinstance(error, ApiServerRefusal) else error.delay_seconds
                self._failures += 1
                log.warning("watch interrupted", path=self._collection.path, reason=str(error))
            await asyncio.sleep(max(delay, self._pause()))

    async def changes(
        self, *, unsettled_only: bool = False, as_they_arrive: bool = False
    ) -> AsyncGenerator[ObjectChanged[T] | ObjectDeleted[T] | ListComplete]:
        """Yield all existing objects, then ListComplete, then every change in order.

        unsettled_only: before ListComplete come only objects that are not settled.
        as_they_arrive: yield objects, and their changes, before the end of the first list.

        The existing objects include the writes of this process before the call. Several changes of one object may
        arrive as one. A slow subscriber delays no other.
        """
        if not as_they_arrive:
            await self.caught_up()
        subscriber = _Subscriber[T](self._entries, unsettled_only=unsettled_only)
        self._subscribers.add(subscriber)
        caught_up = asyncio.create_task(self.caught_up())
        caught_up.add_done_callback(lambda _: subscriber.wake())
        try:
            while not subscriber.has_listed:
                await subscriber.arrival()
                subscriber.has_listed = caught_up.done()
                for number, entry in enumerate(subscriber.existing(), start=1):
                    yield ObjectChanged(self._decode(entry))
                    if number % _YIELD_INTERVAL == 0:
                        await asyncio.sleep(0)
                for change in subscriber.changes() if as_they_arrive else ():
                    yield change
            yield ListComplete()
            subscriber.wake()  # for changes that have arrived already
            while True:
                await subscriber.arrival()
                for change in subscriber.changes():
                    yield change
        finally:
            caught_up.cancel()
            self._subscribers.discard(subscriber)

    def get(self, name: str) -> T | None:
        """Return an object by name; None if the copy has none."""
        entry = self._entries.get(name)
        return self._decode(entry) if entry else None

    def is_fresh_since(self, moment: float) -> bool:
        """Return whether the copy includes all writes before `moment`, a time of time.monotonic()."""
        return self._listed_at > moment

    async def fresh_since(self, moment: float) -> None:
        """Wait until the copy includes all writes before `moment`. Lists again, since the lag of a watch is unknown."""
        self._requested_at = max(self._requested_at, moment)
        if self._must_list() and self._watching:
            self._watching.reschedule(0)
            self._watching = None
        while not self.is_fresh_since(moment):
            await self._progress.wait()

    def add_rejection_listener(self, listener: RejectionListener) -> None:
        """Call `listener` with every invalid object that exists now or appears later."""
        for each in self._rejected.values():
            listener(each)
        self._listeners.add(listener)

    def remove_rejection_listener(self, listener: RejectionListener) -> None:
        """Stop calling `listener`."""
        self._listeners.discard(listener)

    def expect_version(self, name: str, resource_version: str) -> None:
        """Note that this process has written this version of an object."""
        self._expected_versions.pop(name, None)  # reinserted at the end, which has the newest
        self._expected_versions[name] = int(resource_version)
        self._forget_seen_versions()

    def expect_removal(self, name: str, uid: str) -> None:
        """Note that this process has deleted an object."""
        is_seen = self._version > 0 and not self._has(name, uid) and name not in self._expected_versions
        if not is_seen:
            self._expected_removals[name] = uid

    def packed_sizes(self) -> dict[str, int]:
        """Return the bytes that the copy of each object takes, by name. They are in proportion to its real size."""
        return {name: len(entry) for name, entry in self._entries.items()}

    @property
    def silent_seconds(self) -> float:
        """Seconds since the last data of the API server, or the regular end of a watch."""
        return asyncio.get_running_loop().time() - self._last_contact_at

    @property
    def is_caught_up(self) -> bool:
        """True while the copy includes all objects of the first list and all writes of this process."""
        self._forget_seen_versions()
        return self._has_seen(max(self._expected_versions.values(), default=0), self._expected_removals)

    async def caught_up(self) -> None:
        """Wait until the copy includes the writes of this process so far. Later writes do not delay the caller."""
        version, removals = max(self._expected_versions.values(), default=0), dict(self._expected_removals)
        while not self._has_seen(version, removals):
            await self._progress.wait()

    async def caught_up_on(self, name: str) -> None:
        """Wait until the copy includes the writes of this process to one object."""
        version = self._expected_versions.get(name, 0)
        removals = {name: self._expected_removals[name]} if name in self._expected_removals else {}
        while not self._has_seen(version, removals):
            await self._progress.wait()

    def _has_seen(self, version: int, removals: Mapping[str, str]) -> bool:
        is_new_enough = self._version > 0 and self._version >= version
        return is_new_enough and not any(self._has(name, uid) for name, uid in removals.items())

    def _forget_seen_versions(self) -> None:
        """Drop expected versions that the copy has reached. They are in about the same order."""
        while (
            self._expected_versions
            and self._expected_versions[oldest := next(iter(self._expected_versions))] <= self._version
        ):
            del self._expected_versions[oldest]

    def _must_list(self) -> bool:
        return self._listed_at <= self._requested_at

    async def _list(self) -> None:
        """List the collection, and pass the differences on to subscribers."""
        began_at = time.monotonic()
        found: dict[str, _Entry] = {}
        deleted = set(self._rejected)
        async for page in self._client.pages(self._collection.path, self._collection.query):
            for number, item in enumerate(page.items):
                if number % _YIELD_INTERVAL == 0:
                    await asyncio.sleep(0)
                identity = _RAW_OBJECTS.decode(item).metadata
                deleted.discard(identity.name)
                known = self._entries.get(identity.name)
                if known and known.is_of(identity):
                    found[identity.name] = known
                elif (each := self._read(identity, item)) is not None:
                    entry = found[identity.name] = self._entry(each)
                    if self._version == 0:  # the first list: all objects are new
                        self._store(identity.name, entry, each)
                elif known and self._keeps_last(known, identity):
                    found[identity.name] = known
        for name in deleted:
            del self._rejected[name]
        for name, known in list(self._entries.items()):
            if name not in found or found[name].uid != known.uid:
                self._remove(name, self._decode(known))
        for name, entry in sorted(found.items(), key=lambda item: item[1].version):
            if entry is not self._entries.get(name):
                self._store(name, entry)
        self._listed_at = began_at
        self._advance(page.metadata.resource_version)

    async def _watch(self) -> None:
        """Apply changes until the API server ends the watch after the requested time, or a new list is requested."""
        query = {
            **self._collection.query,
            "watch": "true",
            "resourceVersion": str(self._version),
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(self._timeouts.watch_seconds),
        }
        silence = self._timeouts.silence_seconds
        lines = self._client.lines(self._collection.path, query, silence_seconds=silence)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as self._watching, aclosing(lines):
                    async for line in lines:
                        self._apply_event(line)
                        self._failures = 0
                    # The API server has sent all changes before it ends a watch.
                    self._last_contact_at = asyncio.get_running_loop().time()
        finally:
            self._watching = None

    def _apply_event(self, line: bytes) -> None:
        """Apply one event of a watch. Raises Expired or RetryLater if the event is an error."""
        try:
            event = decode_bounded(_EVENTS, line)
            if event.type == "ERROR":
                raise error_of(_STATUSES.decode(event.object).code, bytes(event.object))
            identity = _RAW_OBJECTS.decode(event.object).metadata
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RetryLater("the API server sent an invalid watch event", delay_seconds=0) from error
        if event.type in ("ADDED", "MODIFIED"):
            self._apply_object(identity, event.object)
        elif event.type == "DELETED" and (known := self._entries.get(identity.name)):
            last = self._read(identity, event.object)
            self._remove(identity.name, self._decode(known) if last is None else last)
        if event.type == "DELETED":
            self._rejected.pop(identity.name, None)
        self._advance(identity.resource_version)

    def _apply_object(self, identity: "_RawMetadata", body: msgspec.Raw) -> None:
        each = self._read(identity, body)
        known = self._entries.get(identity.name)
        if each is not None:
            self._store(identity.name, self._entry(each), each)
        elif known and not self._keeps_last(known, identity):
            self._remove(identity.name, self._decode(known))

    def _read(self, identity: "_RawMetadata", body: msgspec.Raw) -> T | None:
        try:
            each = self._collection.read(body)
        except ValueError as error:
            log.error("invalid object ignored", path=self._collection.path, name=identity.name, reason=str(error))
            rejected = RejectedObject(identity.name, identity.uid, identity.generation, str(error))
            self._rejected[identity.name] = rejected
            for listener in self._listeners:
                listener(rejected)
            return None
        self._rejected.pop(identity.name, None)
        return each

    def _keeps_last(self, known: _Entry, identity: "_RawMetadata") -> bool:
        """Return whether an invalid object is the known one, whose last valid version stays visible."""
        return self._collection.keeps_last and known.uid == identity.uid

    def _store(self, name: str, entry: _Entry, each: T | None = None) -> None:
        """Store an entry and notify subscribers. each: the decoded object, if it is available."""
        is_new = name not in self._entries
        self._entries[name] = entry
        if self._subscribers:
            now = self._decode(entry) if each is None else each
            for subscriber in self._subscribers:
                subscriber.store(name, entry, now, is_new=is_new)

    def _remove(self, name: str, last: T) -> None:
        entry = self._entries.pop(name)
        if self._expected_removals.get(name) == entry.uid:
            del self._expected_removals[name]
        for subscriber in self._subscribers:
            subscriber.remove(name, entry.uid, last)

    def _advance(self, version: str) -> None:
        self._version = int(version)
        self._last_contact_at = asyncio.get_running_loop().time()
        self._progress.set()
        self._progress.clear()

    def _has(self, name: str, uid: str) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.uid == uid

    def _entry(self, each: T) -> _Entry:
        metadata = each.metadata
        packed = self._packer.pack(msgspec.json.encode(_with(each, uid="", resource_version="")))
        is_settled = self._collection.is_settled(each)
        return _Entry.of(metadata.uid, int(metadata.resource_version), packed, is_settled=is_settled)

    def _decode(self, entry: _Entry) -> T:
        decoded = self._decoder.decode(self._packer.unpack(entry.packed))
        return _with(decoded, uid=entry.uid, resource_version=str(entry.version))

    def _pause(self) -> float:
        """Return the pause before the next try: longer after each failure, with jitter."""
        doublings = min(self._failures, _DOUBLINGS)
        longest = min(_FIRST_PAUSE * 2.0**doublings, self._timeouts.longest_pause)
        return random.uniform(0.5, 1) * longest  # noqa: S311, not a secret


class _Subscriber(Generic[T]):
    """The pending objects and changes of one subscriber.

    has_listed: whether new objects are changes, and no longer parts of a list that is still arriving.

    Changes are stored by uid. So a subscriber that does not read costs at most one change per object, and the deletion
    of an object is not merged with the creation of another of the same name.
    """

    def __init__(self, existing: Mapping[str, _Entry], *, unsettled_only: bool) -> None:
        self.has_listed = False
        self._existing = dict(existing)
        self._unsettled_only = unsettled_only
        self._changes: dict[str, ObjectChanged[T] | ObjectDeleted[T]] = {}
        self._new: set[str] = set()
        self._arrived = asyncio.Event()

    async def arrival(self) -> None:
        """Wait until something has arrived since the last call."""
        await self._arrived.wait()
        self._arrived.clear()

    def wake(self) -> None:
        self._arrived.set()

    def existing(self) -> Iterator[_Entry]:
        """Iterate over the objects that existed at the beginning or were listed since, each in its current version."""
        while self._existing:
            entry = self._existing.popitem()[1]
            if not (self._unsettled_only and entry.is_settled):
                yield entry

    def changes(self) -> list[ObjectChanged[T] | ObjectDeleted[T]]:
        """Return the changes since the last call."""
        changes = list(self._changes.values())
        self._changes.clear()
        self._new.clear()
        return changes

    def store(self, name: str, entry: _Entry, each: T, *, is_new: bool) -> None:
        if name in self._existing or (is_new and not self.has_listed and not self._changes):
            self._existing[name] = entry
            self.wake()
            return
        if is_new:
            self._new.add(entry.uid)
        self._add(entry.uid, ObjectChanged(each))

    def remove(self, name: str, uid: str, last: T) -> None:
        if self._existing.pop(name, None):
            return
        if uid in self._new:  # created and deleted before the subscriber read it
            self._new.discard(uid)
            del self._changes[uid]
            return
        self._add(uid, ObjectDeleted(last))

    def _add(self, uid: str, change: ObjectChanged[T] | ObjectDeleted[T]) -> None:
        self._changes.pop(uid, None)  # reinserted at the end
        self._changes[uid] = change
        self.wake()


class _RawMetadata(Record):
    resource_version: str
    name: str = ""  # a bookmark has none
    uid: str = ""
    generation: int | None = None  # a Secret has none


class _RawObject(Record):
    metadata: _RawMetadata


class _Event(Record):
    type: str
    object: msgspec.Raw


_RAW_OBJECTS: Final = msgspec.json.Decoder(_RawObject)
_EVENTS: Final = msgspec.json.Decoder(_Event)
_STATUSES: Final = msgspec.json.Decoder(Status)


def _with(each: T, *, uid: str, resource_version: str) -> T:
    """Return the object with another uid and version."""
    record: Any = each
    changed: T = replace(record, metadata=replace(record.metadata, uid=uid, resource_version=resource_version))
    return changed
