"""What a PDF is known by."""

from pathlib import Path
from typing import Final

HEAD_BYTES: Final = 1024
"""Where the mark is, at the latest: some writers put a few bytes before it."""

_MARK: Final = b"%PDF-"


def begins_as_pdf(head: bytes) -> bool:
    """Whether a file that begins so, for at least HEAD_BYTES or all of it, is a PDF."""
    return _MARK in head[:HEAD_BYTES]


def is_pdf(path: Path) -> bool:
    """Whether the file at `path` is a PDF by what is in it. Raises OSError."""
    with open(path, "rb") as file:
        return begins_as_pdf(file.read(HEAD_BYTES))
