"""Checks of the names that callers give to files in a workspace."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from labrats.model.errors import Invalid, Problem
from labrats.model.outside_text import INVISIBLE

_INVISIBLE: Final = re.compile(rf"[{INVISIBLE}\u00a0\u2000-\u200a\u202f\u205f\u2800\u3000\ufe00-\ufe0f]")
"""Characters that people cannot see or cannot distinguish from a space, or that change the look of others."""

_NOT_PRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of control, format and unassigned characters, and of line ends."""


def why_unsafe(name: str) -> str | None:
    """Return why `name` cannot be the path of a file in the workspace; None if it can."""
    parts = name.split("/")
    if not name or len(name.encode()) > 1024 or any(len(part.encode()) > 255 for part in parts):
        return "must be 1 to 1024 bytes long, and each part of it at most 255"
    if any(ord(character) < 32 or ord(character) == 127 for character in name) or "\\" in name:
        return "must not contain control characters or backslashes"
    if _INVISIBLE.search(name) or any(unicodedata.category(character) in _NOT_PRINTABLE for character in name):
        return "must not contain invisible characters, or characters that change the direction of text"
    if any(part in ("", ".", "..") for part in parts):
        return "must be a relative path inside the workspace, without `.`, `..` or empty parts"
    if any(part.lower() == ".git" for part in parts):
        return "must not lie in .git"
    return None


def check_distinct(names: Iterable[tuple[str, str]]) -> None:
    """Raise Invalid if two names are equal except for their case, or one is a folder of another.

    names: pairs of the name's field and the name.
    """
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for field, name in names:
        path = PurePosixPath(name.lower())
        parents = set(path.parents)
        if path in files or path in folders or parents & files:
            raise Invalid(Problem(field, "is already the name or folder of another file of this job"))
        files.add(path)
        folders |= parents
