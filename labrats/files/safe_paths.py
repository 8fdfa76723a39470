"""Reads and writes files under names that others chose, and never outside the folder they are meant for.

No link is followed on the way: a repository may bring one that leads outside. Nothing but plain files is opened: a pipe
would hold the executor up, and a device is none of its business.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_beneath(root: Path, name: str) -> BinaryIO:
    """Create or truncate `root`/`name`, with the folders it needs.

    Raises GiveUp when it cannot, or would leave `root`.
    """
    with _failures_of("write", name):
        *folders, file_name = _components(name)
        with _folder(root, folders, make=True) as folder:
            file = _open_plain(file_name, _WRITE_FLAGS, folder)
        os.ftruncate(file, 0)
        return os.fdopen(file, "wb")


def write_beneath(root: Path, name: str, content: bytes) -> None:
    """Write the file `root`/`name`. Raises GiveUp, as open_beneath does."""
    with _failures_of("write", name), open_beneath(root, name) as file:
        file.write(content)


def open_to_read(root: Path, name: str) -> BinaryIO:
    """Open the file `root`/`name`. Raises GiveUp when it cannot, or would leave `root`."""
    with _failures_of("read", name):
        *folders, file_name = _components(name)
        with _folder(root, folders) as folder:
            return os.fdopen(_open_plain(file_name, _READ_FLAGS, folder), "rb")


@contextlib.contextmanager
def folder_beneath(root: Path, name: str) -> Iterator[int]:
    """A descriptor of the folder `root`/`name`; an empty name is `root` itself. Raises GiveUp as open_to_read does."""
    with _failures_of("read", name), _folder(root, _components(name) if name else ()) as folder:
        yield folder


@contextlib.contextmanager
def _failures_of(verb: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GiveUp(FailedCode.WORKSPACE, f"cannot {verb} {name!r} in the workspace: {error.strerror}") from error


def _components(name: str) -> Sequence[str]:
    components = name.split("/")
    if "\0" in name or any(component in ("", ".", "..") for component in components):
        raise GiveUp(FailedCode.WORKSPACE, f"{name!r} is not a path inside the workspace")
    return components


@contextlib.contextmanager
def _folder(root: Path, names: Sequence[str], *, make: bool = False) -> Iterator[int]:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            parent = folder
            folder = _enter(parent, name, make=make)
            os.close(parent)
        yield folder
    finally:
        os.close(folder)


def _enter(parent: int, name: str, *, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError):  # opening it tells whether it is a folder
            os.mkdir(name, dir_fd=parent)
    return os.open(name, _FOLDER_FLAGS, dir_fd=parent)


def _open_plain(name: str, flags: int, folder: int) -> int:
    file = os.open(name, flags, 0o666, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise GiveUp(FailedCode.WORKSPACE, f"{name!r} is no plain file")
    return file
