"""Migration of a database that an earlier version of Labrats wrote."""

import json
import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest
from msgspec.structs import replace

from labrats.backends.embedded.database import SCHEMA_VERSION, needs_migration, open_for_writing, schema_created_with
from labrats.backends.embedded.migration import backup_path
from labrats.backends.embedded.store import EmbeddedStore
from labrats.model.agent import ChainLink
from labrats.model.ai_model import AiModel, AiModelSpec, Prices
from labrats.model.errors import LabratsError
from labrats.model.job import Chain, Job
from labrats.model.phases import Phase
from labrats.model.record import Metadata, encode
from labrats.ports import Changed, Synced
from tests.support.builders import a_job, a_spec

P = Phase

SCHEMA_1 = """
    CREATE TABLE resources (
        kind TEXT NOT NULL, name TEXT NOT NULL, rv INTEGER NOT NULL, owner TEXT, body BLOB NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT;
    CREATE INDEX resources_by_owner ON resources (owner) WHERE owner IS NOT NULL;
    CREATE TABLE counter (rv INTEGER NOT NULL) STRICT;
    INSERT INTO counter VALUES (0);
    PRAGMA user_version = 1;
"""
SCHEMA_2 = f"""
    {SCHEMA_1}
    CREATE TABLE origin (schema_version INTEGER NOT NULL) STRICT;
    INSERT INTO origin VALUES (1);
    PRAGMA user_version = 2;
"""
SCHEMA_3 = f"""
    {SCHEMA_2}
    ALTER TABLE origin ADD COLUMN identity TEXT NOT NULL DEFAULT 'a-database';
    CREATE TABLE unsettled (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    INSERT INTO unsettled VALUES ('waiting'), ('running'), ('uninformed'), ('followed');
    CREATE TABLE deletions (rv INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
    CREATE INDEX jobs_by_rv ON resources (rv) WHERE kind = '{Job.kind()}';
    PRAGMA user_version = 3;
"""

JOBS = {
    "waiting": a_job(P.PENDING),
    "running": a_job(P.RUNNING),
    "ended": a_job(P.SUCCEEDED),
    "uninformed": a_job(P.FAILED, spec=replace(a_spec(), callback_url="https://ci.example.com/hook")),
    "followed": a_job(
        P.SUCCEEDED, spec=replace(a_spec(), chain=Chain(id="c", next=ChainLink(agent_trigger_name="reviewer")))
    ),
}


SPEC = {"provider": "mock"}


class Old(NamedTuple):
    """A database with an old schema, and the version of it."""

    path: Path
    version: int


@pytest.fixture(params=enumerate([SCHEMA_1, SCHEMA_2, SCHEMA_3], start=1), ids="schema-{0[0]}".format)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Old:
    version, schema = request.param
    path = tmp_path / "labrats.db"
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.execute(schema)
        for number, (name, job) in enumerate(JOBS.items(), start=1):
            stored = replace(
                job, metadata=Metadata(name=name, uid=name, resource_version=str(number), created_at=job.created_at)
            )
            values = (Job.kind(), name, number, encode(stored))
            connection.execute("INSERT INTO resources (kind, name, rv, body) VALUES (?, ?, ?, ?)", values)
        connection.execute("UPDATE counter SET rv = ?", (len(JOBS),))
    return Old(path, version)


def steps_from(version: int) -> list[str]:
    """Return the steps of a migration from this version of the schema."""
    return ["backup", "jobs"] if version < 3 else ["backup"]


def no_progress(step: str, share: float) -> None:
    """Ignore the progress of a migration."""


async def test_a_migrated_store_has_all_jobs_and_knows_the_unsettled_ones(old: Old) -> None:
    assert needs_migration(old.path)
    open_for_writing(old.path, no_progress).close()
    async with EmbeddedStore.open(old.path) as store:
        assert {job.name for job in await store.list(Job)} == set(JOBS)
        unsettled = set()
        async for change in store.watch(Job, unsettled_only=True):
            if isinstance(change, Synced):
                break
            assert isinstance(change, Changed)
            unsettled.add(change.resource.name)
        assert unsettled == set(JOBS) - {"ended"}
        assert store.schema_created_with == 1
    assert not needs_migration(old.path)


async def test_prices_of_an_earlier_version_keep_the_cache_free_of_charge(old: Old) -> None:
    prices = {"absent": {"prices": {"input": 5}}, "set": {"prices": {"cacheRead": 1}}, "none": {}}
    stored = {name: {"metadata": {"name": name}, "spec": SPEC | {"model": name} | own} for name, own in prices.items()}
    with closing(apsw.Connection(str(old.path))) as connection:
        values = [(name, number, json.dumps(body).encode()) for number, (name, body) in enumerate(stored.items(), 10)]
        connection.executemany("INSERT INTO resources (kind, name, rv, body) VALUES ('AiModel', ?, ?, ?)", values)

    later = AiModelSpec(provider="mock", model="later", prices=Prices(input=5))
    open_for_writing(old.path, no_progress).close()
    async with EmbeddedStore.open(old.path) as store:
        await store.create(AiModel(metadata=Metadata(name="later"), spec=later))
        found = {each.name: each.spec.prices for each in await store.list(AiModel)}
    assert found == {
        "absent": Prices(input=5, cache_read=0), "set": Prices(cache_read=1), "none": None, "later": Prices(input=5),
    }  # fmt: skip


def test_a_migration_keeps_a_copy_of_the_old_file(old: Old) -> None:
    open_for_writing(old.path, no_progress).close()
    backup = backup_path(old.path, old.version)
    assert backup.stat().st_mode & 0o777 == 0o600
    with closing(apsw.Connection(str(backup))) as copy:
        assert copy.pragma("user_version") == old.version
        assert copy.execute("SELECT count(*) FROM resources").get == len(JOBS)
        assert copy.pragma("integrity_check") == "ok"


def test_a_migration_reports_its_progress(old: Old) -> None:
    steps: dict[str, list[float]] = {}
    open_for_writing(old.path, lambda step, share: steps.setdefault(step, []).append(share)).close()
    assert list(steps) == steps_from(old.version)
    assert all(shares == sorted(shares) and shares[-1] == 1 for shares in steps.values())


@pytest.mark.parametrize("number", [0, -1], ids=["first-step", "last-step"])
def test_an_interrupted_migration_changes_nothing_and_starts_over(old: Old, number: int) -> None:
    before, step = dump(old.path), steps_from(old.version)[number]

    def interrupt(reached: str, share: float) -> None:
        if reached == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_for_writing(old.path, interrupt)
    assert dump(old.path) == before
    with closing(open_for_writing(old.path, no_progress)) as connection:
        assert connection.pragma("user_version") == SCHEMA_VERSION
        assert schema_created_with(connection) == 1
    assert not list(old.path.parent.glob("*.part"))


async def test_only_an_engine_migrates(old: Old) -> None:
    before = dump(old.path)
    with pytest.raises(LabratsError, match="start the engine once, which migrates it"):
        async with EmbeddedStore.open(old.path):
            pass
    assert dump(old.path) == before


def test_a_migration_without_room_on_the_disk_is_refused(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dump(old.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(LabratsError, match=r"needs \d+ MiB of free disk space; 0 MiB are free"):
        open_for_writing(old.path, no_progress)
    assert dump(old.path) == before


def test_files_of_an_interrupted_migration_take_no_room(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(LabratsError) as refused:
        open_for_writing(old.path, no_progress)
    needed = re.search(r"needs (\d+) MiB", str(refused.value))
    assert needed
    size = 3 * 2**20
    backup = backup_path(old.path, old.version)
    backup.write_bytes(bytes(size))
    part = backup.with_name(f"{backup.name}.part")
    part.write_bytes(bytes(size))

    def disk_usage(path: Path) -> object:
        free = int(needed[1]) * 2**20 - size - (size if part.exists() else 0)
        return shutil._ntuple_diskusage(10**9, 10**9, free)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    had_backup: list[bool] = []
    open_for_writing(old.path, lambda step, share: had_backup.append(backup.exists())).close()
    assert not had_backup[0]


def test_a_database_with_the_current_schema_is_not_copied(tmp_path: Path) -> None:
    for _ in range(2):
        open_for_writing(tmp_path / "labrats.db").close()
    assert not needs_migration(tmp_path / "labrats.db")
    assert not list(tmp_path.glob("*.backup"))


def dump(path: Path) -> list[str]:
    """Return the schema and the content of a database as text."""
    with closing(apsw.Connection(str(path))) as connection:
        rows = [str(row) for row in connection.execute("SELECT kind, name, rv, body FROM resources ORDER BY 1, 2")]
        tables = [str(row) for row in connection.execute("SELECT sql FROM sqlite_master ORDER BY 1")]
        return [str(connection.pragma("user_version")), *tables, *rows]
