"""The objects of one collection as they are now: listed, then watched, and told to whoever wants to know."""

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import structlog

from labrats.backends.kubernetes.client import ApiClient, Expired, Status, decode_deep, error_of
from labrats.model.errors import RetryLater
from labrats.model.record import Record

log = structlog.get_logger()


class ObjectMetadata(Protocol):
    """What tells one object from another, and each of its states from the others."""

    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def resource_version(self) -> str: ...


class ApiObject(Protocol):
    """An object that says which one it is."""

    @property
    def metadata(self) -> ObjectMetadata: ...


T = TypeVar("T", bound=ApiObject)


@dataclass(frozen=True)
class ObjectCollection(Generic[T]):
    """Objects to follow: those at `path` that `query`, of selectors, lets through.

    read: makes an object of its JSON. Raises ValueError when it cannot. To readers, that one then does not exist; or,
          where `keeps_last` is set, is as it last could be read.
    """

    type: type[T]
    path: str
    read: Callable[[msgspec.Raw], T]
    query: Mapping[str, str] = field(default_factory=dict)
    keeps_last: bool = False


@dataclass(frozen=True)
class ObjectChanged(Generic[T]):
    """An object as it is now."""

    object: T


@dataclass(frozen=True)
class ObjectDeleted(Generic[T]):
    """An object that is gone, as it last was."""

    object: T


@dataclass(frozen=True)
class ListComplete:
    """All that existed at first has been told."""


@dataclass(frozen=True)
class RejectedObject:
    """An object that cannot be read, in that generation, and why."""

    name: str
    uid: str
    generation: int | None
    reason: str


RejectionListener = Callable[[RejectedObject], None]


@dataclass(frozen=True)
class WatchTimeouts:
    """How long a reflector waits.

    silence_seconds: a watch that says nothing for longer is presumed dead: the API server sends a bookmark a minute.
    watch_seconds:   how long one watch is asked to last.
    longest_pause:   seconds between two tries, however many have failed.
    """

    silence_seconds: float = 68.0
    watch_seconds: int = 300
    longest_pause: float = 5.0


_FIRST_PAUSE: Final = 0.1
_DOUBLINGS: Final = 10
_TURN: Final = 100
"""How many objects are taken in, or a reader is told of, before other tasks get their turn."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One object, kept as JSON: a third of the memory, and nothing for the garbage collector to walk through."""

    uid: str
    version: int
    body: bytes

    def is_of(self, identity: "_RawMetadata") -> bool:
        """Whether it is that object, in that version."""
        return self.version == int(identity.resource_version) and self.uid == identity.uid


class Reflector(Generic[T]):
    """Follows one collection on behalf of all who read it.

    It may lag behind the API server; `caught_up` says when it has seen at least what this process wrote itself.
    """

    def __init__(
        self, client: ApiClient, collection: ObjectCollection[T], timeouts: WatchTimeouts | None = None
    ) -> None:
        self._client = client
        self._collection = collection
        self._timeouts = timeouts or WatchTimeouts()
        self._decoder = msgspec.json.Decoder(collection.type)
        self._entries: dict[str, _Entry] = {}
        self._rejected: dict[str, RejectedObject] = {}
        self._hearers: set[RejectionListener] = set()
        self._version = 0
        self._listed_at = self._wanted_at = -math.inf
        self._watching: asyncio.Timeout | None = None
        self._failures = 0
        self._readers: set[_Reader[T]] = set()
        self._progress = asyncio.Event()
        self._heard_at = asyncio.get_running_loop().time()
        self._own_versions: dict[str, int] = {}
        self._own_removals: dict[str, str] = {}

    async def run(self) -> None:
        """Keep up with the API server, until cancelled."""
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
                delay = error.delay_seconds
                self._failures += 1
                log.warning("watch interrupted", path=self._collection.path, reason=str(error))
            await asyncio.sleep(max(delay, self._pause()))

    async def changes(self) -> AsyncGenerator[ObjectChanged[T] | ObjectDeleted[T] | ListComplete]:
        """First all that exists, what this process has written included; then Listed; then every change, in order.

        Several changes of one object may be told as one. A slow reader delays nobody.
        """
        await self.caught_up()
        reader = _Reader[T](self._entries)
        self._readers.add(reader)
        try:
            for number, entry in enumerate(reader.existing(), start=1):
                yield ObjectChanged(self._decode(entry))
                if number % _TURN == 0:
                    await asyncio.sleep(0)
            yield ListComplete()
            while True:
                for change in await reader.changes():
                    yield change
        finally:
            self._readers.discard(reader)

    def get(self, name: str) -> T | None:
        """The object of that name, as far as is known."""
        entry = self._entries.get(name)
        return self._decode(entry) if entry else None

    def objects(self) -> Iterator[T]:
        """All objects, as far as is known."""
        return map(self._decode, list(self._entries.values()))

    def is_fresh_since(self, moment: float) -> bool:
        """Whether it knows all that was written before `moment`, which is one of time.monotonic()."""
        return self._listed_at > moment

    async def fresh_since(self, moment: float) -> None:
        """Wait until it does. Where its list began earlier it lists afresh: how far a watch lags nobody can tell."""
        self._wanted_at = max(self._wanted_at, moment)
        if self._must_list() and self._watching:
            self._watching.reschedule(0)
            self._watching = None
        while not self.is_fresh_since(moment):
            await self._progress.wait()

    def hear_of_rejected(self, hear: RejectionListener) -> None:
        """Have `hear` called with each object that cannot be read: with those there are, and when another comes by."""
        for each in self._rejected.values():
            hear(each)
        self._hearers.add(hear)

    def stop_hearing(self, hear: RejectionListener) -> None:
        """Undo that."""
        self._hearers.discard(hear)

    def expect(self, name: str, resource_version: str) -> None:
        """This process has written an object, in this version."""
        self._own_versions.pop(name, None)  # so that it goes to the end, where the newest are
        self._own_versions[name] = int(resource_version)
        self._forget_seen_versions()

    def expect_removal(self, name: str, uid: str) -> None:
        """This process has removed an object."""
        is_seen = self._version > 0 and not self._has(name, uid) and name not in self._own_versions
        if not is_seen:
            self._own_removals[name] = uid

    @property
    def silent_seconds(self) -> float:
        """For how long the API server was not heard, not even by a bookmark: those come once a minute."""
        return asyncio.get_running_loop().time() - self._heard_at

    @property
    def is_caught_up(self) -> bool:
        """Whether it knows all that existed at the start, and all that this process has written since."""
        self._forget_seen_versions()
        return self._knows(max(self._own_versions.values(), default=0), self._own_removals)

    async def caught_up(self) -> None:
        """Wait until it knows what this process has written by now. What is written meanwhile delays nobody."""
        version, removals = max(self._own_versions.values(), default=0), dict(self._own_removals)
        while not self._knows(version, removals):
            await self._progress.wait()

    async def caught_up_on(self, name: str) -> None:
        """The same, where only what was written to the object of that name matters."""
        version = self._own_versions.get(name, 0)
        removals = {name: self._own_removals[name]} if name in self._own_removals else {}
        while not self._knows(version, removals):
            await self._progress.wait()

    def _knows(self, version: int, removals: Mapping[str, str]) -> bool:
        is_new_enough = self._version > 0 and self._version >= version
        return is_new_enough and not any(self._has(name, uid) for name, uid in removals.items())

    def _forget_seen_versions(self) -> None:
        """What this process has written matters until it is seen, which is in about the same order."""
        while self._own_versions and self._own_versions[oldest := next(iter(self._own_versions))] <= self._version:
            del self._own_versions[oldest]

    def _must_list(self) -> bool:
        return self._listed_at <= self._wanted_at

    async def _list(self) -> None:
        """Find out what there is now, and tell what that changes."""
        began_at = time.monotonic()
        found: dict[str, _Entry] = {}
        gone = set(self._rejected)
        async for page in self._client.pages(self._collection.path, self._collection.query):
            for number, item in enumerate(page.items):
                if number % _TURN == 0:
                    await asyncio.sleep(0)
                identity = _RAW_OBJECTS.decode(item).metadata
                gone.discard(identity.name)
                known = self._entries.get(identity.name)
                if known and known.is_of(identity):
                    found[identity.name] = known
                elif (each := self._read(identity, item)) is not None:
                    found[identity.name] = _entry(each)
                elif known and self._keeps(known, identity):
                    found[identity.name] = known
        for name in gone:
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
        """Take in changes until the API server ends the watch, as it is asked to after a while, or a list is wanted."""
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
                        self._take_in(line)
                        self._failures = 0
        finally:
            self._watching = None

    def _take_in(self, line: bytes) -> None:
        """One event of a watch. Raises Expired or RetryLater when it says that the watch has failed."""
        try:
            event = decode_deep(_EVENTS, line)
            if event.type == "ERROR":
                raise error_of(_STATUSES.decode(event.object).code, bytes(event.object))
            identity = _RAW_OBJECTS.decode(event.object).metadata
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RetryLater("the API server sent what is no event of a watch", delay_seconds=0) from error
        if event.type in ("ADDED", "MODIFIED"):
            self._take_in_object(identity, event.object)
        elif event.type == "DELETED" and (known := self._entries.get(identity.name)):
            last = self._read(identity, event.object)
            self._remove(identity.name, self._decode(known) if last is None else last)
        if event.type == "DELETED":
            self._rejected.pop(identity.name, None)
        self._advance(identity.resource_version)

    def _take_in_object(self, identity: "_RawMetadata", body: msgspec.Raw) -> None:
        each = self._read(identity, body)
        known = self._entries.get(identity.name)
        if each is not None:
            self._store(identity.name, _entry(each), each)
        elif known and not self._keeps(known, identity):
            self._remove(identity.name, self._decode(known))

    def _read(self, identity: "_RawMetadata", body: msgspec.Raw) -> T | None:
        try:
            each = self._collection.read(body)
        except ValueError as error:
            log.error("an object makes no sense", path=self._collection.path, name=identity.name, reason=str(error))
            rejected = RejectedObject(identity.name, identity.uid, identity.generation, str(error))
            self._rejected[identity.name] = rejected
            for hear in self._hearers:
                hear(rejected)
            return None
        self._rejected.pop(identity.name, None)
        return each

    def _keeps(self, known: _Entry, identity: "_RawMetadata") -> bool:
        """Whether an object that cannot be read is the known one, and stays as it was."""
        return self._collection.keeps_last and known.uid == identity.uid

    def _store(self, name: str, entry: _Entry, each: T | None = None) -> None:
        """each: the object, where that is at hand."""
        is_new = name not in self._entries
        self._entries[name] = entry
        if self._readers:
            now = self._decode(entry) if each is None else each
            for reader in self._readers:
                reader.store(name, entry, now, is_new=is_new)

    def _remove(self, name: str, last: T) -> None:
        entry = self._entries.pop(name)
        if self._own_removals.get(name) == entry.uid:
            del self._own_removals[name]
        for reader in self._readers:
            reader.remove(name, entry.uid, last)

    def _advance(self, version: str) -> None:
        self._version = int(version)
        self._heard_at = asyncio.get_running_loop().time()
        self._progress.set()
        self._progress.clear()

    def _has(self, name: str, uid: str) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.uid == uid

    def _decode(self, entry: _Entry) -> T:
        return self._decoder.decode(entry.body)

    def _pause(self) -> float:
        """Longer after each failure, and different for each of many reflectors that failed together."""
        doublings = min(self._failures, _DOUBLINGS)
        longest = min(_FIRST_PAUSE * 2.0**doublings, self._timeouts.longest_pause)
        return random.uniform(0.5, 1) * longest  # noqa: S311, not a secret


class _Reader(Generic[T]):
    """What one reader has not been told yet: what existed when it began, and after that the latest of each change.

    Changes are kept by uid, so that a reader that reads nothing costs one change an object, however often that is
    written, and so that the end of one object is not lost in the beginning of another of the same name.
    """

    def __init__(self, existing: Mapping[str, _Entry]) -> None:
        self._existing = dict(existing)
        self._changes: dict[str, ObjectChanged[T] | ObjectDeleted[T]] = {}
        self._new: set[str] = set()
        self._arrived = asyncio.Event()

    def existing(self) -> Iterator[_Entry]:
        """What existed at first, each as it is when its turn comes."""
        while self._existing:
            yield self._existing.popitem()[1]

    async def changes(self) -> list[ObjectChanged[T] | ObjectDeleted[T]]:
        """What has changed. Waits until something has."""
        while not self._changes:
            self._arrived.clear()
            await self._arrived.wait()
        changes = list(self._changes.values())
        self._changes.clear()
        self._new.clear()
        return changes

    def store(self, name: str, entry: _Entry, each: T, *, is_new: bool) -> None:
        if name in self._existing:
            self._existing[name] = entry
            return
        if is_new:
            self._new.add(entry.uid)
        self._add(entry.uid, ObjectChanged(each))

    def remove(self, name: str, uid: str, last: T) -> None:
        if self._existing.pop(name, None):
            return
        if uid in self._new:  # came and went before the reader was told of it
            self._new.discard(uid)
            del self._changes[uid]
            return
        self._add(uid, ObjectDeleted(last))

    def _add(self, uid: str, change: ObjectChanged[T] | ObjectDeleted[T]) -> None:
        self._changes.pop(uid, None)  # so that it goes to the end
        self._changes[uid] = change
        self._arrived.set()


def _entry(each: ApiObject) -> _Entry:
    return _Entry(each.metadata.uid, int(each.metadata.resource_version), msgspec.json.encode(each))


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
