"""Wake-ups for the readers of attempts' outputs, through the kernel's inotify.

A watched folder is not polled: a reader costs nothing while nothing is written, however many readers follow a job.
"""

import asyncio
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from labrats.libc import LIBC

POLL_SECONDS: Final = 0.2
"""Interval at which a reader checks a folder without a watch: it does not exist, or the user has too many watches."""

PAUSE_SECONDS: Final = 0.02
"""Minimum time between two wake-ups of the readers of an attempt, however fast it writes."""

_CREATED_OR_WRITTEN: Final = 0x00000100 | 0x00000002 | 0x00000080  # IN_CREATE | IN_MODIFY | IN_MOVED_TO
_IN_Q_OVERFLOW: Final = 0x00004000
_IN_IGNORED: Final = 0x00008000
_EVENT_HEAD: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_READ_BYTES: Final = 64 * 1024


@dataclass
class _Folder:
    """An attempt's folder with readers.

    watch: inotify's number; None without a watch. timer: set during the pause after a wake-up. written: True if the
    folder was written to during the pause.
    """

    path: Path
    watch: int | None = None
    readers: set[asyncio.Event] = field(default_factory=set)
    timer: asyncio.TimerHandle | None = None
    written: bool = False


class OutputWatch:
    """An inotify instance that watches the folders of all followed attempts."""

    def __init__(self) -> None:
        self._inotify: int | None = None
        self._folders: dict[Path, _Folder] = {}
        self._by_watch: dict[int, _Folder] = {}

    @contextmanager
    def changes_in(self, path: Path) -> Iterator["Changes"]:
        """Follow the folder at `path`, which may not exist yet."""
        folder = self._folders.setdefault(path, _Folder(path))
        changes = Changes(self, folder)
        folder.readers.add(changes.event)
        self.ensure_watch(folder)
        try:
            yield changes
        finally:
            folder.readers.discard(changes.event)
            if not folder.readers:
                self._unwatch(folder)

    def wake(self, path: Path) -> None:
        """Wake the readers of the folder."""
        if folder := self._folders.get(path):
            self._wake(folder)

    def close(self) -> None:
        """Close the inotify instance. Readers continue by polling."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = None
        for folder in self._folders.values():
            folder.watch = None
            self._wake(folder)
        self._by_watch.clear()

    def ensure_watch(self, folder: _Folder) -> bool:
        """Watch the folder if that is possible now. Return whether writes to it wake its readers."""
        if folder.watch is not None:
            return True
        if (inotify := self._opened()) is None:
            return False
        watch: int = LIBC.inotify_add_watch(inotify, os.fsencode(folder.path), _CREATED_OR_WRITTEN)
        if watch < 0:
            return False  # it does not exist yet, or the user has too many watches
        folder.watch, self._by_watch[watch] = watch, folder
        return True

    def _opened(self) -> int | None:
        if self._inotify is None:
            inotify: int = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if inotify < 0:
                return None
            self._inotify = inotify
            asyncio.get_running_loop().add_reader(inotify, self._read)
        return self._inotify

    def _read(self) -> None:
        assert self._inotify is not None
        data = os.read(self._inotify, _READ_BYTES)
        offset, written = 0, set[int]()
        while offset < len(data):
            watch, mask, _, length = _EVENT_HEAD.unpack_from(data, offset)
            offset += _EVENT_HEAD.size + length
            if mask & _IN_Q_OVERFLOW:  # events of any folder may be lost
                written.update(self._by_watch)
            elif mask & _IN_IGNORED:
                self._lose(watch)
            else:
                written.add(watch)
        for watch in written:
            if folder := self._by_watch.get(watch):
                self._wake_or_pause(folder)

    def _lose(self, watch: int) -> None:
        """Wake the readers of a folder that is gone."""
        if folder := self._by_watch.pop(watch, None):
            folder.watch = None
            self._wake(folder)

    def _wake_or_pause(self, folder: _Folder) -> None:
        """Wake the readers of a written folder now, or else at the end of the pause after their last wake-up."""
        if folder.timer:
            folder.written = True
            return
        self._wake(folder)
        folder.timer = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._after_pause, folder)

    def _after_pause(self, folder: _Folder) -> None:
        folder.timer = None
        if folder.written:
            folder.written = False
            self._wake_or_pause(folder)

    def _wake(self, folder: _Folder) -> None:
        for event in folder.readers:
            event.set()

    def _unwatch(self, folder: _Folder) -> None:
        self._folders.pop(folder.path, None)
        if folder.timer:
            folder.timer.cancel()
        if folder.watch is not None and self._inotify is not None:
            LIBC.inotify_rm_watch(self._inotify, folder.watch)
            self._by_watch.pop(folder.watch, None)
            folder.watch = None


class Changes:
    """The changes that one reader waits for. event: set when the folder may have changed."""

    def __init__(self, watch: OutputWatch, folder: _Folder) -> None:
        self._watch, self._folder = watch, folder
        self.event = asyncio.Event()

    async def wait(self) -> None:
        """Return once the folder may have changed since the last call returned. Without a watch, return soon."""
        was_watched = self._folder.watch is not None
        is_watched = self._watch.ensure_watch(self._folder)
        if is_watched and not was_watched:
            return  # inotify does not report earlier writes
        if is_watched:
            await self.event.wait()
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.event.wait(), POLL_SECONDS)
        self.event.clear()
