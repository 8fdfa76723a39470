"""A simulated disk for SQLite that can lose power, fill up and fail."""

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import apsw

SECTOR_BYTES: Final = 512

_REAL_DISK: Final = "unix"


class Call(StrEnum):
    """The calls that SQLite makes to a disk."""

    READ = "read"
    WRITE = "write"
    SYNC = "sync"


@dataclass(frozen=True)
class Written:
    """A write of data at an offset of a file."""

    offset: int
    data: bytes

    def apply(self, content: bytearray) -> None:
        content.extend(bytes(max(0, self.offset - len(content))))
        content[self.offset : self.offset + len(self.data)] = self.data


@dataclass(frozen=True)
class Truncated:
    """A change of a file's size."""

    size: int

    def apply(self, content: bytearray) -> None:
        content.extend(bytes(max(0, self.size - len(content))))
        del content[self.size :]


@dataclass
class _File:
    """synced: the content that survives a power cut; None if not even the name does. unsynced: the changes since."""

    synced: bytes | None
    unsynced: list[Written | Truncated] = field(default_factory=list)

    def after(self, changes: Sequence[Written | Truncated]) -> bytes | None:
        if self.synced is None and not changes:
            return None
        content = bytearray(self.synced or b"")
        for change in changes:
            change.apply(content)
        return bytes(content)


@dataclass
class _Failure:
    """The error of a call after a number of successful ones."""

    error: type[apsw.Error]
    calls_until: int


class Disk(apsw.VFS):
    """SQLite's default VFS while it is registered. It uses real files and tracks what a power cut would leave of them.

    A failed sync loses the data that it should have synced, as on Linux, although reads still return it. The removal of
    a file is unsynced until its folder is synced, which SQLite does when it first syncs a new file.

    syncs: the number of successful ones. has_waiter: set when a connection first waits for the lock of another.
    """

    def __init__(self) -> None:
        super().__init__("labrats-test-disk", _REAL_DISK, makedefault=True)
        self.syncs = 0
        self.has_waiter = threading.Event()
        self._lock = threading.RLock()  # SQLite calls from the event loop and from the writer's thread
        self._files: dict[str, _File] = {}
        self._removed: dict[str, bytes] = {}
        self._failing: dict[Call, _Failure] = {}
        self._random = random.Random(0)
        self._calls_until_cut: int | None = None
        self._state_after_cut: dict[str, bytes | None] | None = None

    @contextmanager
    def failing(self, call: Call, error: type[apsw.Error], after: int = 0) -> Iterator[None]:
        """Let every `call` raise `error`, except the first `after` of them."""
        self._failing[call] = _Failure(error, after)
        try:
            yield
        finally:
            del self._failing[call]

    def cut_power_after(self, calls: int, seed: int) -> None:
        """Cut the power in the middle of a write or sync, after `calls` more of them.

        `seed` determines which of the unsynced writes have reached the disk, and which of them in part.
        """
        self._random = random.Random(seed)
        self._calls_until_cut = calls

    @property
    def has_power(self) -> bool:
        return self._state_after_cut is None

    def power_on(self) -> None:
        """Restore the files to the state after the power cut. No connection may have them open."""
        assert self._state_after_cut is not None, "the power is on"
        for name, content in self._state_after_cut.items():
            if content is None:
                Path(name).unlink(missing_ok=True)
            else:
                Path(name).write_bytes(content)
            Path(f"{name}-shm").unlink(missing_ok=True)  # it stands for shared memory
        self._files.clear()
        self._removed.clear()
        self._state_after_cut = None

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        if name is None:
            return apsw.VFSFile(_REAL_DISK, name, flags)  # a temporary file
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        with self._lock:
            is_new = not os.path.exists(path)
            opened = _OpenFile(self, path, name, flags)
            if path not in self._files:
                self._files[path] = _File(synced=None if is_new else Path(path).read_bytes())
            return opened

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        with self._lock:
            self._check_power()
            super().xDelete(name, syncdir)
            removed = self._files.pop(name, None)
            if removed and removed.synced is not None:
                self._removed[name] = removed.synced
            if syncdir:
                self._removed.clear()

    def xSleep(self, microseconds: int) -> int:  # noqa: N802
        self.has_waiter.set()
        return super().xSleep(microseconds)

    def read(self, perform: Callable[[], bytes]) -> bytes:
        with self._lock:
            self._check(Call.READ)
            return perform()

    def write(self, path: str, change: Written | Truncated, perform: Callable[[], None]) -> None:
        with self._lock:
            self._check(Call.WRITE)
            self._files[path].unsynced.append(change)
            self._count_down_to_cut()
            perform()

    def sync(self, path: str, perform: Callable[[], None]) -> None:
        with self._lock:
            file = self._files[path]
            try:
                self._check(Call.SYNC)
            except apsw.Error:
                file.unsynced.clear()
                raise
            self._count_down_to_cut()
            perform()
            self.syncs += 1
            if file.synced is None:
                self._removed.clear()
            file.synced = file.after(file.unsynced) or b""
            file.unsynced.clear()

    def _check(self, call: Call) -> None:
        self._check_power()
        if (failure := self._failing.get(call)) is None:
            return
        failure.calls_until -= 1
        if failure.calls_until < 0:
            raise failure.error(f"injected failure of a {call}")

    def _check_power(self) -> None:
        if not self.has_power:
            raise apsw.IOError("the power is off")

    def _count_down_to_cut(self) -> None:
        if self._calls_until_cut is None:
            return
        if self._calls_until_cut == 0:
            self._calls_until_cut = None
            self._state_after_cut = self._draw_state_after_cut()
            raise apsw.IOError("the power fails")
        self._calls_until_cut -= 1

    def _draw_state_after_cut(self) -> dict[str, bytes | None]:
        share = self._random.choice([0.0, 0.5, 0.9])  # of the unsynced changes that survive; 0.0 is the worst case
        restored = {path: content for path, content in self._removed.items() if self._random.random() >= share}
        return restored | {
            path: file.after(self._survivors(file.unsynced, share)) for path, file in self._files.items()
        }

    def _survivors(self, changes: Sequence[Written | Truncated], share: float) -> Sequence[Written | Truncated]:
        return [self._maybe_torn(change) for change in changes if self._random.random() < share]

    def _maybe_torn(self, change: Written | Truncated) -> Written | Truncated:
        """Return the change itself, or only the first sectors of a write."""
        if isinstance(change, Truncated) or self._random.random() < 0.7:
            return change
        sectors = self._random.randrange(len(change.data) // SECTOR_BYTES + 1)
        return replace(change, data=change.data[: sectors * SECTOR_BYTES])


class _OpenFile(apsw.VFSFile):
    """A file on the disk that one connection has open."""

    def __init__(self, disk: Disk, path: str, name: str | apsw.URIFilename, flags: list[int]) -> None:
        super().__init__(_REAL_DISK, name, flags)
        self._disk = disk
        self._path = path

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return self._disk.read(lambda: super(_OpenFile, self).xRead(amount, offset))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.write(self._path, Written(offset, bytes(data)), lambda: super(_OpenFile, self).xWrite(data, offset))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.write(self._path, Truncated(newsize), lambda: super(_OpenFile, self).xTruncate(newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.sync(self._path, lambda: super(_OpenFile, self).xSync(flags))
