"""The Store of a single machine: an SQLite file, one writer, and a change feed within the process."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import apsw

from labrats.backends.embedded.database import (
    decode_body,
    identity_of,
    open_for_reading,
    open_for_writing,
    schema_created_with,
)
from labrats.backends.embedded.feed import Feed
from labrats.backends.embedded.writer import RETAINED_DELETIONS, GroupCommit
from labrats.model.errors import NotFound, RetryLater, Unreadable
from labrats.model.job import Job
from labrats.model.record import Resource
from labrats.ports import Change, Changed, Clock, DeletedUnseen, Reset, Synced, SystemClock

R = TypeVar("R", bound=Resource)

_PAGE: Final = 25
"""The number of resources that are read before the event loop runs again, in half a millisecond.

At the start, several readers take turns, and a request waits for one page of each.
"""

_BY_NAME: Final = "SELECT name, body FROM resources WHERE kind = ? AND name > ? ORDER BY name LIMIT ?"
_UNSETTLED: Final = (
    "SELECT name, body FROM unsettled CROSS JOIN resources USING (name)"
    " WHERE kind = ? AND name > ? ORDER BY name LIMIT ?"
)
_SINCE: Final = "SELECT rv, name, body FROM resources WHERE kind = ? AND rv > ? ORDER BY rv LIMIT ?"
_SINCE_JOBS: Final = (
    f"SELECT rv, name, body FROM resources INDEXED BY jobs_by_rv WHERE kind = '{Job.kind()}' AND +kind = ?"  # noqa: S608
    " AND rv > ? ORDER BY rv LIMIT ?"
)
"""The index needs the kind as a literal. By itself, SQLite would sort all jobs instead: 1.5 seconds for a million."""


class EmbeddedStore:
    """Store (labrats/ports.py) in one SQLite file.

    Other processes may read and write the file. `get`, `get_many` and `list` see their writes; `watch` reports only
    writes through this object.
    """

    def __init__(self, reader: apsw.Connection, commits: GroupCommit, feed: Feed) -> None:
        self._reader = reader
        self._commits = commits
        self._feed = feed
        self._identity = identity_of(reader)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, clock: Clock | None = None) -> "AsyncIterator[EmbeddedStore]":
        """Open the store at `path`, and create it if missing. On exit, pending writes finish before it closes.

        Raises LabratsError if this SQLite or this version of Labrats must not write to the file, and RetryLater if the
        file cannot be opened.
        """
        with closing(open_for_writing(path)) as writer, closing(open_for_reading(path)) as reader:
            feed = Feed()
            commits = GroupCommit(writer, clock or SystemClock(), feed.publish)
            try:
                yield cls(reader, commits, feed)
            finally:
                await commits.close()

    @property
    def schema_created_with(self) -> int:
        """The schema version with which the file was created."""
        return schema_created_with(self._reader)

    async def get(self, kind: type[R], name: str) -> R:
        if (body := self._body(kind, name)) is None:
            raise NotFound(f"there is no {kind.kind()} {name!r}")
        if (found := decode_body(kind, name, body)) is None:
            raise Unreadable(f"{kind.kind()} {name!r} is invalid")
        return found

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        found: list[R] = []
        for start in range(0, len(names), _PAGE):
            found += filter(None, (self._read(kind, name) for name in names[start : start + _PAGE]))
            await asyncio.sleep(0)
        return found

    async def list(self, kind: type[R], labels: Mapping[str, str] | None = None) -> list[R]:
        wanted = (labels or {}).items()
        return [
            resource
            async for page in self._read_pages(kind)
            for resource in page.resources
            if wanted <= resource.metadata.labels.items()
        ]

    async def create(self, resource: R, parts: Sequence[Resource] = ()) -> R:
        return await self._commits.run(lambda transaction: transaction.create(resource, parts))

    async def update(self, resource: R) -> R:
        return await self._commits.run(lambda transaction: transaction.update(resource))

    async def delete(self, kind: type[R], name: str, resource_version: str | None = None) -> None:
        await self._commits.run(lambda transaction: transaction.delete(kind.kind(), name, resource_version))

    @property
    def identity(self) -> str:
        return self._identity

    async def watch(self, kind: type[R], *, after: int = 0, unsettled_only: bool = False) -> AsyncIterator[Change[R]]:
        subscription = self._feed.subscribe(kind)  # before the first read, so that no change is missed
        try:
            if after:
                subscription.mark_read("", version=0)
                async for change in self._changes_since(kind, after):
                    yield change
            else:
                version = self._counter()
                async for page in self._read_pages(kind, unsettled_only=unsettled_only):
                    subscription.mark_read(page.last_name, page.version)
                    for resource in page.resources:
                        yield Changed(resource)
                if kind is Job and not unsettled_only:
                    # The index stores the latest version that it has seen, so it must see all changes before that one.
                    async for change in self._changes_since(kind, version):
                        yield change
            yield Synced()
            while True:
                for change in await subscription.next_changes():
                    yield change
        finally:
            self._feed.unsubscribe(subscription)

    def silent_seconds(self, kind: type[Resource]) -> float:
        return 0.0  # the feed is in this process

    async def _changes_since(self, kind: type[R], after: int) -> "AsyncIterator[Change[R]]":
        """Yield the changes after a version. Only for jobs are deletions stored; other kinds are read completely."""
        version = self._counter()
        if kind is not Job or not version - RETAINED_DELETIONS <= after <= version:
            yield Reset()
            after = 0
        deleted = self._execute("SELECT name FROM deletions WHERE rv > ? ORDER BY rv", (after,))
        for (name,) in deleted if kind is Job else ():
            yield DeletedUnseen(name)
        query = _SINCE_JOBS if kind is Job else _SINCE
        while rows := self._execute(query, (kind.kind(), after, _PAGE)):
            for _, name, body in rows:
                if (resource := decode_body(kind, name, body)) is not None:
                    yield Changed(resource)
            after = rows[-1][0]
            await asyncio.sleep(0)

    def _counter(self) -> int:
        return int(self._execute("SELECT rv FROM counter", ())[0][0])

    def _execute(self, query: str, values: Sequence[Any]) -> Sequence[Any]:
        try:
            return self._reader.execute(query, values).fetchall()
        except apsw.Error as error:
            raise RetryLater("the database cannot be read") from error

    async def _read_pages(self, kind: type[R], *, unsettled_only: bool = False) -> AsyncIterator["_Page[R]"]:
        """Yield resources of a kind, by name, in pages. Each page is read in a transaction of its own."""
        query = _UNSETTLED if unsettled_only and kind is Job else _BY_NAME
        page = self._read_page(kind, query, after="")
        yield page
        while page.is_full:
            await asyncio.sleep(0)
            page = self._read_page(kind, query, after=page.last_name)
            yield page

    def _read_page(self, kind: type[R], query: str, after: str) -> "_Page[R]":
        try:
            with self._reader:  # one transaction, so that the version matches the rows
                version: int = self._reader.execute("SELECT rv FROM counter").get
                rows: list[Any] = self._reader.execute(query, (kind.kind(), after, _PAGE)).fetchall()
        except apsw.Error as error:
            raise RetryLater("the database cannot be read") from error
        decoded = (decode_body(kind, name, body) for name, body in rows)
        return _Page(
            version=version,
            resources=[resource for resource in decoded if resource is not None],
            last_name=rows[-1][0] if rows else after,
            is_full=len(rows) == _PAGE,
        )

    def _read(self, kind: type[R], name: str) -> R | None:
        body = self._body(kind, name)
        return None if body is None else decode_body(kind, name, body)

    def _body(self, kind: type[Resource], name: str) -> bytes | None:
        """Read one resource in the event loop: it takes microseconds, far less than switching to a thread."""
        try:
            body: bytes | None = self._reader.execute(
                "SELECT body FROM resources WHERE kind = ? AND name = ?", (kind.kind(), name)
            ).get
        except apsw.Error as error:
            raise RetryLater("the database cannot be read") from error
        return body


@dataclass(frozen=True)
class _Page(Generic[R]):
    """Consecutive resources as of `version`. is_full: another page may follow."""

    version: int
    resources: Sequence[R]
    last_name: str
    is_full: bool
