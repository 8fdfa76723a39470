"""The files submitted with jobs, on the uploads volume. They are stored under generated names, never the caller's."""

import asyncio
import errno
import io
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from labrats.files.durability import sync
from labrats.model.errors import RetryLater
from labrats.model.job import WorkspaceFile

_NO_LINKS: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK})
"""Errors of linking across volumes, or on a volume without hard links. The file is copied instead."""

_JOBS: Final = "jobs"
"""The name of the folder on the volume that contains the folders of jobs."""

Content = bytes | Path
"""The content of a file: its bytes, or the path of a file that is never written again."""


class Attachments:
    """The files of jobs, with a folder for each job."""

    def __init__(self, uploads: Path) -> None:
        self._uploads = uploads

    async def save(self, job_id: str, files: Sequence[tuple[str, Content]]) -> tuple[WorkspaceFile, ...]:
        """Store files, given as (name in the workspace, content), on stable storage. Raises RetryLater."""
        # The job id alone is not enough: a job that already has this id may have stored its files.
        folder = f"{_JOBS}/{job_id}-{secrets.token_hex(4)}"
        try:
            return await asyncio.to_thread(_write_files, self._uploads, folder, files)
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, self._uploads / folder, ignore_errors=True)
            raise RetryLater("the files of the job could not be stored", delay_seconds=5) from error

    async def remove(self, job_id: str, files: Sequence[WorkspaceFile]) -> None:
        """Delete the files that one call of `save` stored for the job.

        Other files stay: a job applied with kubectl may name any file, such as those of the job it was copied from.
        """
        for folder in {Path(file.path).parent for file in files}:
            if folder.parent == Path(_JOBS) and job_of(str(folder)) == job_id:
                await asyncio.to_thread(shutil.rmtree, self._uploads / folder, ignore_errors=True)

    async def folders(self, at_least_seconds_old: float) -> list[str]:
        """Return the paths, relative to the volume, of the folders of jobs' files. Raises RetryLater."""
        try:
            return await asyncio.to_thread(_folders, self._uploads, time.time() - at_least_seconds_old)
        except OSError as error:
            raise RetryLater(f"the uploads folder cannot be read: {error.strerror}", delay_seconds=5) from error

    async def remove_folder(self, folder: str) -> None:
        """Delete one of these folders."""
        await asyncio.to_thread(shutil.rmtree, self._uploads / folder, ignore_errors=True)


def job_of(folder: str) -> str:
    """Return the id of the job for which a folder was created. Another job may have that id by now."""
    return Path(folder).name.rpartition("-")[0]


def _folders(uploads: Path, changed_before: float) -> list[str]:
    try:
        entries = list(os.scandir(uploads / _JOBS))
    except FileNotFoundError:
        return []
    found = []
    for entry in entries:
        with suppress(FileNotFoundError):  # it has just been deleted
            if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < changed_before:
                found.append(f"{_JOBS}/{entry.name}")
    return found


def _write_files(uploads: Path, name: str, files: Sequence[tuple[str, Content]]) -> tuple[WorkspaceFile, ...]:
    folder = uploads / name
    folder.mkdir(mode=0o700, parents=True)
    stored = []
    for number, (file_name, content) in enumerate(files):
        path = folder / str(number)
        if isinstance(content, bytes):
            _write(path, io.BytesIO(content))
        else:
            _link(path, content)
        stored.append(WorkspaceFile(name=file_name, path=f"{name}/{number}", size=path.stat().st_size))
    for created in (folder, *list(folder.parents)[:3]):  # up to the parent of the uploads folder, which may be new, too
        sync(created)
    return tuple(stored)


def _link(path: Path, content: Path) -> None:
    """Link or copy the file `content` to `path`, where it remains when the original is deleted."""
    try:
        os.link(content, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with open(content, "rb") as source:
            _write(path, source)


def _write(path: Path, source: BinaryIO) -> None:
    with open(path, "xb") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())
