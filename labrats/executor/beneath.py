"""Writes files under names that others chose, and never outside the folder they are meant for."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def open_beneath(root: Path, name: str) -> BinaryIO:
    """Create or truncate `root`/`name`, with the folders it needs. Raises GiveUp when it cannot, or would leave `root`.

    No link is followed on the way: a repository may bring one that leads outside.
    """
    *folders, file_name = _components(name)
    try:
        folder = _open_folder(root, folders)
        try:
            return os.fdopen(os.open(file_name, _FILE_FLAGS, 0o666, dir_fd=folder), "wb")
        finally:
            os.close(folder)
    except OSError as error:
        raise GiveUp(FailedCode.WORKSPACE, f"cannot write {name!r} in the workspace: {error.strerror}") from error


def write_beneath(root: Path, name: str, content: bytes) -> None:
    """Write the file `root`/`name`. Raises GiveUp, as open_beneath does."""
    with open_beneath(root, name) as file:
        file.write(content)


def _components(name: str) -> Sequence[str]:
    components = name.split("/")
    if "\0" in name or any(component in ("", ".", "..") for component in components):
        raise GiveUp(FailedCode.WORKSPACE, f"{name!r} is not a path inside the workspace")
    return components


def _open_folder(root: Path, folders: Sequence[str]) -> int:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in folders:
        parent = folder
        try:
            folder = _enter(parent, name)
        finally:
            os.close(parent)
    return folder


def _enter(parent: int, name: str) -> int:
    with contextlib.suppress(FileExistsError):  # opening it tells whether it is a folder
        os.mkdir(name, dir_fd=parent)
    return os.open(name, _FOLDER_FLAGS, dir_fd=parent)
