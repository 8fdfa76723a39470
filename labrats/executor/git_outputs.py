"""Find the branch, commit and pull request that an attempt has created."""

import re
from pathlib import Path
from typing import Final

from labrats.files.safe_paths import open_inside
from labrats.model.errors import GiveUp
from labrats.model.job import Outputs

_READ_BYTES: Final = 1_000_000
_BRANCH: Final = re.compile(r"ref: refs/heads/([^\x00-\x20\x7f~^:?*\[\\]{1,200})\n?")
_PULL_REQUEST: Final = re.compile(
    r"https?://[\w.:-]+/[\w./~-]{1,200}/(pull|pulls|merge_requests|pull-requests)/\d{1,12}"
)
_COMMIT: Final = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\n?")


def read_head(workspace: Path) -> Outputs:
    """Return the branch and commit that are checked out in `workspace`, as far as they can be determined.

    They are read from files, since git would apply the repository's configuration, which the agent can change. No link
    is followed: it could lead to files outside that the agent may not read, such as one with a key of 64 digits.
    """
    head = _read(workspace, ".git/HEAD")
    if commit := _COMMIT.fullmatch(head):
        return Outputs(commit=commit[1])
    branch = _BRANCH.fullmatch(head)
    if branch is None or ".." in branch[1] or branch[1].startswith("refs/"):
        return Outputs()
    commit = _COMMIT.fullmatch(_read(workspace, f".git/refs/heads/{branch[1]}")) or re.search(
        rf"^([0-9a-f]{{40,64}}) refs/heads/{re.escape(branch[1])}$", _read(workspace, ".git/packed-refs"), re.MULTILINE
    )
    return Outputs(branch=branch[1], commit=commit[1]) if commit else Outputs()


def read_ref(git_dir: Path, ref: str) -> str | None:
    """Return the commit of a ref in the engine's own repository; None without one."""
    commit = _COMMIT.fullmatch(_read(git_dir, ref))
    return commit[1] if commit else None


def find_pull_request(tool_output: str) -> str | None:
    """Return the URL of a pull request in the last line of a tool's output, as tools that open one print it."""
    last_line = tool_output.rstrip().rpartition("\n")[2].strip()
    return last_line if _PULL_REQUEST.fullmatch(last_line) else None


def belongs_to_repository(pull_request: str, clone_url: str) -> bool:
    """Return whether `pull_request` belongs to the repository that is cloned from `clone_url`."""
    is_plain = not {".", ".."} & set(pull_request.split("/"))
    return is_plain and pull_request.startswith(f"{clone_url.removesuffix('.git').rstrip('/')}/")


def _read(root: Path, name: str) -> str:
    """Return the start of the plain file `root`/`name`, or an empty string if there is none."""
    try:
        with open_inside(root, name) as file:
            return file.read(_READ_BYTES).decode("utf-8", "replace")
    except (GiveUp, OSError):
        return ""
