"""The SQLite tables of the job index: one row per job, and counters of jobs.

The tables are derived from the stored jobs. A database with another SCHEMA_VERSION is deleted and filled again.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import apsw

from labrats.model.concurrency import OnNew
from labrats.model.job import OWNER_PREFIX, Job
from labrats.model.phases import API_STATUS

SCHEMA_VERSION: Final = 9

COUNTED: Final = (
    "status", "provider", "model", "type", "source", "agent_role", "repo", "owner", "failed_code",
    "queue_model",
)  # fmt: skip
"""The columns by which jobs are counted; in `counts` an absent value is an empty text."""

_JOBS: Final = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, created REAL NOT NULL, status TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    type TEXT NOT NULL, source TEXT NOT NULL, agent_role TEXT, repo TEXT, owner TEXT NOT NULL, failed_code TEXT,
    chain_id TEXT, search TEXT NOT NULL, priority REAL NOT NULL, not_before REAL, finished REAL, paused_until REAL,
    first_started REAL, waited REAL, ran REAL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL, cost_usd REAL, version TEXT NOT NULL,
    concurrency TEXT, supersedes INTEGER NOT NULL, thread TEXT, pull_request TEXT, untrusted INTEGER NOT NULL,
    subject TEXT, queue_model TEXT NOT NULL
) STRICT;
CREATE TABLE state (identity TEXT NOT NULL, version INTEGER NOT NULL) STRICT;
INSERT INTO state VALUES ('', 0);
"""
_COUNTS: Final = f"""
CREATE TABLE counts (
    {", ".join(f"{column} TEXT NOT NULL" for column in COUNTED)}, jobs INTEGER NOT NULL,
    PRIMARY KEY ({", ".join(COUNTED)})
) STRICT, WITHOUT ROWID;
CREATE TABLE owner_counts (
    status TEXT NOT NULL, owner TEXT NOT NULL, jobs INTEGER NOT NULL, PRIMARY KEY (status, owner)
) STRICT, WITHOUT ROWID;
"""


def _add(row: str, change: str) -> str:
    """Return the SQL that adds `change` to the counters of the job `row` (OLD or NEW)."""
    values = ", ".join(f"coalesce({row}.{column}, '')" for column in COUNTED)
    keys = " AND ".join(f"{column} = coalesce({row}.{column}, '')" for column in COUNTED)
    total = "ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs"
    return f"""
        INSERT INTO counts VALUES ({values}, {change}) {total};
        INSERT INTO owner_counts VALUES ({row}.status, {row}.owner, {change}) {total};
        DELETE FROM counts WHERE {keys} AND jobs = 0;
    """  # noqa: S608, every interpolated text is a constant of this module


_TRIGGERS: Final = f"""
CREATE TRIGGER added AFTER INSERT ON jobs BEGIN {_add("NEW", "1")} END;
CREATE TRIGGER removed AFTER DELETE ON jobs BEGIN {_add("OLD", "-1")} END;
CREATE TRIGGER moved AFTER UPDATE ON jobs
WHEN {" OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in COUNTED)}
BEGIN {_add("OLD", "-1")} {_add("NEW", "1")} END;
"""
_INDEXES: Final = """
CREATE INDEX newest ON jobs (created, id, search);   -- with all that a search reads
CREATE INDEX by_status ON jobs (status, created, id);
CREATE INDEX by_model ON jobs (model, created, id);
CREATE INDEX by_type ON jobs (type, created, id);
CREATE INDEX by_source ON jobs (source, created, id);
CREATE INDEX by_agent_role ON jobs (agent_role, created, id) WHERE agent_role IS NOT NULL;
CREATE INDEX by_repo ON jobs (repo, created, id) WHERE repo IS NOT NULL;
CREATE INDEX by_owner ON jobs (owner, created, id);
CREATE INDEX by_failed_code ON jobs (failed_code, created, id) WHERE failed_code IS NOT NULL;
CREATE INDEX by_chain ON jobs (chain_id, created, id) WHERE chain_id IS NOT NULL;
CREATE INDEX by_queue ON jobs (provider, queue_model, priority, created, id, not_before) WHERE status = 'waiting';
CREATE INDEX by_run ON jobs (provider, queue_model, created, ran) WHERE ran IS NOT NULL;
CREATE INDEX by_concurrency ON jobs (concurrency, owner, status, created, id) WHERE concurrency IS NOT NULL;
CREATE INDEX by_thread ON jobs (thread, created, id) WHERE thread IS NOT NULL;
CREATE INDEX by_pull_request ON jobs (pull_request, created, id) WHERE pull_request IS NOT NULL;
CREATE INDEX by_pause ON jobs (provider, queue_model, paused_until) WHERE paused_until IS NOT NULL;
CREATE INDEX by_start ON jobs (first_started, waited) WHERE first_started IS NOT NULL;
CREATE INDEX by_end ON jobs (finished, status, ran, input_tokens, output_tokens, cache_read_tokens, cost_usd)
    WHERE finished IS NOT NULL;
"""

_TEMPORARY_CACHE_KIB: Final = 4 * 1024
"""Memory for pages of a temporary file. Small files stay in memory completely."""

_CHANGING: Final = (
    "status", "provider", "model", "queue_model", "failed_code", "not_before", "finished", "paused_until", "ran",
    "input_tokens", "output_tokens", "cache_read_tokens", "cost_usd", "version", "pull_request",
)  # fmt: skip
_FIRST_SEEN: Final = ("first_started", "waited")
"""Columns that keep their first value: the wait of a job is known while its first attempt is the latest."""
_PUT: Final = f"""
INSERT INTO jobs VALUES ({", ".join("?" * 32)}) ON CONFLICT (id) DO UPDATE SET
    {", ".join(f"{column} = excluded.{column}" for column in _CHANGING)},
    {", ".join(f"{column} = coalesce({column}, excluded.{column})" for column in _FIRST_SEEN)}
"""  # noqa: S608, every interpolated text is a constant of this module


def open_table(path: Path | None) -> apsw.Connection:
    """Open the tables in the file at `path`, or in a temporary one. The caller fills them unless they are complete.

    An incomplete or damaged file is deleted. A commit is not synced: the jobs themselves are stored elsewhere.
    """
    with suppress(apsw.CorruptError, apsw.NotADBError):
        connection = _connect_for_changes(path)
        if is_complete(connection):
            return connection
        connection.close()
    if path:
        remove_table(path)
    connection = _connect_for_changes(path)
    connection.execute(_JOBS + _COUNTS)
    return connection


def is_complete(connection: apsw.Connection) -> bool:
    """Return whether the tables were filled completely, with the current schema."""
    return int(connection.pragma("user_version")) == SCHEMA_VERSION


def clear(connection: apsw.Connection) -> None:
    """Remove all jobs, the counters and the indexes, which would slow down the insertion of many jobs."""
    connection.pragma("user_version", 0)
    for kind, name in connection.execute("SELECT type, name FROM sqlite_master WHERE type = 'table'").fetchall():
        connection.execute(f"DROP {kind} {name}")
    connection.execute(_JOBS + _COUNTS)


def complete(connection: apsw.Connection) -> None:
    """Count and index the jobs once all are inserted. Takes seconds for a million jobs."""
    with connection:
        columns = ", ".join(f"coalesce({column}, '')" for column in COUNTED)
        connection.execute(f"INSERT INTO counts SELECT {columns}, count(*) FROM jobs GROUP BY {columns}")  # noqa: S608
        connection.execute("INSERT INTO owner_counts SELECT status, owner, count(*) FROM jobs GROUP BY 1, 2")
        connection.execute(_TRIGGERS)
        connection.execute(_INDEXES)
        connection.pragma("user_version", SCHEMA_VERSION)


def complete_file(path: Path) -> None:
    """Complete the tables in a file through a connection of its own, for a thread."""
    connection = _connect(path)
    try:
        complete(connection)
    finally:
        connection.close()


def open_for_queries(path: Path) -> apsw.Connection:
    """Open a further connection that only reads, for a thread of its own."""
    return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)


def checkpoint(path: Path) -> None:
    """Move what readers no longer need of the write-ahead log into the file. Syncs."""
    connection = apsw.Connection(str(path))
    try:
        connection.pragma("schema_version")  # opens the log, without which there is nothing to move
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    except apsw.BusyError:
        pass  # the next one moves more
    finally:
        connection.close()


def remove_table(path: Path) -> None:
    """Delete the file and the files that SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").unlink()


def put(connection: apsw.Connection, job: Job) -> None:
    """Add the job's row, or update the columns that change during a job's life."""
    connection.execute(_PUT, row_of(job))


def row_of(job: Job) -> Sequence[Any]:
    """Return the job's row, in the order of the table's columns."""
    spec, status, resolved = job.spec, job.status, job.resolved
    is_first = status.started_at is not None and status.attempts == 1
    created, started, finished = job.created_at.timestamp(), _seconds(status.started_at), _seconds(status.finished_at)
    usage, concurrency = status.usage, spec.concurrency
    return (
        job.id, created, API_STATUS[job.phase], resolved.provider, resolved.model, spec.type, spec.source,
        spec.agent_role, repo_of(job), spec.owner, status.failed_code, spec.chain.id if spec.chain else None,
        search_text(job), float(spec.priority), _seconds(job.not_before), finished, _seconds(job.paused_until),
        started if is_first else None,
        started - created if is_first and started else None,
        # A job that was requeued and then cancelled has the start time of an attempt that had ended before.
        finished - started if finished and started and status.slot else None,
        usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.known_cost_usd,
        job.metadata.resource_version or "", concurrency.key if concurrency else None,
        concurrency is not None and concurrency.on_new is not OnNew.QUEUE,
        thread_of(job), status.published.pull_request_url if status.published else None, spec.untrusted,
        subject_of(job), resolved.queue_model,
    )  # fmt: skip


def search_text(job: Job) -> str:
    """Return the text that a search looks into, in lower case: the job's id, type, source, repo and title."""
    return " ".join((job.id, job.spec.type, job.spec.source, repo_of(job) or "", job.title or "")).lower()


def repo_of(job: Job) -> str | None:
    """Return the job's `metadata.repo`, the repository that it is about; None unless that is a string."""
    repo = job.spec.metadata.get("repo")
    return repo if isinstance(repo, str) else None


def thread_of(job: Job) -> str | None:
    """Return the thread on GitHub that the job is about, as `owner/repo#number`; None if there is none."""
    target = job.spec.report.target if job.spec.report else None
    if target:
        return thread_key(target.repository, target.number) if target.number is not None else None
    number, repo = job.spec.metadata.get("number"), repo_of(job)
    is_of_event = job.spec.owner.startswith(OWNER_PREFIX)  # a caller may write anything into its own metadata
    return thread_key(repo, number) if is_of_event and repo and isinstance(number, int) else None


def subject_of(job: Job) -> str | None:
    """Return the thread that a search finds the job by: as `thread_of`, but a caller's own metadata counts, too."""
    number, repo = job.spec.metadata.get("number"), repo_of(job)
    named = thread_key(repo, number) if repo and isinstance(number, int) else None
    return thread_of(job) or named


def thread_key(repository: str, number: int) -> str:
    """Return the name of a thread in the index."""
    return f"{repository.lower()}#{number}"


def _connect_for_changes(path: Path | None) -> apsw.Connection:
    """Connect to the file at `path`, or to a temporary one.

    After a statement that changes more than 64 KiB, SQLite would write the pages that any later one may have to restore
    to a temporary file. In memory they are few, unlike the rows that `complete` sorts, through another connection.
    """
    connection = _connect(path)
    if path:
        connection.pragma("temp_store", "memory")
    return connection


def _connect(path: Path | None) -> apsw.Connection:
    """Connect to the file at `path`. An empty name is a file that only this connection sees and SQLite deletes."""
    connection = apsw.Connection(str(path) if path else "")
    if not path:
        connection.pragma("cache_size", -_TEMPORARY_CACHE_KIB)
        return connection
    connection.set_busy_timeout(5_000)
    connection.pragma("journal_mode", "wal")
    # In WAL mode a crash of the machine loses the latest commits and corrupts nothing.
    connection.pragma("synchronous", "normal")
    connection.pragma("wal_autocheckpoint", 0)  # a checkpoint syncs, so it runs in a thread
    connection.pragma("journal_size_limit", 16 * 1024 * 1024)
    connection.pragma("secure_delete", True)
    return connection


def _seconds(time: datetime | None) -> float | None:
    return time.timestamp() if time else None
