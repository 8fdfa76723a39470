"""Folders of workspaces that later jobs get, such as installed dependencies.

A cached folder is stored after the setup commands and before the agent starts, so that no agent can change it. The
engine names the scope: see `labrats.model.job.cache_scope`. Within it, an entry is found by the commands, the path of
the folder and the content of the key file. Entries are locked while they are read, since another executor may delete
the least recently used ones.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from subprocess import STDOUT
from time import monotonic
from typing import Final, Protocol

import msgspec

from labrats.executor.subprocesses import child_process, read_tail
from labrats.files.cached_entries import SIZE_FILE, locked_entry, shrink_caches
from labrats.files.safe_paths import create_folder_inside, exists_inside, open_folder_inside, open_inside
from labrats.files.trees import remove_tree, sizes_on_disk
from labrats.model.errors import GiveUp
from labrats.model.protocol import Task
from labrats.model.sizes import default_kept_free
from labrats.model.workspace_setup import CachedFolder, Setup

_CONTENT: Final = "content"
_UNFINISHED: Final = "unfinished-"

_MEASURE_SECONDS: Final = 0.5
_MEASURE_PAUSE_FACTOR: Final = 10.0
"""Shortest pause between measurements of a copy, and its least ratio to the time of a measurement."""


class _CacheFailed(Exception):
    """A cached folder could not be copied."""


@dataclass(frozen=True)
class CacheEntry:
    """The place of a cached folder. path: the entry's folder, which may be missing."""

    cached: CachedFolder
    path: Path

    def below(self, scope: str) -> "CacheEntry":
        """Return the same entry in the folder of another scope."""
        return CacheEntry(self.cached, Path(scope, self.path.name))


class Caches(Protocol):
    """The cached folders of a job. A failure is logged, and the job continues without the folder."""

    async def restore(self) -> None:
        """Copy the cached folders that exist into the workspace. Call it before the first command."""
        ...

    async def store(self) -> None:
        """Store the folders that were missing. Call it once, after the last command."""
        ...


class FolderCaches:
    """Cached folders in a folder that this process can write to."""

    def __init__(self, task: Task, workspace: Path, setup: Setup, log: Callable[[str], None]) -> None:
        self._task, self._workspace, self._setup, self._log_line = task, workspace, setup, log
        self._missing: list[CacheEntry] = []

    async def restore(self) -> None:
        for cached in self._setup.cache or ():
            try:
                entry = await asyncio.to_thread(self._entry_of, cached)
                if await self._restore(entry):
                    self._log(cached, "restored")
                elif self._task.base_caches and await self._restore(entry.below(self._task.base_caches)):
                    self._log(cached, "restored from the default branch")
                else:
                    self._missing.append(entry)
            except (_CacheFailed, GiveUp, OSError) as error:
                self._log(cached, f"not used: {error}")

    async def store(self) -> None:
        """Store the folders, and delete the least recently used entries of all jobs beyond the limit."""
        for entry in self._missing:
            try:
                await self._store(entry)
                self._log(entry.cached, "stored for later jobs")
            except (_CacheFailed, GiveUp, OSError) as error:
                self._log(entry.cached, f"not stored: {error}")
            await asyncio.to_thread(shrink_caches, entry.path.parent.parent, self._task.caches_bytes)

    def _entry_of(self, cached: CachedFolder) -> CacheEntry:
        """Return the entry of a folder. Raises _CacheFailed if it cannot be shared, and GiveUp for an unsafe key."""
        if self._task.caches is None:
            raise _CacheFailed("this engine keeps no caches")
        if exists_inside(self._workspace, cached.path):
            raise _CacheFailed("the repository contains it")
        if not exists_inside(self._workspace, cached.key):
            raise _CacheFailed(f"there is no file {cached.key}")
        with open_inside(self._workspace, cached.key) as file:
            content = file_digest(file, "sha256").hexdigest()
        identity = [content, cached, self._setup.setup]
        return CacheEntry(cached, Path(self._task.caches) / sha256(msgspec.json.encode(identity)).hexdigest()[:32])

    async def _restore(self, entry: CacheEntry) -> bool:
        """Copy the entry into the workspace. Return False if there is none."""
        with locked_entry(entry.path, fcntl.LOCK_SH) as exists:
            if not exists:
                return False
            target = create_folder_inside(self._workspace, entry.cached.path)
            try:
                await _copy(entry.path / _CONTENT, target)
            except BaseException:
                await asyncio.to_thread(remove_tree, target)
                raise
            with suppress(OSError):  # a pod can only read the entries of the default branch
                os.utime(entry.path)
        return True

    async def _store(self, entry: CacheEntry) -> None:
        if not (self._workspace / entry.cached.path).is_dir():
            raise _CacheFailed("the setup commands have not made it")
        with open_folder_inside(self._workspace, entry.cached.path) as folder:  # neither it nor a parent is a link
            await self._store_folder(folder, entry)

    async def _store_folder(self, folder: int, entry: CacheEntry) -> None:
        """Store an open folder, in whose place there may be a link to another one by now."""
        size = await self._checked_size(self._workspace / entry.cached.path)
        entry.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._check_room(entry.path.parent, size)
        unfinished = entry.path.parent / f"{_UNFINISHED}{secrets.token_hex(8)}"
        (unfinished / _CONTENT).mkdir(mode=0o700, parents=True)
        try:
            with locked_entry(unfinished, fcntl.LOCK_EX):
                await self._copy_measured(folder, unfinished)
                size = await self._checked_size(unfinished)
                (unfinished / SIZE_FILE).write_text(str(size))
                if not entry.path.exists():  # otherwise another job has just stored it
                    unfinished.rename(entry.path)
        finally:
            await asyncio.to_thread(remove_tree, unfinished)

    async def _copy_measured(self, folder: int, unfinished: Path) -> None:
        """Copy an open folder into an entry, and measure the entry meanwhile.

        The folder may grow: a caller's own image runs beside the cache keeper.
        """
        source = Path(f"/proc/self/fd/{folder}")
        copying = asyncio.create_task(_copy(source, unfinished / _CONTENT, [folder]), name="copy to cache")
        try:
            pause = _MEASURE_SECONDS
            while not (await asyncio.wait([copying], timeout=pause))[0]:
                started = monotonic()
                await self._checked_size(unfinished)
                await self._check_room(unfinished)
                pause = max(_MEASURE_SECONDS, _MEASURE_PAUSE_FACTOR * (monotonic() - started))
            await copying
        finally:
            copying.cancel()
            await asyncio.wait([copying])

    async def _checked_size(self, folder: Path) -> int:
        """Return the size of a folder on the disk. Raises _CacheFailed if it exceeds the limit for all caches."""
        size = await asyncio.to_thread(lambda: sum(sizes_on_disk([folder])))
        if size > self._task.caches_bytes:
            raise _CacheFailed(f"its {size // 2**20} MiB are more than the limit for all caches")
        return size

    async def _check_room(self, folder: Path, size: int = 0) -> None:
        """Raise _CacheFailed if a volume has no room for `size` bytes more.

        As for uploads, this is so before the engine deletes outputs of ended jobs for space. Other jobs may store
        folders at the same time.
        """
        volume = await asyncio.to_thread(shutil.disk_usage, folder)
        default, kept = default_kept_free(volume.total), self._task.kept_free_bytes
        if volume.free - size < default + (default if kept is None else kept):
            raise _CacheFailed("the volume of all caches is nearly full")

    def _log(self, cached: CachedFolder, text: str) -> None:
        self._log_line(f"[cache: {cached.path} {text}]")


async def _copy(source: Path, target: Path, inherited: Collection[int] = ()) -> None:
    """Copy the content of a folder, with its links and modes. No link in it is followed.

    inherited: see `child_process`.
    """
    command = ["cp", "-a", "--", f"{source}/.", str(target)]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    async with child_process(command, target, environment, stderr=STDOUT, inherited=inherited) as process:
        output = await read_tail(process.output)
        if await process.exit_status() != 0:
            raise _CacheFailed(" ".join(output.splitlines()[:1]) or "cp failed")
