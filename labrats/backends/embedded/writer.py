"""Writes to the database: operations on the tables, and the commits that operations share."""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, NamedTuple, TypeVar

import apsw
from msgspec.structs import replace

from labrats.backends.embedded.database import WRITER_TIMEOUT_MS, decode_body
from labrats.backends.embedded.feed import CommittedDeletion, CommittedWrite
from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict, LabratsError, NotFound, RetryLater
from labrats.model.job import Job
from labrats.model.record import OwnerReference, Resource, encode, taken_by
from labrats.ports import Clock

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

OPERATIONS_PER_COMMIT: Final = 256

_ERASE_TIMEOUT_MS: Final = 20
"""Time to wait for readers before the log is erased: far longer than the engine's own short queries take."""

RETAINED_DELETIONS: Final = 100_000
"""Resource versions for which the deletions of jobs are retained. An index that is further behind starts over."""


class Transaction:
    """A transaction on the tables. Used in the writer's thread only.

    changes: for the feed, once they are committed. discards_secret: True once a Secret was replaced or deleted.
    """

    def __init__(self, connection: apsw.Connection, clock: Clock) -> None:
        self.changes: list[CommittedWrite | CommittedDeletion] = []
        self._connection = connection
        self._clock = clock
        self._version: int = connection.execute("SELECT rv FROM counter").get
        self.discards_secret = False

    def attempt(self, operation: "Operation[Any]") -> Any:
        """Run `operation` and return its result; on an error, roll it back and return the error."""
        changes_before = len(self.changes)
        self._connection.execute("SAVEPOINT operation")
        try:
            outcome = operation(self)
        except (
            LabratsError,
            TypeError,
            ValueError,
            OverflowError,
        ) as error:  # the last three: it is not JSON
            self._connection.execute("ROLLBACK TO operation")
            del self.changes[changes_before:]
            outcome = error
        self._connection.execute("RELEASE operation")
        return outcome

    def finish(self) -> None:
        """Store the last version, so that no later transaction reuses one. Call it just before the commit."""
        if self.changes:
            self._connection.execute("UPDATE counter SET rv = ?", (self._version,))

    def create(self, resource: R, parts: Sequence[Resource]) -> R:
        self._check_claim(resource)
        created = self._insert(resource, resource.metadata.owner)
        for part in parts:
            self._insert(part, created.as_owner())
        return created

    def update(self, resource: R) -> R:
        former_claim = self._claim_of(resource)
        version = self._next_version()
        updated = replace(resource, metadata=replace(resource.metadata, resource_version=str(version)))
        self._connection.execute(
            "UPDATE resources SET rv = ?, body = ? WHERE kind = ? AND name = ? AND CAST(rv AS TEXT) = ?",
            (version, encode(updated), resource.kind(), resource.name, resource.metadata.resource_version),
        )
        if self._connection.changes() == 0:
            self._version_of(resource.kind(), resource.name)
            raise Conflict(f"{resource.kind()} {resource.name!r} was written since it was read")
        if resource.claim != former_claim:
            self._check_claim(resource)
        self.changes.append(CommittedWrite(version, updated.kind(), updated))
        self.discards_secret |= isinstance(resource, Secret)
        if isinstance(updated, Job):
            self._note_unsettled(updated)
        return updated

    def delete(self, kind: str, name: str, resource_version: str | None) -> None:
        current = self._version_of(kind, name)
        if resource_version is not None and str(current) != resource_version:
            raise Conflict(f"{kind} {name!r} was written since it was read")
        self._remove(kind, name)

    def _insert(self, resource: R, owner: OwnerReference | None) -> R:
        version = self._next_version()
        created = replace(
            resource,
            metadata=replace(
                resource.metadata,
                uid=str(uuid.uuid4()),
                resource_version=str(version),
                created_at=resource.metadata.created_at or self._clock.now(),
                owner=owner,
            ),
        )
        owner_key = _owner_key(owner.kind, owner.name) if owner else None
        try:
            self._connection.execute(
                "INSERT INTO resources (kind, name, rv, owner, body) VALUES (?, ?, ?, ?, ?)",
                (created.kind(), created.name, version, owner_key, encode(created)),
            )
        except apsw.ConstraintError as error:
            raise Conflict(f"{created.kind()} {created.name!r} exists already") from error
        self.changes.append(CommittedWrite(version, created.kind(), created))
        if isinstance(created, Job):
            self._note_unsettled(created)
        return created

    def _note_unsettled(self, job: Job) -> None:
        """Update the list of jobs that are not settled."""
        add, remove = "INSERT OR IGNORE INTO unsettled VALUES (?)", "DELETE FROM unsettled WHERE name = ?"
        self._connection.execute(remove if job.is_settled else add, (job.name,))

    def _note_deletion(self, version: int, job_name: str) -> None:
        """Store the deletion for an index of jobs that resumes from an earlier version."""
        self._connection.execute("DELETE FROM unsettled WHERE name = ?", (job_name,))
        self._connection.execute("INSERT INTO deletions VALUES (?, ?)", (version, job_name))
        self._connection.execute("DELETE FROM deletions WHERE rv < ?", (version - RETAINED_DELETIONS,))

    def _check_claim(self, resource: Resource) -> None:
        """Raise Taken if another resource of the kind has the same claim."""
        if resource.claim is None:
            return
        rows = self._connection.execute("SELECT name, body FROM resources WHERE kind = ?", (resource.kind(),))
        for name, body in rows:
            other = decode_body(type(resource), name, body)
            if other and other.name != resource.name and other.claim == resource.claim:
                raise taken_by(other)

    def _claim_of(self, resource: Resource) -> str | None:
        """Return the claim of the stored resource."""
        if resource.claim is None:
            return None
        body: bytes | None = self._connection.execute(
            "SELECT body FROM resources WHERE kind = ? AND name = ?", (resource.kind(), resource.name)
        ).get
        stored = None if body is None else decode_body(type(resource), resource.name, body)
        return stored.claim if stored else None

    def _remove(self, kind: str, name: str) -> None:
        """Remove a resource, then its parts."""
        body = self._connection.execute(
            "DELETE FROM resources WHERE kind = ? AND name = ? RETURNING body", (kind, name)
        ).get
        version = self._next_version()
        self.changes.append(CommittedDeletion(version, kind, name, body))
        if kind == Job.kind():
            self._note_deletion(version, name)
        self.discards_secret |= kind == Secret.kind()
        owned: list[Any] = self._connection.execute(
            "SELECT kind, name FROM resources WHERE owner = ? ORDER BY rv", (_owner_key(kind, name),)
        ).fetchall()
        for part_kind, part_name in owned:
            self._remove(part_kind, part_name)

    def _version_of(self, kind: str, name: str) -> int:
        version: int | None = self._connection.execute(
            "SELECT rv FROM resources WHERE kind = ? AND name = ?", (kind, name)
        ).get
        if version is None:
            raise NotFound(f"there is no {kind} {name!r}")
        return version

    def _next_version(self) -> int:
        self._version += 1
        return self._version


Operation = Callable[[Transaction], T]


_Waiting = tuple[Operation[Any], asyncio.Future[Any]]
"""An operation and the future of its caller."""


class Committed(NamedTuple):
    """The outcome of a batch: the result or error of each operation, and all changes."""

    outcomes: list[Any]
    changes: list[CommittedWrite | CommittedDeletion]


class GroupCommit:
    """A thread that runs operations. Operations that arrive during a commit share the next one.

    publish: called in the event loop with each commit's changes, before the callers of its operations continue.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        clock: Clock,
        publish: Callable[[Iterable[CommittedWrite | CommittedDeletion]], None],
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._publish = publish
        self._waiting: deque[_Waiting] = deque()
        self._batches: SimpleQueue[list[_Waiting] | None] = SimpleQueue()  # None ends the thread
        self._loop = asyncio.get_running_loop()
        self._thread = Thread(target=self._commit_batches, name="store-writer", daemon=True)
        self._thread.start()
        self._is_committing = False
        self._is_closed = False
        self._has_discarded_secret = False  # in the log, which could not be erased yet

    async def run(self, operation: Operation[T]) -> T:
        """Run `operation` and return its result once it is on stable storage. Raises its errors, and RetryLater."""
        return await self._enqueue(operation)

    async def close(self) -> None:
        """Commit the waiting operations, refuse new ones, and end the thread."""
        last = self._enqueue(lambda transaction: None)
        self._is_closed = True
        try:
            await asyncio.gather(last, return_exceptions=True)  # the callers receive the error
        finally:
            self._batches.put(None)
            self._thread.join()

    def _enqueue(self, operation: Operation[T]) -> asyncio.Future[T]:
        if self._is_closed:
            raise RetryLater("the store is closed")
        answer: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((operation, answer))
        if not self._is_committing:
            self._commit_soon()
        return answer

    def _commit_soon(self) -> None:
        """Schedule a commit after this turn of the event loop, so that other writes of the turn join it."""
        self._is_committing = True
        self._loop.call_soon(self._start_commit)

    def _start_commit(self) -> None:
        self._batches.put([self._waiting.popleft() for _ in range(min(len(self._waiting), OPERATIONS_PER_COMMIT))])

    def _commit_batches(self) -> None:
        """Commit batches until the end. A thread of its own costs less than an executor with its futures."""
        while (batch := self._batches.get()) is not None:
            operations = [operation for operation, _ in batch]
            try:
                committed = self._commit(operations)
            except Exception as error:  # noqa: BLE001 - the callers get it
                committed = Committed([error] * len(batch), [])
            self._loop.call_soon_threadsafe(self._finish_commit, batch, committed)

    def _finish_commit(self, batch: list[_Waiting], committed: Committed) -> None:
        self._publish(committed.changes)
        for (_, answer), outcome in zip(batch, committed.outcomes, strict=True):
            if answer.cancelled():  # the caller no longer waits
                continue
            if isinstance(outcome, BaseException):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
        self._is_committing = False
        if self._waiting:
            self._commit_soon()

    def _commit(self, operations: list[Operation[Any]]) -> Committed:
        try:
            return self._run_in_one_transaction(operations)
        except apsw.Error as error:
            raise RetryLater("the database cannot be written to") from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _erase_log(self) -> None:
        """Move the write-ahead log into the database and empty it: it may contain a deleted or replaced secret.

        An active reader or a disk error prevents that; then the next commit does it. The commit itself has succeeded in
        any case. A long reader, such as a backup of the database, must not make other commits wait.
        """
        self._connection.set_busy_timeout(_ERASE_TIMEOUT_MS)
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._has_discarded_secret = False
        except apsw.Error:
            self._has_discarded_secret = True
        finally:
            self._connection.set_busy_timeout(WRITER_TIMEOUT_MS)

    def _run_in_one_transaction(self, operations: list[Operation[Any]]) -> Committed:
        self._connection.execute("BEGIN IMMEDIATE")
        transaction = Transaction(self._connection, self._clock)
        outcomes = [transaction.attempt(operation) for operation in operations]
        transaction.finish()
        self._connection.execute("COMMIT")
        if transaction.discards_secret or self._has_discarded_secret:
            self._erase_log()
        return Committed(outcomes, transaction.changes)


def _owner_key(kind: str, name: str) -> str:
    return f"{kind}/{name}"
