"""Forces what was written to stable storage, where it survives a power cut."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until the contents of a file, or the names in a folder, are on stable storage."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
