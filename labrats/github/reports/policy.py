"""The policy on changes that are pushed to a repository."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Final

from labrats.model.report import PublishPolicy

_LONGEST_PATH: Final = 4096

_WILDCARD: Final = re.compile(r"(?P<folders>(?:^|(?<=/))\*\*/)|\*\*+/?")
"""The wildcards of a glob that match across folders."""


def reason_to_refuse(policy: PublishPolicy, files: Sequence[str], size: int) -> str | None:
    """Return why changes must not be pushed, as a sentence; None if they may.

    files: paths of the changed files, also of those that a later commit restores. size: bytes of the bundle.
    """
    if len(files) > policy.max_files:
        return f"the changes concern {len(files)} files; policy.maxFiles is {policy.max_files}"
    max_kib = policy.max_kib if policy.former_max_kib is None else policy.former_max_kib
    if size > max_kib * 1024:
        return f"the commits have {size // 1024} KiB; policy.maxKiB is {max_kib}"
    return None


def protected_among(policy: PublishPolicy, files: Sequence[str]) -> list[str]:
    """Return the changed files that the policy protects. Upper and lower case count as equal.

    Paths that no system can check out are among them.
    """
    patterns = [_pattern(glob) for glob in policy.protected_files.paths]
    return [file for file in files if len(file) > _LONGEST_PATH or any(pattern.fullmatch(file) for pattern in patterns)]


def allowed_labels(policy: PublishPolicy, proposed: Sequence[str]) -> list[str]:
    """Return the proposed labels that the policy allows. Upper and lower case count as equal."""
    globs = [glob.lower() for glob in policy.labels]
    return [label for label in proposed if any(fnmatchcase(label.lower(), glob) for glob in globs)]


@cache
def _pattern(glob: str) -> re.Pattern[str]:
    """Return the expression for a glob of files or folders, as in .gitignore.

    A glob without a slash, other than at its end, matches in every folder. A folder's glob matches all files in it, and
    what takes its place, such as a link to another folder. `folder/**` means the same.
    """
    text = glob if "/" in glob.rstrip("/") else f"**/{glob}"
    text, expression, end = text.strip("/"), "", 0
    while text.endswith("/**"):
        text = text.removesuffix("/**")
    for found in _WILDCARD.finditer(text):
        # Without the atomic groups (`?>`), all places of all parts are tried, which takes hours with a long path. The
        # first place of a part is the best one for those behind it.
        expression = f"(?>{expression}{_within_folders(text[end : found.start()])})"
        expression += "(?:[^/]*/)*?" if found["folders"] else ".*?"
        end = found.end()
    return re.compile(expression + _within_folders(text[end:], at_end=True), re.IGNORECASE | re.DOTALL)


def _within_folders(glob: str, *, at_end: bool = False) -> str:
    """Return the expression for a part of a glob without `**`. at_end: whether a file or folder ends with it."""
    first, *others = [re.escape(text).replace(r"\?", "[^/]") for text in glob.split("*")]
    if not at_end:
        return first + "".join(f"(?>[^/]*?{text})" for text in others)
    end = f"[^/]*{others.pop()}" if others else ""
    return first + "".join(f"(?>[^/]*?{text})" for text in others) + end + "(?:/.*)?"
