"""Detection of PDF files."""

from pathlib import Path
from typing import Final

HEAD_BYTES: Final = 1024
"""The position until which the magic number may occur: some writers put a few bytes before it."""

_MARK: Final = b"%PDF-"


def begins_as_pdf(head: bytes) -> bool:
    """Return whether a file with this beginning is a PDF. head: at least HEAD_BYTES, or the whole file."""
    return _MARK in head[:HEAD_BYTES]


def is_pdf(path: Path) -> bool:
    """Return whether the content of the file at `path` is a PDF. Raises OSError."""
    with open(path, "rb") as file:
        return begins_as_pdf(file.read(HEAD_BYTES))
