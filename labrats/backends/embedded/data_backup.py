"""Back up a data folder into one file, while an engine may use it, and restore it."""

import gzip
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Final

import apsw

import labrats
from labrats.backends.embedded.database import SCHEMA_VERSION, open_for_reading
from labrats.backends.embedded.folders import NOT_IN_BACKUPS
from labrats.files.durability import sync
from labrats.files.trees import remove_path
from labrats.model.backup import BackupSummary
from labrats.model.errors import LabratsError

_DATABASE: Final = "labrats.db"
_MANIFEST: Final = "backup.json"
_FORMAT: Final = 1


@dataclass(frozen=True)
class DataFolders:
    """The folders of an engine whose files a backup has. uploads, pdf_uploads: may be outside of the data folder."""

    data: Path
    uploads: Path
    pdf_uploads: Path

    @property
    def by_name(self) -> dict[str, Path]:
        """Each folder by its name in the backup."""
        return {"attempts": self.data / "attempts", "uploads": self.uploads, "workspaces/uploads": self.pdf_uploads}


def back_up(folders: DataFolders, target: Path) -> BackupSummary:
    """Write the database, the admin key and the files of jobs to `target`, a new file that only its owner can read.

    The database comes first, so that its jobs have their files. Workspaces, caches and model files are left out.
    Raises LabratsError, and OSError; then there is no `target`.
    """
    if target.exists():
        raise LabratsError(f"{target} exists already; name another file")
    draft = target.with_name(f".{target.name}.part")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
            with TemporaryDirectory(dir=target.parent, prefix=".labrats-backup-") as folder:
                _copy_database(folders.data / _DATABASE, Path(folder, _DATABASE))
                archive.add(Path(folder, _DATABASE), _DATABASE)
            files = sum(_add(archive, path, name) for path, name in _files_of(folders))
            manifest = {"format": _FORMAT, "version": labrats.__version__, "schema": SCHEMA_VERSION, "files": files}
            entry, content = tarfile.TarInfo(_MANIFEST), json.dumps(manifest).encode()
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
        found = _verified(draft)
        sync(draft)
        os.link(draft, target)  # unlike a rename, it replaces no file
        sync(target.parent)
        return BackupSummary(labrats.__version__, found, target.stat().st_size)
    finally:
        draft.unlink(missing_ok=True)


def restore(source: Path, folders: DataFolders) -> BackupSummary:
    """Restore a backup into folders that are empty or missing.

    Raises LabratsError, and OSError. The database comes last, so that no engine takes half a backup for a whole one.
    """
    places = {"": folders.data, **folders.by_name}
    for folder in places.values():
        if folder.exists() and any(folder.iterdir()):
            raise LabratsError(f"{folder} is not empty; restore into an empty data folder, with --data-dir")
    files = _verified(source)
    folders.data.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folders.data.parent, prefix=".labrats-restore-") as name:
        draft = Path(name)
        with _opened(source) as archive:
            archive.extractall(draft, filter="data")
        version = _check_database(draft / _DATABASE, json.loads((draft / _MANIFEST).read_text()))
        (draft / _MANIFEST).unlink()
        folders.data.mkdir(mode=0o700, exist_ok=True)
        folders.data.chmod(0o700)
        for part, folder in folders.by_name.items():
            if (draft / part).is_dir():
                folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                remove_path(folder)
                shutil.move(draft / part, folder)  # also to another file system
        for each in [path for path in draft.iterdir() if path.is_file() and path.name != _DATABASE]:
            shutil.move(each, folders.data / each.name)
        shutil.move(draft / _DATABASE, folders.data / _DATABASE)  # the last: without it, the folder counts as new
        sync(folders.data)
    return BackupSummary(version, files, source.stat().st_size)


def _copy_database(path: Path, copy: Path) -> None:
    """Copy the database as of one moment, and check the copy. Raises LabratsError."""
    if not path.exists():
        raise LabratsError(f"{path.parent} has no data of an engine; name the engine's folder with --data-dir")
    with closing(open_for_reading(path)) as database:
        try:
            database.execute("VACUUM INTO ?", (str(copy),))
        except apsw.Error as error:
            raise LabratsError(f"the database cannot be copied: {error}") from error
    copy.chmod(0o600)
    _require_intact(copy)


def _require_intact(path: Path) -> None:
    try:
        with closing(open_for_reading(path)) as database:
            problem = str(database.execute("PRAGMA integrity_check").get)
    except (apsw.Error, LabratsError) as error:
        problem = str(error)
    if problem != "ok":
        raise LabratsError(f"the database is damaged: {problem}")


def _check_database(path: Path, manifest: dict[str, object]) -> str:
    """Return the version that wrote a backup. Raises LabratsError for one that this version cannot use."""
    if manifest.get("format") != _FORMAT or not isinstance(schema := manifest.get("schema"), int):
        raise LabratsError("the backup was written by a newer Labrats; restore it with that version")
    if schema > SCHEMA_VERSION:
        wrote = manifest.get("version")
        raise LabratsError(f"Labrats {wrote} wrote the backup, and its database is newer; restore it with that version")
    _require_intact(path)
    return str(manifest.get("version"))


def _files_of(folders: DataFolders) -> Iterator[tuple[Path, str]]:
    """Yield the files of a backup, each with its name there."""
    yield folders.data / "admin.key", "admin.key"
    for name, folder in folders.by_name.items():
        for parent, subfolders, files in os.walk(folder):
            place = PurePosixPath(name, *Path(parent).relative_to(folder).parts)
            if name == "attempts":
                subfolders[:] = [each for each in subfolders if each not in NOT_IN_BACKUPS]
            for file in files:
                yield Path(parent, file), str(place / file)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> bool:
    """Add a plain file, as long as it is now. Return False for anything else, and for one that is gone by now."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            entry = archive.gettarinfo(arcname=name, fileobj=file)
            if entry.isreg():
                archive.addfile(entry, file)
                return True
    return False


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise LabratsError(f"there is no file {path}") from error
        raise LabratsError(f"{path} is no backup of Labrats, or is damaged: {error}") from error


def _verified(path: Path) -> int:
    """Read a backup to its end, and return the number of its files. Raises LabratsError if it is not complete."""
    manifest, names = None, set[str]()
    with _opened(path) as archive:
        for entry in archive:
            names.add(entry.name)
            if entry.name == _MANIFEST and (content := archive.extractfile(entry)):
                manifest = json.loads(content.read())
        with gzip.open(path) as whole:  # its checksum stands behind the end of the archive
            while whole.read(2**20):
                pass
    if manifest is None or _DATABASE not in names:
        raise LabratsError(f"{path} is no backup of Labrats, or is incomplete")
    return int(manifest["files"])
