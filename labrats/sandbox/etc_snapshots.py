"""Snapshots of /etc for sandboxes: folders with copies of its world-readable files.

A sandbox binds one snapshot in place of some 150 single files, since bubblewrap needs a third of a millisecond for each
bind. All snapshots of an engine are in one folder, each named by the state of /etc that it was copied from. A process
that uses a snapshot holds a shared lock on it, so the kernel knows which ones are in use after any crash.
"""

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Final

from labrats import __version__
from labrats.model.errors import LabratsError
from labrats.processes import boot_id
from labrats.sandbox.bubblewrap import SETTINGS, is_private

MOST_BYTES: Final = 64 * 1024 * 1024
"""Maximum size of a snapshot."""

_LOCK: Final = "lock"
_PATHS: Final = "paths"
"""Name of the file with the paths of the last snapshot. To inspect known paths takes a third of the time of a scan."""

_MOST_TRIES: Final = 5
_TICK_SECONDS: Final = 0.02
"""An upper bound of the resolution of a file's ctime. Two changes within it can leave the same ctime."""

_GONE_OR_DENIED: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM})
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SnapshotFailed(LabratsError):
    """A snapshot of /etc cannot be created or locked."""


@dataclass(frozen=True)
class EtcSnapshots:
    """The snapshots of one engine. folder: their folder. source: the folder to copy."""

    folder: Path
    source: Path = SETTINGS

    @contextmanager
    def current(self) -> Iterator[Path]:
        """Yield a snapshot of the current state. It is retained until the context exits or the process dies.

        Raises SnapshotFailed.
        """
        try:
            descriptor, path = self._lock_current()
        except OSError as error:
            raise SnapshotFailed(f"{error.filename or self.folder}: {error.strerror}") from error
        try:
            yield path
        finally:
            os.close(descriptor)

    def _lock_current(self) -> tuple[int, Path]:
        """Return the current state's snapshot, and a descriptor whose shared lock retains it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = _State.of(self._known_paths())
        with open(self.folder / _LOCK, "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            snapshot = self.folder / state.digest
            if not snapshot.is_dir():
                snapshot = self._create()
            self._remove_others(snapshot)
            return _lock(snapshot, fcntl.LOCK_SH), snapshot

    def _known_paths(self) -> list[str]:
        try:
            return os.fsdecode((self.folder / _PATHS).read_bytes()).split("\0")
        except FileNotFoundError:
            return []

    def _create(self) -> Path:
        """Create the snapshot of the current state."""
        for _ in range(_MOST_TRIES):
            paths = list(_scan(str(self.source)))
            state = _State.of(paths)
            snapshot = self.folder / state.digest
            if snapshot.is_dir():  # another process has created it meanwhile
                return snapshot
            state.wait_until_settled()
            unfinished = Path(tempfile.mkdtemp(dir=self.folder))
            try:
                _Copy(self.source).write(unfinished)
                # The paths are compared, too: a file created between the scan and the state is in none of them.
                if list(_scan(str(self.source))) == paths and _State.of(paths) == state:
                    (self.folder / _PATHS).write_bytes(os.fsencode("\0".join(paths)))
                    return unfinished.rename(snapshot)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        raise SnapshotFailed(f"{self.source} changed during each of {_MOST_TRIES} copies")

    def _remove_others(self, current: Path) -> None:
        """Remove the other snapshots that no process has locked, and what a killed process left unfinished.

        The caller holds the lock of the folder, so no process is about to use one of them.
        """
        for name in set(os.listdir(self.folder)) - {_LOCK, _PATHS, current.name}:
            try:
                descriptor = _lock(self.folder / name, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            try:
                # If this process is killed meanwhile, an incomplete snapshot must not have a valid name.
                removed = (self.folder / name).rename(self.folder / f"removed-{token_hex(8)}")
                shutil.rmtree(removed, ignore_errors=True)  # tried again at the next start of a sandbox
            finally:
                os.close(descriptor)


def _lock(folder: Path, operation: int) -> int:
    """Lock a folder until the returned descriptor is closed. Raises BlockingIOError."""
    descriptor = os.open(folder, _OPEN | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@dataclass(frozen=True)
class _State:
    """The state of files and folders, without reading their content.

    digest:     differs after each change, after a boot and for each version of the engine. A snapshot may be damaged
                by a power failure, and another version may copy differently.
    changed_ns: the time of the last change, in nanoseconds since 1970.
    """

    digest: str
    changed_ns: int

    @classmethod
    def of(cls, paths: Sequence[str]) -> "_State":
        """Return the state of `paths`. A private file counts by its mode only, a missing one by its absence."""
        numbers: list[tuple[int, ...]] = []
        changed_ns = 0
        for path in paths:
            try:
                now = os.lstat(path)
            except OSError:
                numbers.append(())
                continue
            if is_private(now.st_mode):
                numbers.append((now.st_mode,))
                continue
            numbers.append((now.st_dev, now.st_ino, now.st_mode, now.st_size, now.st_mtime_ns, now.st_ctime_ns))
            changed_ns = max(changed_ns, now.st_ctime_ns)
        return cls(sha256(repr((__version__, boot_id(), numbers)).encode()).hexdigest(), changed_ns)

    def wait_until_settled(self) -> None:
        """Wait until a further change gets another ctime, so that it changes the digest, too."""
        if 0 <= time.time() - self.changed_ns / 1e9 < _TICK_SECONDS:
            time.sleep(_TICK_SECONDS)


def _scan(folder: str) -> Iterator[str]:
    """Yield the path of `folder` and of each file and folder below, but not what private folders contain.

    Links are left out: to create, replace or remove a link changes the state of its folder.
    """
    yield folder
    subfolders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    continue
                if entry.is_dir(follow_symlinks=False) and not is_private(entry.stat(follow_symlinks=False).st_mode):
                    subfolders.append(entry.path)
                else:
                    yield entry.path
    except OSError as error:
        if error.errno not in _GONE_OR_DENIED:
            raise
    for subfolder in subfolders:
        yield from _scan(subfolder)


class _Copy:
    """A copy of a folder's world-readable files and folders, and of its links.

    It leaves out what the engine's user cannot read: agents run as this user, so they could not read it either.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self._bytes = 0

    def write(self, target: Path) -> None:
        """Write the copy to `target`, an empty folder. Raises OSError and SnapshotFailed."""
        descriptor = os.open(self._source, _OPEN | os.O_DIRECTORY)
        try:
            self._copy_entries(descriptor, target)
            target.chmod(os.fstat(descriptor).st_mode & 0o777 | stat.S_IRWXU)
        finally:
            os.close(descriptor)

    def _copy_entries(self, folder: int, target: Path) -> None:
        for name in os.listdir(folder):
            try:
                link = os.readlink(name, dir_fd=folder)
            except FileNotFoundError:
                continue
            except OSError:  # EINVAL: it is no link
                self._copy_public(name, folder, target / name)
            else:
                (target / name).symlink_to(link)

    def _copy_public(self, name: str, folder: int, target: Path) -> None:
        """Copy a file or folder, unless it is private."""
        try:
            descriptor = os.open(name, _OPEN, dir_fd=folder)
        except OSError as error:
            if error.errno in _GONE_OR_DENIED:
                return
            raise
        try:
            # The mode of the opened file: the name may denote another file by now.
            mode = os.fstat(descriptor).st_mode
            if is_private(mode):
                return
            if stat.S_ISDIR(mode):
                target.mkdir(mode=0o700)
                self._copy_entries(descriptor, target)
                target.chmod(mode & 0o777 | stat.S_IRWXU)  # otherwise the copy could not be removed
            elif stat.S_ISREG(mode):
                self._copy_content(descriptor, target)
        finally:
            os.close(descriptor)

    def _copy_content(self, descriptor: int, target: Path) -> None:
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MOST_BYTES - self._bytes + 1)
        self._bytes += len(content)
        if self._bytes > MOST_BYTES:
            raise SnapshotFailed(f"{self._source} contains more than {MOST_BYTES // 2**20} MiB")
        mode = os.fstat(descriptor).st_mode
        if is_private(mode):  # it may have been given its private content while it was read
            return
        with open(target, "xb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode & 0o777)
