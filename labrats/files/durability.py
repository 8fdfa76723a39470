"""Writes to stable storage, which survive a power cut."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until the content of a file, or the entries of a folder, are on stable storage."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace the content of a file atomically, and wait until it is on stable storage.

    mode: permissions of the new file, from which the umask may remove some.
    """
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)  # a pipe, such as an agent may leave, would block
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
