"""Files that came with jobs, on the uploads volume: under our own names, never under the caller's."""

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
"""The file lies on another volume, or on one that knows no links: it is copied."""

_JOBS: Final = "jobs"
"""The folder on the volume with the folders of jobs."""

Content = bytes | Path
"""What is in a file: its bytes, or the path of a file that has them and is never written again."""


class Attachments:
    """Keeps the files of each job in a folder of its own."""

    def __init__(self, uploads: Path) -> None:
        self._uploads = uploads

    async def save(self, job_id: str, files: Sequence[tuple[str, Content]]) -> tuple[WorkspaceFile, ...]:
        """Keep `files` (name in the workspace, contents); on stable storage when it returns. Raises RetryLater."""
        # The folder is not named by the job alone: another job that has the name already keeps its files.
        folder = f"{_JOBS}/{job_id}-{secrets.token_hex(4)}"
        try:
            return await asyncio.to_thread(_write_files, self._uploads, folder, files)
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, self._uploads / folder, ignore_errors=True)
            raise RetryLater("the files that came with the job could not be stored", delay_seconds=5) from error

    async def remove(self, files: Sequence[WorkspaceFile]) -> None:
        """Forget the files that one `save` kept."""
        for folder in {Path(file.path).parent for file in files}:
            await asyncio.to_thread(shutil.rmtree, self._uploads / folder, ignore_errors=True)

    async def folders(self, at_least_seconds_old: float) -> list[str]:
        """The folders of files that came with jobs, by their paths on the volume. Raises RetryLater."""
        try:
            return await asyncio.to_thread(_folders, self._uploads, time.time() - at_least_seconds_old)
        except OSError as error:
            raise RetryLater(f"the folder of uploads cannot be read: {error.strerror}", delay_seconds=5) from error

    async def remove_folder(self, folder: str) -> None:
        """Forget the files in one of the folders."""
        await asyncio.to_thread(shutil.rmtree, self._uploads / folder, ignore_errors=True)


def job_of(folder: str) -> str:
    """The id of the job whose files a folder has, or had: another job may have the name by now."""
    return Path(folder).name.rpartition("-")[0]


def _folders(uploads: Path, made_before: float) -> list[str]:
    try:
        entries = list(os.scandir(uploads / _JOBS))
    except FileNotFoundError:
        return []
    found = []
    for entry in entries:
        with suppress(FileNotFoundError):  # it has just been removed
            if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < made_before:
                found.append(f"{_JOBS}/{entry.name}")
    return found


def _write_files(uploads: Path, name: str, files: Sequence[tuple[str, Content]]) -> tuple[WorkspaceFile, ...]:
    folder = uploads / name
    folder.mkdir(mode=0o700, parents=True)
    kept = []
    for number, (file_name, content) in enumerate(files):
        path = folder / str(number)
        if isinstance(content, bytes):
            _write(path, io.BytesIO(content))
        else:
            _link(path, content)
        kept.append(WorkspaceFile(name=file_name, path=f"{name}/{number}", size=path.stat().st_size))
    for made in (folder, *list(folder.parents)[:3]):  # down from where the uploads folder is, which may be new too
        sync(made)
    return tuple(kept)


def _link(path: Path, content: Path) -> None:
    """Have the file `content` at `path` too, whoever removes it where it was."""
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
