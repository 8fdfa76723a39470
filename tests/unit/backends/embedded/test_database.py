"""Opening the SQLite file."""

import shutil
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from labrats.backends.embedded.database import (
    CREATED_WITH,
    SCHEMA_VERSION,
    check_sqlite_version,
    needs_migration,
    open_for_reading,
    open_for_writing,
    schema_created_with,
)
from labrats.model.errors import LabratsError, RetryLater
from tests.support.open_files import deleted_open_files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "labrats.db"


@pytest.mark.parametrize(
    "version", ["3.44.6", "3.44.9", "3.50.7", "3.50.12", "3.51.3", "3.51.10", "3.52.0", "3.54.1", "4.0.0"]
)
def test_an_sqlite_without_the_wal_reset_bug_is_accepted(version: str) -> None:
    check_sqlite_version(version)


@pytest.mark.parametrize(
    "version",
    ["3.7.0", "3.40.1", "3.44.5", "3.45.0", "3.46.1", "3.49.2", "3.50.0", "3.50.6", "3.51.0", "3.51.2"],
)
def test_an_sqlite_with_the_wal_reset_bug_is_refused(version: str) -> None:
    with pytest.raises(LabratsError, match=rf"SQLite {version} can corrupt .* needs 3\.51\.3 or later"):
        check_sqlite_version(version)


def test_an_unsafe_sqlite_never_opens_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(LabratsError, match=r"3\.51\.2"):
        open_for_writing(path)
    assert not path.exists()


def test_the_linked_sqlite_is_safe() -> None:
    check_sqlite_version(apsw.sqlite_lib_version())


def test_commits_are_synced_to_disk(path: Path) -> None:
    with closing(open_for_writing(path)) as connection:
        assert connection.pragma("journal_mode") == "wal"
        assert connection.pragma("synchronous") == 2  # FULL


def test_a_large_transaction_writes_no_temporary_file(path: Path) -> None:
    before = deleted_open_files()
    with closing(open_for_writing(path)) as connection:
        insert = "INSERT INTO resources VALUES ('Secret', ?, 0, NULL, zeroblob(1000))"
        connection.executemany(insert, [(f"{number:03}",) for number in range(500)])
        with connection:  # a savepoint, whose changed pages must be restorable
            connection.execute("UPDATE resources SET body = zeroblob(999)")
            assert deleted_open_files() == before


def test_only_the_owner_can_read_the_files(path: Path) -> None:
    with closing(open_for_writing(path)):
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert modes == {"labrats.db": 0o600, "labrats.db-wal": 0o600, "labrats.db-shm": 0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_can_read_becomes_private(path: Path) -> None:
    open_for_writing(path).close()
    path.chmod(0o644)
    open_for_writing(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    open_for_writing(tmp_path / "labrats.db").close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_reopening_finds_the_committed_data(path: Path) -> None:
    with closing(open_for_writing(path)) as connection:
        connection.execute("UPDATE counter SET rv = 7")
    with closing(open_for_writing(path)) as connection:
        assert connection.execute("SELECT rv FROM counter").get == 7


def test_two_connections_can_write_in_turn(path: Path) -> None:
    with closing(open_for_writing(path)) as one, closing(open_for_writing(path)) as other:
        one.execute("UPDATE counter SET rv = rv + 1")
        other.execute("UPDATE counter SET rv = rv + 1")
        assert one.execute("SELECT rv FROM counter").get == 2


def test_a_reader_sees_each_commit_and_cannot_write(path: Path) -> None:
    with closing(open_for_writing(path)) as writer, closing(open_for_reading(path)) as reader:
        writer.execute("UPDATE counter SET rv = 5")
        assert reader.execute("SELECT rv FROM counter").get == 5
        with pytest.raises(apsw.ReadOnlyError):
            reader.execute("UPDATE counter SET rv = 6")


def test_a_new_file_records_the_schema_version_of_its_creation(path: Path) -> None:
    for _ in range(2):
        with closing(open_for_writing(path)) as connection:
            assert schema_created_with(connection) == CREATED_WITH
            assert connection.pragma("user_version") == SCHEMA_VERSION


def test_a_file_of_a_newer_labrats_is_refused_and_unchanged(path: Path) -> None:
    with closing(open_for_writing(path)) as connection:
        connection.pragma("user_version", SCHEMA_VERSION + 1)
    before = path.read_bytes()
    with pytest.raises(LabratsError, match=r"written by a newer Labrats .* upgrade Labrats"):
        open_for_writing(path)
    assert path.read_bytes() == before


def test_a_file_that_is_not_a_database_is_refused_and_unchanged(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("Dear diary, " * 1000)
    for opened in (open_for_writing, needs_migration):
        with pytest.raises(LabratsError, match=r"labrats\.db cannot be opened: file is not a database$"):
            opened(path)
    assert path.read_text() == "Dear diary, " * 1000


@pytest.mark.parametrize("function", ["open_for_writing", "needs_migration"])
def test_a_full_disk_is_named(path: Path, function: str) -> None:
    open_for_writing(path).close()
    fill = (
        f"mount -t tmpfs -o size=1m tmpfs {path.parent}; cp $0 {path}; cat /dev/zero > {path.parent}/fill 2> /dev/null"
    )
    script = (
        f"from pathlib import Path; from labrats.backends.embedded.database import {function}; "
        f"{function}(Path({str(path)!r}))"
    )
    copy = path.parent.parent / "copy.db"
    shutil.copyfile(path, copy)
    # A disk of its own, which only these processes see.
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{fill}; exec "$@"', str(copy)]
    done = subprocess.run(
        [*command, sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr.endswith(f"the database {path} cannot be opened: No space left on device\n")


def test_an_unusable_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RetryLater, match="cannot be opened"):
        open_for_writing(tmp_path / "file" / "labrats.db")
    with pytest.raises(RetryLater, match="cannot be opened"):
        open_for_reading(tmp_path / "missing.db")
