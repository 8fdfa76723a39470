"""The SQLite file: the safe versions of SQLite, connections, the tables, and the decoding of resources."""

import errno
import logging
import os
from contextlib import closing, suppress
from functools import cache, partial
from pathlib import Path
from shutil import disk_usage
from typing import Final, TypeVar

import apsw
import msgspec

from labrats.backends.embedded.migration import Progress, back_up, check_space, unsettled_jobs
from labrats.files.durability import sync
from labrats.model.errors import LabratsError, RetryLater
from labrats.model.job import Job
from labrats.model.record import Resource

R = TypeVar("R", bound=Resource)

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 4

CREATED_WITH: Final = 4
"""Version in a new database that decides on defaults: from 2 on, LABRATS_SANDBOX is `auto`; from 4 on, LABRATS_NETWORK
is `public`. Those below 4 are versions of the schema.
"""

_SCHEMA: Final = """
    CREATE TABLE resources (
        kind  TEXT    NOT NULL,
        name  TEXT    NOT NULL,
        rv    INTEGER NOT NULL,   -- the resource version: the value of the counter at its last write
        owner TEXT,               -- `kind/name` of the resource it is deleted with
        body  BLOB    NOT NULL,   -- the whole record as JSON, its metadata included
        PRIMARY KEY (kind, name)
    ) STRICT;
    CREATE INDEX resources_by_owner ON resources (owner) WHERE owner IS NOT NULL;
    CREATE TABLE counter (rv INTEGER NOT NULL) STRICT;   -- one row; it only grows, whichever process writes
    INSERT INTO counter VALUES (0);
"""
_ORIGIN: Final = (
    "CREATE TABLE origin (schema_version INTEGER NOT NULL) STRICT;   -- one row: the schema it was created with"
)
_SCHEMA_3: Final = f"""
    ALTER TABLE origin ADD COLUMN identity TEXT NOT NULL DEFAULT '';   -- of this database, for ever
    UPDATE origin SET identity = lower(hex(randomblob(16)));
    CREATE TABLE unsettled (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;   -- the jobs that are not `is_settled`
    CREATE TABLE deletions (rv INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;   -- of jobs, the latest ones
    CREATE INDEX jobs_by_rv ON resources (rv) WHERE kind = '{Job.kind()}';
"""  # noqa: S608, the kind is a constant

_FREE_CACHE_READS: Final = """
    UPDATE resources SET body = CAST(json_set(CAST(body AS TEXT), '$.spec.prices.cacheRead', 0) AS BLOB)
    WHERE kind = 'AiModel' AND json_type(CAST(body AS TEXT), '$.spec.prices') = 'object'
        AND json_type(CAST(body AS TEXT), '$.spec.prices.cacheRead') IS NULL
"""
"""In schemas before 4, prices without `cacheRead` meant 0, and now mean that the price is unknown."""

WRITER_TIMEOUT_MS: Final = 5_000
_READER_TIMEOUT_MS: Final = 250  # point reads block the event loop

_NEEDED_BYTES: Final = 64 * 1024
"""Space on the disk that opening a database takes, for the index of its log."""


def open_for_writing(path: Path, migrate: Progress | None = None) -> apsw.Connection:
    """Return a connection to the database at `path`, which is created if necessary.

    migrate: called with the progress of a migration. Without it, a database of an earlier version is refused: only an
    engine, which holds the data folder, may migrate it.

    Only its owner can read the file. Every commit through this connection is on stable storage when it returns.
    Raises LabratsError if this SQLite or this version of Labrats must not write to the file, and
    RetryLater if the file cannot be opened.
    """
    check_sqlite_version(apsw.sqlite_lib_version())
    try:
        _make_private_folder(path.parent)
        _make_private_file(path)
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except (OSError, apsw.Error) as error:
        raise _not_opened(path, error) from error
    try:
        connection.set_busy_timeout(WRITER_TIMEOUT_MS)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("secure_delete", True)  # deleted data may have been a secret
        _migrate(connection, path, migrate)
        # After an operation on more than 64 KiB, SQLite would write the pages of every savepoint to a temporary file.
        connection.pragma("temp_store", "memory")
    except apsw.Error as error:
        connection.close()
        raise _not_opened(path, error) from error
    except LabratsError:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> apsw.Connection:
    """Return a read-only connection, which sees every commit at once. Raises RetryLater."""
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        raise _not_opened(path, error) from error
    connection.set_busy_timeout(_READER_TIMEOUT_MS)
    return connection


def _not_opened(path: Path, error: OSError | apsw.Error) -> RetryLater:
    """Return the failure to open the database. SQLite reports a full disk as an I/O error."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    with suppress(OSError):
        if disk_usage(path.parent).free < _NEEDED_BYTES:
            reason = os.strerror(errno.ENOSPC)
    return RetryLater(f"the database {path} cannot be opened: {reason}")


def identity_of(connection: apsw.Connection) -> str:
    """Return the id of the database."""
    return str(connection.execute("SELECT identity FROM origin").get)


def schema_created_with(connection: apsw.Connection) -> int:
    """Return the CREATED_WITH, or in earlier versions the SCHEMA_VERSION, of the program that created the database."""
    if (found := int(connection.pragma("user_version"))) < 2:
        return found
    return int(connection.execute("SELECT schema_version FROM origin").get)


def check_sqlite_version(version: str) -> None:
    """Raise LabratsError if this version of SQLite can corrupt a database with several connections in WAL mode."""
    if not _is_safe(tuple(int(part) for part in version.split("."))):
        raise LabratsError(
            f"SQLite {version} can corrupt its database (the WAL-reset bug); "
            "Labrats needs 3.51.3 or later, 3.50.7 or later within 3.50, or 3.44.6 or later within 3.44"
        )


def decode_body(kind: type[R], name: str, body: bytes) -> R | None:
    """Decode a resource. Return None for one that is invalid, such as one from a newer Labrats, so that others work."""
    try:
        record: R = _decoder(kind).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("stored resource unreadable", extra={"kind": kind.kind(), "resource": name, "reason": str(error)})
        return None
    return record


@cache
def _decoder(kind: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(kind)


def _is_safe(version: tuple[int, ...]) -> bool:
    """Return whether `version` has the fix of the WAL-reset bug, which exists since 3.7.0."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def needs_migration(path: Path) -> bool:
    """Return whether an earlier version of Labrats wrote the database, so that opening it takes a while.

    Raises RetryLater if the file cannot be read.
    """
    if not path.exists():
        return False
    with closing(open_for_reading(path)) as connection:
        try:
            return 0 < int(connection.pragma("user_version")) < SCHEMA_VERSION
        except apsw.Error as error:
            raise _not_opened(path, error) from error


def _migrate(connection: apsw.Connection, path: Path, progress: Progress | None) -> None:
    """Migrate the tables to SCHEMA_VERSION. If several processes try at once, one migrates and the others wait."""
    found = int(connection.pragma("user_version"))
    _refuse_newer(connection, found)
    unsettled: list[str] = []
    if 0 < found < SCHEMA_VERSION:
        if progress is None:
            raise LabratsError(
                f"an earlier version of Labrats wrote the database {path}; start the engine once, which migrates it"
            )
        check_space(connection, path, found)
        backup = back_up(connection, path, found, progress)
        if found < 3:
            unsettled += unsettled_jobs(connection, partial(decode_body, Job), progress)
        log.info("database backed up", extra={"file": str(backup)})
    connection.execute("BEGIN IMMEDIATE")
    found = int(connection.pragma("user_version"))
    _refuse_newer(connection, found)
    if found < 1:
        connection.execute(_SCHEMA)
    if found < 2:
        connection.execute(_ORIGIN)
        connection.execute("INSERT INTO origin VALUES (?)", (found or CREATED_WITH,))
    if found < 3:
        connection.execute(_SCHEMA_3)
        connection.executemany("INSERT INTO unsettled VALUES (?)", ((name,) for name in unsettled))
    if found < 4:
        connection.execute(_FREE_CACHE_READS)
    connection.pragma("user_version", SCHEMA_VERSION)
    connection.execute("COMMIT")


def _refuse_newer(connection: apsw.Connection, found: int) -> None:
    if found > SCHEMA_VERSION:
        raise LabratsError(
            f"the database {connection.filename} was written by a newer Labrats "
            f"(its schema is version {found}, this program knows {SCHEMA_VERSION}); upgrade Labrats to open it"
        )


def _make_private_folder(folder: Path) -> None:
    """Create `folder` and its missing parents, readable by the owner only, on stable storage."""
    if folder.is_dir():
        return
    _make_private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync(folder.parent)


def _make_private_file(path: Path) -> None:
    """Create the file with a private mode, as SQLite would choose a wider one. Its -wal and -shm inherit the mode.

    An existing file is never opened here: closing it would drop the locks that SQLite holds on it in this process.
    """
    if path.exists():
        path.chmod(0o600)
        return
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    sync(path.parent)
