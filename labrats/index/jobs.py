"""An index of all jobs, fed by the store's watch. It answers lists and counts without reading the jobs.

The jobs themselves stay in the store.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

import apsw

from labrats.index.series import JobSeries
from labrats.model.job import Job
from labrats.model.phases import API_STATUS, Phase
from labrats.ports import Changed, Deleted, Store

_FILTERS: Final = ("status", "type", "source", "agent_role", "repo", "chain_id", "owner")

_TABLE: Final = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, created REAL NOT NULL, status TEXT NOT NULL, type TEXT NOT NULL, source TEXT NOT NULL,
    agent_role TEXT, repo TEXT, chain_id TEXT, owner TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    finished REAL, paused_until REAL
) WITHOUT ROWID
"""

_INDEXES: Final = (
    "CREATE INDEX newest ON jobs (created, id)",
    "CREATE INDEX by_status ON jobs (status, created, id)",
    "CREATE INDEX by_type ON jobs (type, created, id)",
    "CREATE INDEX by_source ON jobs (source, created, id)",
    "CREATE INDEX by_repo ON jobs (repo, created, id) WHERE repo IS NOT NULL",
    "CREATE INDEX by_agent_role ON jobs (agent_role, created, id) WHERE agent_role IS NOT NULL",
    "CREATE INDEX by_chain ON jobs (chain_id, created, id) WHERE chain_id IS NOT NULL",
    "CREATE INDEX by_owner ON jobs (owner, created, id)",
    "CREATE INDEX by_pause ON jobs (provider, model, paused_until) WHERE paused_until IS NOT NULL",
    "CREATE INDEX by_end ON jobs (finished) WHERE finished IS NOT NULL",
)
"""The indexes, created once all existing jobs are inserted: updating them on each insert takes three times as long."""


@dataclass(frozen=True)
class JobFilter:
    """A filter of jobs: each field that is not None must match. `q` must occur in the id, type, source or repo."""

    status: str | None = None
    type: str | None = None
    source: str | None = None
    agent_role: str | None = None
    repo: str | None = None
    chain_id: str | None = None
    owner: str | None = None
    q: str | None = None


class JobGroup(NamedTuple):
    """The fields by which jobs are grouped and counted."""

    status: str
    type: str
    provider: str
    model: str


@dataclass(frozen=True)
class JobCount:
    """The number of jobs in one group."""

    status: str
    type: str
    provider: str
    model: str
    count: int


def repo_of(job: Job) -> str | None:
    """Return the job's `metadata.repo`, the repository that it is about; None unless that is a string."""
    repo = job.spec.metadata.get("repo")
    return repo if isinstance(repo, str) else None


class JobIndex:
    """The index of jobs, with their `series` over time. `follow` keeps both up to date.

    An answer contains every change that the store's watch has delivered. No method but `follow` reads the store.
    """

    def __init__(self) -> None:
        # A row takes some 300 bytes, invisible to the garbage collector; SQLite filters and orders 100,000 of them.
        self._db = apsw.Connection(":memory:")
        self._db.execute(_TABLE)
        self._groups: dict[str, JobGroup] = {}
        self._shared_groups: dict[JobGroup, JobGroup] = {}
        self._by_group: Counter[JobGroup] = Counter()
        self._by_status: Counter[str] = Counter()
        self._by_owner: Counter[str] = Counter()
        self._by_repo: Counter[tuple[str, str]] = Counter()
        self.series = JobSeries()
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)
        self.synced = asyncio.Event()

    async def follow(self, store: Store) -> None:
        """Apply every change until cancelled. Set `synced` once all existing jobs are in the index."""
        async for change in store.watch(Job):
            match change:
                case Changed(job):
                    self._put(job)
                case Deleted(job):
                    self._remove(job.id)
                case _:
                    for index in _INDEXES:
                        self._db.execute(index)
                        await asyncio.sleep(0)
                    self.synced.set()

    def contains(self, job_id: str) -> bool:
        """Return whether the index has a job with this id. A job that was just created may still be missing."""
        return job_id in self._groups

    def find_ids(self, wanted: JobFilter, *, page: int, limit: int) -> tuple[list[str], int]:
        """Return the ids on a page (1, 2, …), newest first, and the number of all matching jobs."""
        where, values = _where(wanted)
        rows = self._db.execute(
            f"SELECT id FROM jobs {where} ORDER BY created DESC, id DESC LIMIT ? OFFSET ?",  # noqa: S608, no value in it
            (*values, limit, (page - 1) * limit),
        )
        ids = [str(row[0]) for row in rows]
        return ids, self._total(wanted, where, values)

    def counts_by_group(self) -> list[JobCount]:
        """Return the number of jobs for each status, type, provider and model."""
        return [JobCount(*group, count) for group, count in self._by_group.items()]

    def counts_by_repo(self) -> list[tuple[str, str, int]]:
        """Return (repository, status, number of jobs) for each repository and status."""
        return [(repo, status, count) for (repo, status), count in self._by_repo.items()]

    def counts_by_model(self, status: str) -> dict[tuple[str, str], int]:
        """Return the number of jobs with `status` for each (provider, model)."""
        counts: Counter[tuple[str, str]] = Counter()
        for group, count in self._by_group.items():
            if group.status == status:
                counts[group.provider, group.model] += count
        return counts

    def paused_until(self, provider: str, model: str) -> datetime | None:
        """Return the end of the model's pause: the latest that its waiting jobs record. None without a pause."""
        query = "SELECT max(paused_until) FROM jobs WHERE provider = ? AND model = ? AND paused_until IS NOT NULL"
        latest = self._db.execute(query, (provider, model)).get
        return datetime.fromtimestamp(float(latest), UTC) if latest else None

    def finished_before(self, time: datetime) -> list[str]:
        """Return the ids of the jobs that ended before `time`."""
        return [str(row[0]) for row in self._db.execute("SELECT id FROM jobs WHERE finished < ?", (time.timestamp(),))]

    def count_in(self, phase: Phase) -> int:
        """Return the number of jobs in `phase`."""
        return self._by_status[API_STATUS[phase]]

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

    def _total(self, wanted: JobFilter, where: str, values: list[str]) -> int:
        if wanted == JobFilter():
            return len(self._groups)
        if wanted == JobFilter(owner=wanted.owner):
            return self._by_owner[wanted.owner or ""]
        row = self._db.execute(f"SELECT count(*) FROM jobs {where}", values).fetchone()  # noqa: S608, no value in it
        return int(row[0]) if row else 0

    def _put(self, job: Job) -> None:
        status, spec, resolved, repo = API_STATUS[job.phase], job.spec, job.resolved, repo_of(job)
        old = self._groups.get(job.id)
        if old is None:
            self._db.execute(
                "INSERT INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    job.id, job.created_at.timestamp(), status, spec.type, spec.source, spec.agent_role, repo,
                    spec.chain.id if spec.chain else None,
                    spec.owner, resolved.provider, resolved.model,
                    _seconds(job.status.finished_at), _seconds(job.paused_until),
                ),
            )  # fmt: skip
            self._by_owner[spec.owner] += 1
        else:
            self._db.execute(
                "UPDATE jobs SET status = ?, provider = ?, model = ?, finished = ?, paused_until = ? WHERE id = ?",
                (
                    status, resolved.provider, resolved.model, _seconds(job.status.finished_at),
                    _seconds(job.paused_until), job.id,
                ),
            )  # fmt: skip
            self._count(old, repo, -1)
        group = JobGroup(status, spec.type, resolved.provider, resolved.model)
        # Equal groups share one object, so that a job costs a reference instead of strings.
        self._groups[job.id] = group = self._shared_groups.setdefault(group, group)
        self._count(group, repo, 1)
        self.series.put(job)
        self._notify(job.id)

    def _remove(self, job_id: str) -> None:
        for owner, repo in self._db.execute("DELETE FROM jobs WHERE id = ? RETURNING owner, repo", (job_id,)):
            self._by_owner[str(owner)] -= 1
            self._count(self._groups.pop(job_id), str(repo) if repo else None, -1)
        self.series.remove(job_id)
        self._notify(job_id)

    def _count(self, group: JobGroup, repo: str | None, change: int) -> None:
        self._by_status[group.status] += change
        self._by_group[group] += change
        if not self._by_group[group]:  # callers choose the types, so empty groups would pile up
            del self._by_group[group], self._shared_groups[group]
        if repo is not None:
            self._by_repo[repo, group.status] += change
            if not self._by_repo[repo, group.status]:
                del self._by_repo[repo, group.status]

    def _notify(self, job_id: str) -> None:
        for listener in self._listeners.get(job_id, ()):
            listener.set()


def _seconds(time: datetime | None) -> float | None:
    return time.timestamp() if time else None


def _where(wanted: JobFilter) -> tuple[str, list[str]]:
    terms: list[str] = []
    values: list[str] = []
    for column in _FILTERS:
        if (value := getattr(wanted, column)) is not None:
            terms.append(f"{column} = ?")
            values.append(value)
    if wanted.q:
        terms.append("instr(lower(id || ' ' || type || ' ' || source || ' ' || coalesce(repo, '')), lower(?))")
        values.append(wanted.q)
    return (f"WHERE {' AND '.join(terms)}" if terms else ""), values
