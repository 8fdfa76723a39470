"""Files that came with jobs, on the uploads volume: under our own names, never under the caller's."""

import asyncio
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from labrats.model.errors import RetryLater
from labrats.model.job import WorkspaceFile


class Attachments:
    """Keeps the files of each job in a folder of its own."""

    def __init__(self, uploads: Path) -> None:
        self._uploads = uploads

    async def save(self, job_id: str, files: Sequence[tuple[str, bytes]]) -> tuple[WorkspaceFile, ...]:
        """Keep `files` (name in the workspace, contents); on stable storage when it returns. Raises RetryLater."""
        # The folder is not named by the job alone: another job that has the name already keeps its files.
        folder = f"jobs/{job_id}-{secrets.token_hex(4)}"
        try:
            return await asyncio.to_thread(_write_files, self._uploads, folder, files)
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, self._uploads / folder, ignore_errors=True)
            raise RetryLater("the files that came with the job could not be stored", delay_seconds=5) from error

    async def remove(self, files: Sequence[WorkspaceFile]) -> None:
        """Forget the files that one `save` kept."""
        for folder in {Path(file.path).parent for file in files}:
            await asyncio.to_thread(shutil.rmtree, self._uploads / folder, ignore_errors=True)


def _write_files(uploads: Path, name: str, files: Sequence[tuple[str, bytes]]) -> tuple[WorkspaceFile, ...]:
    folder = uploads / name
    folder.mkdir(mode=0o700, parents=True)
    kept = []
    for number, (file_name, data) in enumerate(files):
        with open(folder / str(number), "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        kept.append(WorkspaceFile(name=file_name, path=f"{name}/{number}", size=len(data)))
    for made in (folder, *list(folder.parents)[:3]):  # down from where the uploads folder is, which may be new too
        _sync_folder(made)
    return tuple(kept)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
