"""The index of jobs: answers lists, counts and series over time without reading the jobs from the store."""

import asyncio
import base64
import json
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import local
from typing import Any, Final, NamedTuple, TypeVar

import apsw
import structlog

from labrats.index.breakdown import Row, rows_of, series_by
from labrats.index.job_filter import EVERY_JOB, JobFilter, condition_of, where_of
from labrats.index.job_table import (
    COUNTED,
    checkpoint,
    clear,
    complete,
    complete_file,
    is_complete,
    open_for_queries,
    open_table,
    put,
    remove_table,
)
from labrats.index.queues import Place, Position, Queue, all_queues, blockers_of, place_of, positions_of, superseder_of
from labrats.index.series import values_of
from labrats.model.errors import Invalid, Problem, RetryLater
from labrats.model.job import Job
from labrats.model.phases import API_STATUS, Phase
from labrats.model.series import Metric, Steps, Value
from labrats.ports import Change, Changed, Deleted, DeletedUnseen, Reset, Store, Synced

log = structlog.get_logger()

T = TypeVar("T")

FACETS: Final[Mapping[str, str]] = {
    "status": "status",
    "failedCode": "failed_code",
    "model": "model",
    "agentRole": "agent_role",
    "repo": "repo",
    "owner": "owner",
}
"""The fields by which jobs are counted for filters, and their columns."""

FACET_VALUES: Final = 100
"""Values of one facet that are returned, those with the most jobs first."""

CHECKPOINT_SECONDS: Final = 5.0
"""Seconds between two checkpoints of the index file, which run in a thread because they sync."""

COMMIT_SECONDS: Final = 0.05
"""Seconds in which changes are collected for one commit."""

RETRY_SECONDS: Final = 1.0
"""Pause before the index is written again after an error."""

BATCH: Final = 250
"""Changes that are applied before other tasks get their turn."""

PAGE: Final = 200
"""Jobs in one page of a long answer."""

QUICK_ROWS: Final = 10_000
"""Rows that a query may pass on the event loop."""


class IndexedJob(NamedTuple):
    """A job in the index. version: the resource version that the index has applied."""

    id: str
    version: str


class Page(NamedTuple):
    """Jobs, newest first. next: the cursor of the page after it; None on the last one."""

    jobs: list[IndexedJob]
    next: str | None


@dataclass(frozen=True)
class JobCount:
    """The number of jobs in one group."""

    status: str
    type: str
    provider: str
    model: str
    count: int


class JobIndex:
    """The index of jobs. `follow` keeps it up to date, and an answer contains every change that it has applied.

    With a path the index is a file that survives the engine: `follow` applies what has changed since. Queries that may
    take long run in threads.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._db = open_table(path)
        self._openings = 1
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="job-index") if path else None
        self._thread_local = local()
        self._opened: list[apsw.Connection] = []
        self._identity, self._version = "", 0
        self._failure: asyncio.Future[None] | None = None
        self._commit_timer: asyncio.TimerHandle | None = None
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)
        self.synced = asyncio.Event()
        self.on_change: Callable[[str, str, bool], None] | None = None
        """Function that is called with the id and owner of each changed job, and whether it exists."""

    async def follow(self, store: Store) -> None:
        """Apply every change until cancelled. Set `synced` once all existing jobs are in the index.

        While the index cannot be written, such as on a full disk, it lags, and tries again. A damaged one is filled
        again.
        """
        async with asyncio.TaskGroup() as tasks:
            if self._path:
                tasks.create_task(self._checkpoint_forever(self._path), name="job-index-checkpoints")
            is_damaged = False
            while True:
                try:
                    if is_damaged:
                        self._replace()
                        is_damaged = False
                    await self._resume(store)
                except* (apsw.CorruptError, apsw.NotADBError) as errors:
                    log.error("job index damaged, filled again", reason=str(errors.exceptions[0]))
                    is_damaged = True
                except* apsw.Error as errors:
                    log.warning("job index not written", reason=str(errors.exceptions[0]))
                except* RetryLater as errors:
                    log.warning("job index not updated", reason=str(errors.exceptions[0]))
                if (task := asyncio.current_task()) and task.cancelling():  # a group that fails hides it
                    raise asyncio.CancelledError
                await asyncio.sleep(RETRY_SECONDS)

    async def _resume(self, store: Store) -> None:
        """Apply every change after the stored version, until cancelled. Raises a group of apsw.Error and RetryLater."""
        self._roll_back()
        identity, self._version = self._saved_state()
        if not store.identity or identity != store.identity or not is_complete(self._db):
            self._clear()
        self._identity, self._failure = store.identity, asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._apply(store.watch(Job, after=self._version)), name="job-index-changes")
                await self._failure
        finally:
            self._commit()

    def _replace(self) -> None:
        """Replace the tables by empty ones. Threads open their connections again. Raises apsw.Error."""
        self.synced.clear()
        if self._path:
            remove_table(self._path)
        damaged, self._db = self._db, open_table(self._path)
        self._openings += 1
        damaged.close()

    async def _apply(self, changes: AsyncIterator[Change[Job]]) -> None:
        applied = 0
        async for change in changes:
            match change:
                case Changed(job):
                    self._put(job)
                case Deleted(job):
                    self._remove(job.id)
                case DeletedUnseen(job_id):
                    self._remove(job_id)
                case Reset():
                    self._clear()
                case Synced():
                    await self._complete()
                    self.synced.set()
            applied += 1
            if applied % BATCH == 0:
                self._commit()
                await asyncio.sleep(0)

    async def _complete(self) -> None:
        self._commit()
        if not is_complete(self._db):
            if self._path:
                await asyncio.to_thread(complete_file, self._path)
            else:
                complete(self._db)

    def close(self) -> None:
        """Close the connections. Call it after `follow` has ended."""
        if self._threads:
            self._threads.shutdown()
        for connection in self._opened:
            connection.close()
        self._db.close()

    # Queries

    def contains(self, job_id: str) -> bool:
        """Return whether the index has a job with this id. A job that was just created may still be missing."""
        return self._value("SELECT 1 FROM jobs WHERE id = ?", (job_id,)) is not None

    async def missing(self, job_ids: Sequence[str]) -> list[str]:
        """Return the ids that the index does not have, in the same order."""

        def find(db: apsw.Connection) -> list[str]:
            query = "SELECT 1 FROM jobs WHERE id = ?"
            return [job_id for job_id in job_ids if db.execute(query, (job_id,)).get is None]

        return await self._query(find)

    async def find_jobs(
        self, wanted: JobFilter, *, page: int, limit: int, oldest_first: bool = False
    ) -> tuple[list[IndexedJob], int]:
        """Return the jobs on a page (1, 2, …), newest first unless `oldest_first`, and how many match in all."""
        where, values = where_of(wanted)
        order = f"{_by_age(oldest_first)} LIMIT {limit} OFFSET {(page - 1) * limit}"

        def find(db: apsw.Connection) -> tuple[list[IndexedJob], int]:
            query = f"SELECT id, version FROM jobs {where} {order}"  # noqa: S608, no value in it
            jobs = [IndexedJob(*row) for row in db.execute(query, values)]
            is_last = len(jobs) < limit and (jobs or page == 1)
            return jobs, (page - 1) * limit + len(jobs) if is_last else _count(db, wanted)

        is_quick = wanted.conditions <= {"owner"} and page * limit <= QUICK_ROWS
        return self._find(find) if is_quick else await self._query(find)

    async def find_page(self, wanted: JobFilter, *, cursor: str | None, limit: int, oldest_first: bool = False) -> Page:
        """Return a page of jobs, newest first unless `oldest_first`. Raises Invalid for another cursor."""
        where, values = where_of(wanted)
        if cursor is not None:
            where += f" {'AND' if where else 'WHERE'} (created, id) {'>' if oldest_first else '<'} (?, ?)"
            values = [*values, *_decode_cursor(cursor)]
        order = f"{_by_age(oldest_first)} LIMIT {limit + 1}"

        def find(db: apsw.Connection) -> Page:
            query = f"SELECT created, id, version FROM jobs {where} {order}"  # noqa: S608, no value in it
            rows: list[Any] = db.execute(query, values).fetchall()
            last = rows[limit - 1] if len(rows) > limit else None
            return Page(
                [IndexedJob(job_id, version) for _, job_id, version in rows[:limit]],
                _encode_cursor(*last[:2]) if last else None,
            )

        is_quick = len(wanted.conditions - {"since", "until"}) <= 1 and not (wanted.q or wanted.has_end)
        return self._find(find) if is_quick else await self._query(find)

    async def ends_of(self, wanted: JobFilter, limit: int) -> list[tuple[str, float | None]]:
        """Return the ids of matching jobs, oldest first, and the time of each one's end, in seconds since 1970."""
        where, values = where_of(wanted)
        query = f"SELECT id, finished FROM jobs {where} ORDER BY created, id LIMIT {limit}"  # noqa: S608, no value in it
        return await self._query(lambda db: [(str(job_id), ended) for job_id, ended in db.execute(query, values)])

    async def facets(
        self, wanted: JobFilter, *, fixed: frozenset[str] = frozenset()
    ) -> dict[str, list[tuple[str, int]]]:
        """Return for each facet its values with the number of matching jobs, the most frequent first.

        A facet is counted without the filter by its own field, so that it lists the alternatives of the chosen value.
        fixed: columns whose filter applies to their own facet too.
        """
        chosen = wanted.only(frozenset(FACETS.values()) - fixed)
        others = wanted.without(chosen.conditions)
        is_counted = wanted.conditions <= set(COUNTED)
        # The indexes of the facets have their rows in order. Jobs that other conditions select, such as a search, are
        # read once for all facets.
        is_ordered = others.conditions <= {*FACETS.values(), "since", "until"}

        def rows(matching: JobFilter) -> tuple[str, list[Any]]:
            where, values = where_of(matching, within_time=matching.has_end)
            columns = ", ".join(FACETS.values())
            table = f"{columns}, jobs FROM counts" if is_counted else f"{columns}, 1 AS jobs FROM jobs"
            return f"SELECT {table} {where}", values

        found, values = rows(wanted if is_ordered else others)
        is_shared = bool(chosen.conditions) or not is_ordered
        counts: list[str] = []
        for name, column in FACETS.items():
            source, condition, filtered = "found", "TRUE", list[Any]()
            if is_ordered and column in chosen.conditions:
                source, filtered = rows(wanted.without({column}))
            elif not is_ordered:
                condition, filtered = condition_of(chosen.without({column}))
            counts.append(
                f"SELECT * FROM (SELECT '{name}', {column}, sum(jobs) AS number FROM ({source})"  # noqa: S608
                f" WHERE {column} <> '' AND {condition} GROUP BY {column} ORDER BY number DESC, {column}"
                f" LIMIT {FACET_VALUES})"
            )
            values += filtered
        query = f"WITH found AS {'' if is_shared else 'NOT '}MATERIALIZED ({found}) " + " UNION ALL ".join(counts)

        def count(db: apsw.Connection) -> dict[str, list[tuple[str, int]]]:
            found: dict[str, list[tuple[str, int]]] = {name: [] for name in FACETS}
            for name, value, number in db.execute(query, values):
                found[name].append((value, number))
            return found

        return await self._query(count)

    async def counts_by_group(self) -> list[JobCount]:
        """Return the number of jobs for each status, type, provider and model."""
        query = "SELECT status, type, provider, model, sum(jobs) FROM counts GROUP BY 1, 2, 3, 4"
        return await self._query(lambda db: [JobCount(*row) for row in db.execute(query)])

    async def counts_by_repo(self) -> list[tuple[str, str, int]]:
        """Return (repository, status, number of jobs) for each repository and status."""
        query = "SELECT repo, status, sum(jobs) FROM counts WHERE repo <> '' GROUP BY 1, 2"
        return await self._query(lambda db: [(str(repo), str(status), int(n)) for repo, status, n in db.execute(query)])

    def counts_by_model(self, phase: Phase) -> dict[tuple[str, str], int]:
        """Return the number of jobs in a phase for each queue. For phases of live jobs: they are few."""
        query = "SELECT provider, queue_model, sum(jobs) FROM counts WHERE status = ? GROUP BY 1, 2"
        rows = self._rows(query, (API_STATUS[phase],))
        return {(str(provider), str(model)): int(jobs) for provider, model, jobs in rows}

    def counts_by_status(self, owner: str | None = None) -> dict[str, int]:
        """Return the number of jobs in each status, of one owner or of all."""
        where, values = ("WHERE owner = ?", (owner,)) if owner is not None else ("", ())
        query = f"SELECT status, sum(jobs) FROM owner_counts {where} GROUP BY status"  # noqa: S608, no value in it
        return dict.fromkeys(API_STATUS.values(), 0) | {str(key): int(n) for key, n in self._rows(query, values)}

    def is_running(self, job_id: str) -> bool:
        """Return whether the index has the job as running."""
        status = self._value("SELECT status FROM jobs WHERE id = ?", (job_id,))
        return bool(status == API_STATUS[Phase.RUNNING])

    def version_of(self, job_id: str) -> str | None:
        """Return the resource version of a job that the index has applied; None if it has no such job."""
        version = self._value("SELECT version FROM jobs WHERE id = ?", (job_id,))
        return None if version is None else str(version)

    def count_in(self, phase: Phase, owner: str | None = None) -> int:
        """Return the number of jobs in `phase`: of all owners, or of one."""
        if owner is None:
            return int(self._value(_COUNT_IN, (API_STATUS[phase],)))
        return int(self._value(f"{_COUNT_IN} AND owner = ?", (API_STATUS[phase], owner)))

    def paused_until(self, provider: str, model: str, now: datetime) -> datetime | None:
        """Return the end of the model's pause: the latest that its waiting jobs record. None if it has passed."""
        query = "SELECT max(paused_until) FROM jobs WHERE provider = ? AND queue_model = ? AND paused_until > ?"
        latest = self._value(query, (provider, model, now.timestamp()))
        return datetime.fromtimestamp(float(latest), UTC) if latest else None

    async def place_of(self, job: Job, aging_seconds: float, now: datetime) -> Place:
        """Return the place of a waiting job in its queue. aging_seconds: see `rank_of`."""
        return await self._query(lambda db: place_of(db, job, aging_seconds, now))

    async def positions_of(self, job_ids: Sequence[str], aging_seconds: float, now: datetime) -> Mapping[str, Position]:
        """Return the positions of those jobs that wait in their queues. aging_seconds: see `rank_of`."""
        return await self._query(lambda db: positions_of(db, job_ids, aging_seconds, now))

    async def blockers_of(self, jobs: Sequence[Job]) -> Mapping[str, str]:
        """Return, for each waiting job that must wait for another one of its concurrency key, the id of that job."""
        if not any(job.spec.concurrency for job in jobs):
            return {}
        return await self._query(lambda db: blockers_of(db, jobs))

    async def superseder_of(self, job: Job) -> str | None:
        """Return the id of the newest live job that supersedes a waiting one of its concurrency key."""
        return await self._query(lambda db: superseder_of(db, job)) if job.spec.concurrency else None

    async def queues(self) -> list[Queue]:
        """Return the load of each provider and model on which a job waits or runs."""
        return await self._query(all_queues)

    def finished_before(self, time: datetime) -> Iterator[str]:
        """Yield the ids of the jobs that ended before `time`, the earliest first. They are read in pages."""
        query = (
            "SELECT finished, id FROM jobs WHERE finished < ? AND (finished, id) > (?, ?) ORDER BY finished, id LIMIT ?"
        )
        last: tuple[Any, ...] = (-math.inf, "")
        while rows := self._rows(query, (time.timestamp(), *last, PAGE)):
            for _, job_id in rows:
                yield str(job_id)
            last = rows[-1]

    async def series(self, metric: Metric, steps: Steps, wanted: JobFilter = EVERY_JOB) -> list[Value]:
        """Return the metric's values for the steps that have any. A deleted job no longer counts."""
        return await self._query(lambda db: values_of(db, metric, steps, wanted))

    async def series_by(
        self, field: str, metric: Metric, steps: Steps, wanted: JobFilter = EVERY_JOB
    ) -> Mapping[str, Sequence[Value]]:
        """Return what `series` returns for each of the most frequent values of a field."""
        return await self._query(lambda db: series_by(db, field, metric, steps, wanted))

    async def breakdown(self, field: str, begin: datetime, end: datetime, wanted: JobFilter = EVERY_JOB) -> list[Row]:
        """Return the jobs that ended from `begin` to before `end`, by the values of a field."""
        return await self._query(lambda db: rows_of(db, field, begin.timestamp(), end.timestamp(), wanted))

    @contextmanager
    def changes_of(self, job_id: str) -> Iterator[AsyncIterator[None]]:
        """Subscribe to the changes of a job. The iterator yields once for any number of changes since it last did.

        The subscription lasts as long as the block.
        """
        changed = asyncio.Event()
        self._listeners[job_id].add(changed)

        async def changes() -> AsyncIterator[None]:
            while True:
                await changed.wait()
                changed.clear()
                yield

        try:
            yield changes()
        finally:
            self._listeners[job_id].discard(changed)
            if not self._listeners[job_id]:
                del self._listeners[job_id]

    def _find(self, query: Callable[[apsw.Connection], T]) -> T:
        """Run a quick query. Raises RetryLater if the index is damaged, which lets `follow` fill it again."""
        try:
            return query(self._db)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise self._damage(error, self._openings) from error

    def _rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        """Return all rows of a quick query. Raises RetryLater as `_find` does."""
        return self._find(lambda db: db.execute(query, values).fetchall())

    def _value(self, query: str, values: Sequence[Any]) -> Any:
        """Return the first value of a quick query; None if there is no row. Raises RetryLater as `_find` does."""
        return self._find(lambda db: db.execute(query, values).get)

    async def _query(self, query: Callable[[apsw.Connection], T]) -> T:
        """Run a query that may take long: in a thread, unless the index is a temporary file.

        Raises RetryLater as `_find` does.
        """
        if self._threads is None or self._path is None:
            return self._find(query)
        self._commit()  # so that the thread's connection sees what was applied
        path, opening = self._path, self._openings

        def run() -> T:
            opened, connection = getattr(self._thread_local, "opened", (0, None))
            if opened != opening or connection is None:
                connection = open_for_queries(path)
                self._thread_local.opened = opening, connection
                self._opened.append(connection)
            return query(connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise self._damage(error, opening) from error

    def _damage(self, error: apsw.Error, opening: int) -> RetryLater:
        """Let `follow` replace the damaged index, unless it has done so. Return the error for the caller."""
        if opening == self._openings:
            self._fail(error)
        return RetryLater("the index of the jobs is damaged; it is being filled again")

    def _fail(self, error: apsw.Error) -> None:
        """End `_resume` with the error."""
        if self._failure and not self._failure.done():
            self._failure.set_exception(error)

    # Changes

    def _put(self, job: Job) -> None:
        self._begin()
        put(self._db, job)
        self._version = max(self._version, int(job.metadata.resource_version or 0))
        self._notify(job.id)
        if self.on_change:
            self.on_change(job.id, job.spec.owner, True)

    def _remove(self, job_id: str) -> None:
        self._begin()
        owner = self._db.execute("DELETE FROM jobs WHERE id = ? RETURNING owner", (job_id,)).get
        self._notify(job_id)
        if self.on_change and owner is not None:
            self.on_change(job_id, str(owner), False)

    def _clear(self) -> None:
        self._commit()
        clear(self._db)
        self._version = 0

    def _notify(self, job_id: str) -> None:
        for listener in self._listeners.get(job_id, ()):
            listener.set()

    def _begin(self) -> None:
        """Collect changes in one transaction. Queries see them at once; a crash loses none, since `follow` resumes."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
            self._commit_timer = asyncio.get_running_loop().call_later(COMMIT_SECONDS, self._commit)

    def _commit(self) -> None:
        """Commit the collected changes. A failure ends `_resume`, which then starts from the last commit."""
        if self._commit_timer:
            self._commit_timer.cancel()
            self._commit_timer = None
        if not self._db.in_transaction:
            return
        if self._failure and self._failure.done() and not self._failure.cancelled():
            # Earlier changes are lost. With a later version, `_resume` would not read them again.
            self._roll_back()
            return
        try:
            self._db.execute("UPDATE state SET identity = ?, version = ?", (self._identity, self._version))
            self._db.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            self._fail(error)

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with suppress(apsw.CorruptError, apsw.NotADBError):  # the transaction has ended all the same
                self._db.execute("ROLLBACK")

    def _saved_state(self) -> tuple[str, int]:
        row = self._db.execute("SELECT identity, version FROM state").fetchone()
        assert row, "the table has one row"
        return str(row[0]), int(row[1])

    async def _checkpoint_forever(self, path: Path) -> None:
        """Move the write-ahead log into the file now and then: in a thread, since it syncs."""
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            try:
                await asyncio.to_thread(checkpoint, path)
            except apsw.Error as error:
                log.warning("job index not checkpointed", reason=str(error))


_COUNT_IN: Final = "SELECT coalesce(sum(jobs), 0) FROM owner_counts WHERE status = ?"


def _count(db: apsw.Connection, wanted: JobFilter) -> int:
    """Return the number of matching jobs, from the counters where these have all that the filter asks for."""
    where, values = where_of(wanted)
    if wanted.conditions <= {"status", "owner"}:
        query = f"SELECT coalesce(sum(jobs), 0) FROM owner_counts {where}"  # noqa: S608, no value in it
    elif wanted.conditions <= set(COUNTED):
        query = f"SELECT coalesce(sum(jobs), 0) FROM counts {where}"  # noqa: S608, no value in it
    else:
        query = f"SELECT count(*) FROM jobs {where}"  # noqa: S608, no value in it
    return int(db.execute(query, values).get)


def _by_age(oldest_first: bool) -> str:
    """Return the clause that orders jobs by creation."""
    direction = "ASC" if oldest_first else "DESC"
    return f"ORDER BY created {direction}, id {direction}"


def _encode_cursor(created: float, job_id: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([created, job_id]).encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> tuple[float, str]:
    try:
        created, job_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(created, int | float) and isinstance(job_id, str) and job_id.isascii():
            return float(created), job_id
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise Invalid(Problem("cursor", "is not a cursor of this list; take `next` from its last page"))
