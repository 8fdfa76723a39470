"""Bare git repositories, with the protection of branches that GitHub has."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

_PERSON: Final = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "Octo"), ("EMAIL", "octo@example.com"), ("DATE", "2026-01-01T12:00:00Z"))
}
_UPDATE_HOOK: Final = """#!/bin/sh
if grep -qxF "$1" protected; then
    echo "error: GH006: Protected branch update failed for $1." >&2
    exit 1
fi
case "$3" in *[!0]*) ;; *) exit 0 ;; esac
if [ -e only-verified ]; then
    unverified=$(git log --format='%H %G? %GS %ce' "$3" --not --all |
        awk '!($2 == "G" && $3 == $4) {print $1}' | grep -vxFf verified)
    if [ -n "$unverified" ]; then
        echo "error: GH013: Repository rule violations found for $1." >&2
        echo "Review all repository rules at https://github.com/octo/demo/rules" >&2
        echo "- Commits must have verified signatures." >&2
        echo "  Found $(echo "$unverified" | wc -l) violation:" >&2
        echo "  $unverified" >&2
        exit 1
    fi
fi
if [ -e push-protection ]; then
    secrets=$(git rev-list "$3" --not --all | while read -r commit; do
        git grep -InE 'ghp_[A-Za-z0-9]{36}' "$commit" | cut -d: -f1-3
    done)
    if [ -n "$secrets" ]; then
        cat >&2 <<END
error: GH013: Repository rule violations found for $1.

- GITHUB PUSH PROTECTION
  —————————————————————————————————————————
    Resolve the following violations before pushing again

    - Push cannot contain secrets


     (?) Learn how to resolve a blocked push
     https://docs.github.com/code-security/secret-scanning/pushing-a-branch-blocked-by-push-protection


      —— GitHub Personal Access Token ——————————————————————
       locations:
$(echo "$secrets" | sed -E 's/^([^:]*):([^:]*):(.*)/         - commit: \\1\\n           path: \\2:\\3/')

       (?) To push, remove secret from commit(s) or follow this URL to allow the secret.
       https://github.com/octo/demo/security/secret-scanning/unblock-secret/30wrXAdc1banfjSNP45cvVLGdBC



END
        exit 1
    fi
fi
case "$2" in *[!0]*) old=$2 ;; *) old=$(git merge-base HEAD "$3" || git hash-object -t tree /dev/null) ;; esac
if [ "$MAY_CHANGE_WORKFLOWS" != yes ] && [ -n "$(git diff --name-only "$old" "$3" -- .github/workflows)" ]; then
    echo "refusing to allow a GitHub App to create or update a workflow without \\`workflows\\` permission" >&2
    exit 1
fi
"""
_HUNK: Final = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)
_STATUSES: Final = {"A": "added", "M": "modified", "D": "removed", "R": "renamed", "T": "changed"}


class GitError(Exception):
    """git refused a command."""


@dataclass(frozen=True)
class ChangedFile:
    """A file of a diff. patch: its hunks, or nothing for a binary file."""

    path: str
    status: str
    additions: int
    deletions: int
    patch: str
    previous: str = ""

    def hunk_of(self, side: str, line: int) -> int | None:
        """Return the number of the hunk that shows a line. side: LEFT or RIGHT."""
        return self._lines(side).get(line)

    def _lines(self, side: str) -> Mapping[int, int]:
        """Return {line: hunk} of all lines that the patch shows on a side."""
        shown: dict[int, int] = {}
        hunk, old, new = 0, 0, 0
        for text in self.patch.splitlines():
            if start := _HUNK.match(text):
                hunk, old, new = hunk + 1, int(start[1]), int(start[3])
                continue
            if text[:1] in ("-", " "):
                shown |= {old: hunk} if side == "LEFT" else {}
                old += 1
            if text[:1] in ("+", " "):
                shown |= {new: hunk} if side == "RIGHT" else {}
                new += 1
        return shown


@dataclass
class BareRepository:
    """A bare repository whose default branch is `main`."""

    folder: Path
    protected: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, folder: Path) -> "BareRepository":
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", folder], check=True, env=_environment())
        repository = cls(folder)
        for key, value in (
            ("http.receivepack", "true"),
            ("uploadpack.allowFilter", "true"),
            ("uploadpack.allowAnySHA1InWant", "true"),
            ("gpg.ssh.allowedSignersFile", str(folder / "signers")),
        ):
            repository.git("config", key, value)
        (folder / "protected").touch()
        (folder / "verified").touch()
        (folder / "signers").touch()
        hook = folder / "hooks" / "update"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(_UPDATE_HOOK)
        hook.chmod(0o755)
        return repository

    def git(self, *arguments: str, stdin: str | bytes = b"", **environment: str) -> str:
        """Run git, and return its output without the last newline. Raises GitError."""
        content = stdin.encode() if isinstance(stdin, str) else stdin
        ended = subprocess.run(
            ["git", "-C", self.folder, *arguments], input=content, capture_output=True, env=_environment() | environment
        )
        if ended.returncode:
            raise GitError(ended.stderr.decode(errors="replace").strip())
        return ended.stdout.decode(errors="replace").removesuffix("\n")

    def commit(
        self, files: Mapping[str, str | bytes | None], branch: str = "main", message: str = "A change", parent: str = ""
    ) -> str:
        """Commit files to a branch, and return the commit. None deletes a file.

        parent: by default the head of the branch, or of main for a new one.
        """
        parent = parent or self.resolve(f"refs/heads/{branch}") or self.resolve("refs/heads/main") or ""
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": f"{scratch}/index"}
            if parent:
                self.git("read-tree", parent, **index)
            for path, content in files.items():
                if content is None:
                    self.git("update-index", "-z", "--index-info", stdin=f"0 {'0' * 40}\t{path}\0", **index)
                    continue
                blob = self.git("hash-object", "-w", "--stdin", stdin=content)
                self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", **index)
            tree = self.git("write-tree", **index)
        parents = ["-p", parent] if parent else []
        commit = self.git("commit-tree", tree, *parents, "-m", message, **_PERSON)
        self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def protect(self, branch: str) -> None:
        """Refuse pushes to a branch, and updates by the API."""
        self.protected.append(f"refs/heads/{branch}")
        (self.folder / "protected").write_text("".join(f"{ref}\n" for ref in self.protected))

    def refuse_non_fast_forward(self) -> None:
        self.git("config", "receive.denyNonFastForwards", "true")

    def demand_verified_commits(self) -> None:
        """Refuse pushes with new commits whose signature GitHub cannot verify."""
        (self.folder / "only-verified").touch()

    def protect_from_secrets(self) -> None:
        """Refuse pushes, and commits by the API, with tokens of GitHub."""
        (self.folder / "push-protection").touch()

    def finds_secrets(self, contents: Iterable[bytes]) -> bool:
        """Return whether GitHub refuses files with these contents."""
        is_protected = (self.folder / "push-protection").exists()
        return is_protected and any(re.search(rb"ghp_[A-Za-z0-9]{36}", each) for each in contents)

    def add_signing_key(self, email: str, public_key: str) -> None:
        """Let an account with an email address have a key for signatures."""
        with (self.folder / "signers").open("a") as signers:
            signers.write(f"{email} {public_key}\n")

    def verified(self, revision: str) -> bool:
        """Return whether GitHub has signed a commit, or knows its signature as one of its committer."""
        if self.resolve(revision) in (self.folder / "verified").read_text().split():
            return True
        result, signer, committer = self.git("log", "-1", "--format=%G?%n%GS%n%ce", revision).split("\n")
        return result == "G" and signer == committer

    def commit_by_github(
        self, branch: str, parent: str, additions: Mapping[str, bytes], deletions: list[str], message: str, author: str
    ) -> str | None:
        """Commit to a branch as GitHub's API does; every added file is an ordinary one. Return the commit.

        Return None, and change nothing, if the branch has another head than `parent`. Raises GitError.
        """
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": f"{scratch}/index"}
            self.git("read-tree", parent, **index)
            for path in deletions:
                self.git("cat-file", "-e", f"{parent}:{path}")
                self.git("update-index", "-z", "--index-info", stdin=f"0 {'0' * 40}\t{path}\0", **index)
            for path, content in additions.items():
                blob = self.git("hash-object", "-w", "--stdin", stdin=content)
                self.git("update-index", "--add", "--replace", "--cacheinfo", f"100644,{blob},{path}", **index)
            tree = self.git("write-tree", **index)
        committer = {"GIT_COMMITTER_NAME": "GitHub", "GIT_COMMITTER_EMAIL": "noreply@github.com"}
        identity = _PERSON | committer | {"GIT_AUTHOR_NAME": author}
        commit = self.git("commit-tree", tree, "-p", parent, "-F", "-", stdin=message, **identity)
        try:
            self.git("update-ref", f"refs/heads/{branch}", commit, parent)
        except GitError:
            return None
        with (self.folder / "verified").open("a") as verified:
            verified.write(f"{commit}\n")
        return commit

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a revision, or None."""
        try:
            return self.git("rev-parse", "--verify", "-q", "--end-of-options", f"{revision}^{{commit}}")
        except GitError:
            return None

    def is_ancestor(self, older: str, newer: str) -> bool:
        try:
            self.git("merge-base", "--is-ancestor", older, newer)
        except GitError:
            return False
        return True

    def text_of(self, revision: str, path: str) -> str:
        """Return a file's content. Raises GitError where there is none."""
        return self.git("show", f"{revision}:{path}")

    def commits(self, base: str, head: str) -> list[str]:
        """Return the commits of `head` that `base` does not have, the oldest first."""
        return self.git("rev-list", "--reverse", head, f"^{base}").split()

    def changed_files(self, base: str, head: str) -> tuple[ChangedFile, ...]:
        """Return the files that differ between a head and its merge base with another commit."""
        return _changed_files(self.folder, base, head)

    def moved_line(self, path: str, line: int, older: str, newer: str) -> int | None:
        """Return the number of a line in a newer commit; None when it has changed."""
        shift = 0
        for hunk in _HUNK.finditer(self.git("diff", "--no-ext-diff", "-U0", older, newer, "--", path)):
            start, removed, added = int(hunk[1]), int(hunk[2] or 1), int(hunk[4] or 1)
            if start <= line < start + removed:
                return None
            shift += added - removed if line >= start + max(removed, 1) else 0
        return line + shift


@lru_cache(maxsize=1000)
def _changed_files(folder: Path, base: str, head: str) -> tuple[ChangedFile, ...]:
    repository = BareRepository(folder)
    span = f"{base}...{head}"
    words = iter(repository.git("diff", "--no-ext-diff", "-M", "--name-status", "-z", span).split("\0"))
    found = []
    for status in words:
        if not status:
            continue
        previous = next(words) if status.startswith("R") else ""
        path = next(words)
        diff = repository.git("diff", "--no-ext-diff", "-M", span, "--", path, *([previous] if previous else []))
        patch = diff[start.start() :] if (start := _HUNK.search(diff)) else ""
        added = sum(line.startswith("+") for line in patch.splitlines())
        deleted = sum(line.startswith("-") for line in patch.splitlines())
        found.append(ChangedFile(path, _STATUSES[status[0]], added, deleted, patch, previous))
    return tuple(found)


def _environment() -> dict[str, str]:
    """Return an environment in which no configuration of the machine counts."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


def advertise(repository: BareRepository, service: str, protocol: str) -> bytes:
    """Return the refs of a repository as the smart protocol announces them."""
    line = f"# service=git-{service}\n"
    head = b"" if protocol == "version=2" else f"{len(line) + 4:04x}{line}0000".encode()
    return head + run_service(repository, service, b"", protocol, "--advertise-refs")


def run_service(
    repository: BareRepository, service: str, request: bytes, protocol: str, *options: str, workflows: bool = False
) -> bytes:
    environment = _environment() | {"MAY_CHANGE_WORKFLOWS": "yes" if workflows else "no"}
    if protocol:
        environment["GIT_PROTOCOL"] = protocol
    program = ["git", service, "--stateless-rpc", *options, str(repository.folder)]
    return subprocess.run(program, input=request, capture_output=True, env=environment).stdout
