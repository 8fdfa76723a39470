"""Backups of a data folder: what they have, and what refuses them."""

import json
import tarfile
from pathlib import Path

import pytest

from labrats.backends.embedded import data_backup
from labrats.backends.embedded.data_backup import DataFolders, back_up, restore
from labrats.backends.embedded.store import EmbeddedStore
from labrats.model.core_resources import Secret
from labrats.model.errors import LabratsError
from labrats.model.record import Metadata


def folders_in(path: Path) -> DataFolders:
    return DataFolders(path, path / "uploads", path / "workspaces" / "uploads")


@pytest.fixture
async def folders(tmp_path: Path) -> DataFolders:
    """The folders of an engine with a secret and files."""
    found = folders_in(tmp_path / "data")
    async with EmbeddedStore.open(found.data / "labrats.db") as store:
        await store.create(Secret(metadata=Metadata(name="one"), data={"key": "test-value"}))
    for name, text in {
        "admin.key": "test-key",
        "index.db": "index",
        "attempts/ir-1-1/output.jsonl": "{}",
        "attempts/ir-1-1/home/.cache": "left out",
        "attempts/ir-1-1/secrets/token": "left out",
        "uploads/up-1/report.csv": "a,b",
        "workspaces/uploads/up-2/document.pdf": "pdf",
        "workspaces/ir-1/readme.txt": "left out",
        "caches/one/file": "left out",
    }.items():
        (found.data / name).parent.mkdir(parents=True, exist_ok=True)
        (found.data / name).write_text(text)
    (found.data / "attempts/ir-1-1/link").symlink_to("/etc/passwd")
    return found


def names_in(archive: Path) -> set[str]:
    with tarfile.open(archive) as file:
        return set(file.getnames())


async def test_backup_has_the_database_and_the_files_of_jobs(folders: DataFolders, tmp_path: Path) -> None:
    target = tmp_path / "backup.tar.gz"
    summary = back_up(folders, target)
    uploads = {"uploads/up-1/report.csv", "workspaces/uploads/up-2/document.pdf"}
    kept = {"admin.key", "attempts/ir-1-1/output.jsonl"} | uploads
    assert names_in(target) == {"labrats.db", "backup.json", *kept}
    assert (summary.files, target.stat().st_mode & 0o777) == (len(kept), 0o600)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


async def test_restored_folder_has_the_data_of_the_backup(folders: DataFolders, tmp_path: Path) -> None:
    back_up(folders, tmp_path / "backup.tar.gz")
    other = folders_in(tmp_path / "other")
    summary = restore(tmp_path / "backup.tar.gz", other)
    assert summary.files == 4
    assert (other.data.stat().st_mode & 0o777, (other.data / "labrats.db").stat().st_mode & 0o777) == (0o700, 0o600)
    assert (other.uploads / "up-1/report.csv").read_text() == "a,b"
    assert (other.pdf_uploads / "up-2/document.pdf").read_text() == "pdf"
    async with EmbeddedStore.open(other.data / "labrats.db") as store:
        assert (await store.get(Secret, "one")).data == {"key": "test-value"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar.gz", "data", "other"]


async def test_files_outside_of_the_data_folder_return_to_their_places(folders: DataFolders, tmp_path: Path) -> None:
    back_up(folders, tmp_path / "backup.tar.gz")
    other = DataFolders(tmp_path / "other", tmp_path / "volume" / "uploads", tmp_path / "work" / "uploads")
    restore(tmp_path / "backup.tar.gz", other)
    assert (tmp_path / "volume/uploads/up-1/report.csv").is_file()
    assert (tmp_path / "work/uploads/up-2/document.pdf").is_file()


async def test_existing_file_and_folder_are_not_replaced(folders: DataFolders, tmp_path: Path) -> None:
    target = tmp_path / "backup.tar.gz"
    target.write_text("mine")
    with pytest.raises(LabratsError, match="exists already"):
        back_up(folders, target)
    assert target.read_text() == "mine"
    target.unlink()
    back_up(folders, target)
    with pytest.raises(LabratsError, match="is not empty"):
        restore(target, folders)


async def test_damaged_backup_restores_nothing(folders: DataFolders, tmp_path: Path) -> None:
    target = tmp_path / "backup.tar.gz"
    back_up(folders, target)
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 0xFF
    for damaged in (bytes(content), target.read_bytes()[:-20], b"no archive"):
        target.write_bytes(damaged)
        with pytest.raises(LabratsError, match=r"is no backup of Labrats, or is (damaged|incomplete)"):
            restore(target, folders_in(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


async def test_backup_of_a_newer_version_is_refused(
    folders: DataFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_backup, "SCHEMA_VERSION", 99)
    back_up(folders, tmp_path / "backup.tar.gz")
    monkeypatch.undo()
    with pytest.raises(LabratsError, match="its database is newer"):
        restore(tmp_path / "backup.tar.gz", folders_in(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


async def test_damaged_database_is_not_backed_up(folders: DataFolders, tmp_path: Path) -> None:
    database = folders.data / "labrats.db"
    database.write_bytes(database.read_bytes()[:4096] + b"x" * (database.stat().st_size - 4096))
    with pytest.raises(LabratsError, match="database"):
        back_up(folders, tmp_path / "backup.tar.gz")
    assert not (tmp_path / "backup.tar.gz").exists()


def test_folder_without_data_has_no_backup(tmp_path: Path) -> None:
    with pytest.raises(LabratsError, match="has no data of an engine"):
        back_up(folders_in(tmp_path / "data"), tmp_path / "backup.tar.gz")


async def test_manifest_names_the_version(folders: DataFolders, tmp_path: Path) -> None:
    summary = back_up(folders, tmp_path / "backup.tar.gz")
    with tarfile.open(tmp_path / "backup.tar.gz") as archive:
        manifest = archive.extractfile("backup.json")
        assert manifest
        assert json.loads(manifest.read())["version"] == summary.version
