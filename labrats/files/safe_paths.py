"""Safe access to files in folders that an agent can write to, where a name or a link may lead anywhere.

Nothing but regular files is opened: a pipe would block its reader forever, and a huge file would fill its memory.
The functions that take a root and a name never leave the root: they follow no link, as a repository may contain one
that leads outside.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe opens without blocking
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_OPENED: Final = frozenset({errno.ELOOP, errno.ENXIO})
"""The errors of opening a link and a socket."""


class NotRegularFile(FileNotFoundError):
    """The path exists but is not a regular file. Callers may treat it as missing."""


def open_regular_file(path: Path) -> int:
    """Return a descriptor to read the regular file `path`. Raises NotRegularFile for anything else at that path."""
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except OSError as error:
        if error.errno in _NOT_OPENED:
            raise NotRegularFile(error.errno, "not a regular file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularFile(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Return up to `max_bytes` from the beginning of a regular file. Raises NotRegularFile for anything else."""
    with os.fdopen(open_regular_file(path), "rb") as file:
        return file.read(max_bytes)


def write_new(path: Path, data: bytes) -> None:
    """Replace whatever is at `path` with a new file: a write to a pipe would block, and a link could lead anywhere."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def create_inside(root: Path, name: str) -> BinaryIO:
    """Create or truncate the file `root`/`name`, with the folders that it needs.

    Raises GiveUp when that fails or the name leads outside `root`.
    """
    with _give_up_on_errors("write", name):
        *folders, file_name = _components(name)
        with _folder(root, folders, create=True) as folder:
            file = _open_regular(file_name, _WRITE_FLAGS, folder)
        os.ftruncate(file, 0)
        return os.fdopen(file, "wb")


def write_inside(root: Path, name: str, content: bytes) -> None:
    """Write the file `root`/`name`. Raises GiveUp as create_inside does."""
    with _give_up_on_errors("write", name), create_inside(root, name) as file:
        file.write(content)


def open_inside(root: Path, name: str) -> BufferedReader:
    """Open the file `root`/`name` for reading. Raises GiveUp when that fails or the name leads outside `root`."""
    with _give_up_on_errors("read", name):
        *folders, file_name = _components(name)
        with _folder(root, folders) as folder:
            return os.fdopen(_open_regular(file_name, _READ_FLAGS, folder), "rb")


def create_folder_inside(root: Path, name: str) -> Path:
    """Create the folder `root`/`name`, with those above it. Raises GiveUp as create_inside does, and if it exists."""
    with _give_up_on_errors("create", name):
        *parents, last = _components(name)
        with _folder(root, parents, create=True) as folder:
            os.mkdir(last, dir_fd=folder)
    return root / name


def exists_inside(root: Path, name: str) -> bool:
    """Return whether there is anything at `root`/`name`. A link on the way counts, wherever it leads."""
    place = root
    for component in _components(name):
        place /= component
        if not os.path.lexists(place):
            return False
        if place.is_symlink():
            return True
    return True


@contextlib.contextmanager
def open_folder_inside(root: Path, name: str) -> Iterator[int]:
    """Yield a descriptor of the folder `root`/`name`; an empty name means `root`. Raises GiveUp as open_inside does."""
    with _give_up_on_errors("read", name), _folder(root, _components(name) if name else ()) as folder:
        yield folder


@contextlib.contextmanager
def _give_up_on_errors(verb: str, name: str) -> Iterator[None]:
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
def _folder(root: Path, names: Sequence[str], *, create: bool = False) -> Iterator[int]:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            parent = folder
            folder = _enter(parent, name, create=create)
            os.close(parent)
        yield folder
    finally:
        os.close(folder)


def _enter(parent: int, name: str, *, create: bool) -> int:
    if create:
        with contextlib.suppress(FileExistsError):  # os.open fails below unless it is a folder
            os.mkdir(name, dir_fd=parent)
    return os.open(name, _FOLDER_FLAGS, dir_fd=parent)


def _open_regular(name: str, flags: int, folder: int) -> int:
    file = os.open(name, flags, 0o666, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise GiveUp(FailedCode.WORKSPACE, f"{name!r} is not a regular file")
    return file
