"""Migration of a database that an earlier version of Labrats wrote.

The old file is copied first, and the new schema is written in one transaction at the end: a migration that is killed
starts again with the next engine and has changed nothing.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import apsw

from labrats.files.durability import sync
from labrats.model.errors import LabratsError
from labrats.model.job import Job

Progress = Callable[[str, float], None]
"""Called with the current step and the share of it that is done, from 0 to 1."""

SPARE_BYTES: Final = 64 * 1024 * 1024
"""Free space that a migration leaves on the disk."""

INDEX_BYTES: Final = 1024
"""Bytes per job that the migrated database and the index of jobs need beside the old data, at most."""

_PAGES: Final = 2_000
_JOBS: Final = 1_000


def backup_path(path: Path, version: int) -> Path:
    """Return the path of the copy of a database with an old schema version."""
    return path.with_name(f"{path.name}.schema-{version}.backup")


def _unfinished(backup: Path) -> Path:
    """Return the path of a copy that is being written."""
    return backup.with_name(f"{backup.name}.part")


def check_space(connection: apsw.Connection, path: Path, version: int) -> None:
    """Raise LabratsError unless the disk has room for the copy and the new tables.

    What an interrupted migration from the schema `version` left takes no room: the copy replaces it.
    """
    backup = backup_path(path, version)
    _unfinished(backup).unlink(missing_ok=True)
    replaced = backup.stat().st_size if backup.exists() else 0
    jobs = int(connection.execute("SELECT count(*) FROM resources WHERE kind = ?", (Job.kind(),)).get)
    wal = Path(f"{path}-wal")
    size = path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)
    needed, free = size + jobs * INDEX_BYTES + SPARE_BYTES, shutil.disk_usage(path.parent).free + replaced
    if free < needed:
        raise LabratsError(
            f"the database {path} must be migrated, which needs {needed // 2**20 + 1} MiB of free disk space; "
            f"{free // 2**20} MiB are free on {path.parent}. Free some space and start Labrats again"
        )


def back_up(connection: apsw.Connection, path: Path, version: int, progress: Progress) -> Path:
    """Copy the database to `backup_path`, on stable storage. Returns the path of the copy."""
    target = backup_path(path, version)
    unfinished = _unfinished(target)
    for earlier in (target, unfinished):  # of an interrupted migration: there may be no room for both copies
        earlier.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    with closing(apsw.Connection(str(unfinished))) as copy:
        copy.pragma("journal_mode", "off")
        copy.pragma("synchronous", "off")
        with copy.backup("main", connection, "main") as backup:
            while not backup.done:
                backup.step(_PAGES)
                progress("backup", 1 - backup.remaining / max(1, backup.page_count))
    sync(unfinished)
    unfinished.replace(target)
    sync(path.parent)
    return target


def unsettled_jobs(
    connection: apsw.Connection, decode: Callable[[str, bytes], Job | None], progress: Progress
) -> Iterator[str]:
    """Yield the names of the jobs for which the engine has something left to do."""
    total = int(connection.execute("SELECT count(*) FROM resources WHERE kind = ?", (Job.kind(),)).get)
    done, last = 0, ""
    query = "SELECT name, body FROM resources WHERE kind = ? AND name > ? ORDER BY name LIMIT ?"
    while rows := _fetch(connection, query, (Job.kind(), last, _JOBS)):
        for name, body in rows:
            if (job := decode(name, body)) and not job.is_settled:
                yield name
        done, last = done + len(rows), rows[-1][0]
        progress("jobs", done / total)


def _fetch(connection: apsw.Connection, query: str, values: tuple[Any, ...]) -> list[Any]:
    return connection.execute(query, values).fetchall()
