"""Push the commits of an agent to a branch, from a repository that is made for it and removed afterwards.

The commits come from an agent, so nothing in them is trusted: no hook, filter or configuration of theirs is used, and
git checks every object. The agent never has the token that pushes them.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Final, Self

from labrats.github.client.signer import CannotSign, Signer
from labrats.github.publisher.commit_objects import CommitObject, rewrite_commits
from labrats.github.publisher.git import (
    PORCELAIN,
    TEMPORARY,
    BranchHasOtherCommits,
    CannotPick,
    NotPushed,
    PlaceOfSecret,
    merged_tree,
    run_git,
    short_output,
    start_of_output,
)
from labrats.model.errors import RetryLater
from labrats.model.found_secrets import FoundSecret, digests_in
from labrats.model.protocol import BUNDLE_REF

_COMMIT: Final = re.compile(rb"^-([0-9a-f]{40}|[0-9a-f]{64}) ?", re.MULTILINE)
MOST_COMMITS: Final = 1000
"""The commits of one job that are published. Each of them is read for its message."""

COMMITS_BYTES: Final = 4 * 1024 * 1024
"""Size of all these commits together, without their files. Patterns search their messages, at 3 MiB a second."""

_SEARCHED_BYTES: Final = 8 * 1024 * 1024
"""The start of a file in which the secret is looked for that GitHub has found."""

_MOST_OF_OTHERS: Final = 250
"""Commits on a branch since the agent has started, onto which its commits are picked."""

MOST_PATHS: Final = 100_000
"""The paths that these commits change, counted for each commit."""

_NEW_BRANCH: Final = re.compile(rb"^\*\t", re.MULTILINE)
_THEIRS: Final = "refs/labrats/theirs"
_WORKFLOWS: Final = ".github/workflows/"


@dataclass(frozen=True)
class Commit:
    """A commit of the agent, and the tree with its files."""

    sha: str
    tree: str


@dataclass(frozen=True)
class Change:
    """A changed file. The modes are git's, and `blob` is its new content: zeros where there is no file."""

    path: bytes
    old_mode: str
    mode: str
    blob: str


@dataclass(frozen=True)
class OnBranch:
    """The part of the agent's commits that a branch has. head: its last commit; None without a branch.

    count: the number of the agent's commits, which the branch may have with other ids but has with the same files.
    """

    head: str | None
    count: int


@dataclass(frozen=True)
class Commits:
    """The commits of a bundle, in a temporary repository. base: the commit that they are based on. tip: the last one.

    line:  the commits from base to tip, the oldest first. Of a merge only the first side counts, so that each commit is
           a change of the one before it.
    files: paths that any of the commits changes, also where a later one restores them: all commits are pushed.
    signer:   signs the commits; None if nothing signs them.
    unsigned: the reason why a signer that was asked to could not sign them.
    """

    folder: Path
    url: str
    token: str
    base: str
    tip: str
    line: Sequence[Commit]
    files: Sequence[str]
    signer: Signer | None = None
    unsigned: str | None = None

    @classmethod
    def fetch(
        cls, bundle: bytes, url: str, token: str, known_hosts: Collection[str] = (), signer: Signer | None = None
    ) -> Self:
        """Read a bundle, and fetch the commit that it is based on. Blocks. Raises NotPushed, RetryLater.

        url:         of the repository over HTTP. token: may read and write it.
        known_hosts: hosts to which messages of commits may link.
        """
        head = bundle.partition(b"\n\n")[0]
        prerequisites = _COMMIT.findall(head)
        if len(prerequisites) != 1:
            raise NotPushed("the commits are not based on one commit of the repository")
        base = prerequisites[0].decode()
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}-"))
        except OSError as error:
            raise RetryLater(f"there is no room for a temporary repository: {error.strerror}", 60) from error
        try:
            run_git(folder, ["init", "--quiet", "--bare", "--template=", "repository.git"])
            run_git(folder, [*_IN, "fetch", "--quiet", "--depth=1", "--no-tags", url, base], url, token)
            _unpack(folder, bundle)
            _require_descent(folder, base)
            _require_few(folder, base)
            signer, unsigned = _rewrite(folder, base, known_hosts, signer)
            tip = run_git(folder, [*_IN, "rev-parse", "--verify", BUNDLE_REF]).decode().strip()
            line = _line(folder, [f"{base}..{tip}"])[::-1]
            names = _changed_paths(folder, f"{base}..{tip}")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        files = sorted({name.decode(errors="replace") for name in names if name})
        return cls(folder, url, token, base, tip, line, files, signer, unsigned)

    @property
    def change_workflows(self) -> bool:
        """True if the commits change workflows of GitHub Actions, which needs a permission of its own."""
        return any(name.startswith(_WORKFLOWS) for name in self.files)

    def close(self) -> None:
        """Remove the temporary repository."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def patch(self, most_bytes: int) -> str:
        """Return the start of the changes as a patch."""
        arguments = [*_IN, "diff", "--no-ext-diff", "--no-textconv", "--no-color", self.base, self.tip]
        return start_of_output(self.folder, arguments, most_bytes).decode(errors="replace")

    def remote_head(self, branch: str) -> str | None:
        """Return the last commit of a branch on GitHub; None if the branch does not exist."""
        listed = run_git(self.folder, ["ls-remote", "--heads", self.url, f"refs/heads/{branch}"], self.url, self.token)
        return listed.split()[0].decode() if listed.split() else None

    def find_on(self, branch: str) -> OnBranch:
        """Return how many of the commits a branch has: they are compared by their files, since GitHub makes new ids.

        Raises BranchHasOtherCommits, NotPushed, RetryLater.
        """
        head = self.remote_head(branch)
        if head is None or head == self.base:
            return OnBranch(head, 0)
        if head == self.tip:
            return OnBranch(head, len(self.line))
        depth, refs = len(self.line) + 1, f"+refs/heads/{branch}:{_THEIRS}"
        fetch = [*_IN, "fetch", "--quiet", f"--depth={depth}", "--no-tags", self.url, refs]
        run_git(self.folder, fetch, self.url, self.token)
        theirs = _line(self.folder, [f"--max-count={depth}", _THEIRS])
        made = list(takewhile(lambda commit: commit.sha != self.base, theirs))[::-1]
        is_ours = len(made) < len(theirs) and [each.tree for each in made] == [
            each.tree for each in self.line[: len(made)]
        ]
        if not is_ours:
            raise BranchHasOtherCommits("the branch has commits of others")
        return OnBranch(theirs[0].sha, len(made))

    def picked_onto(self, branch: str) -> Self:
        """Return those of the commits that a branch lacks, picked onto its head, which others have moved.

        The commits at its end that are there already, perhaps picked before, change nothing, and are left out. Equal
        inputs give equal ids. Raises CannotPick, NotPushed, RetryLater.
        """
        depth, refs = len(self.line) + _MOST_OF_OTHERS, f"+refs/heads/{branch}:{_THEIRS}"
        fetch = [*_IN, "fetch", "--quiet", f"--depth={depth}", "--no-tags", self.url, refs]
        run_git(self.folder, fetch, self.url, self.token)
        theirs = _line(self.folder, [f"--max-count={depth}", _THEIRS])
        made = list(takewhile(lambda commit: commit.sha != self.base, theirs))[::-1]
        if not theirs or len(made) == len(theirs):
            raise CannotPick("the commit that the agent started from is not among its last ones")
        pairs = zip(made, self.line, strict=False)
        present = len(list(takewhile(lambda pair: pair[0].tree == pair[1].tree, pairs)))
        head, picked = theirs[0], list[Commit]()
        for number in range(present, len(self.line)):
            after = self._picked(number, (picked or [head])[-1])
            picked += [after] if after else []
        self._require_same_files(head, picked)
        return replace(self, base=head.sha, tip=(picked or [head])[-1].sha, line=picked)

    def _require_same_files(self, head: Commit, picked: Sequence[Commit]) -> None:
        """Raise CannotPick if git has followed renames to files that the policy has not judged."""
        names = set[bytes]()
        for before, after in pairwise([head, *picked]):
            command = [*_IN, "diff-tree", "-r", "-z", "--name-only", "--no-renames", before.tree, after.tree]
            names |= set(run_git(self.folder, command).split(b"\0")[:-1])
        if others := {name.decode(errors="replace") for name in names} - {*self.files}:
            raise CannotPick(f"the new commits have moved changed files, such as to `{min(others)}`")

    def _picked(self, number: int, onto: Commit) -> Commit | None:
        """Return a commit of the line, picked onto another commit; None if it changes nothing there."""
        git, wanted = partial(_in_repository, self.folder), self.line[number]
        before = self.line[number - 1].sha if number else self.base
        found = CommitObject.read(git, wanted.sha)
        # A commit with the files of `onto` after `before` lets git merge with the latter as the common ancestor.
        ours = found.replayed_on(before).with_tree(onto.tree).write(git, None)
        tree = merged_tree(self.folder, _IN, ours, wanted.sha)
        if tree == onto.tree:
            return None
        return Commit(found.replayed_on(onto.sha).with_tree(tree).write(git, self.signer), tree)

    def push(self, branch: str, *, is_new: bool = False) -> tuple[str, bool]:
        """Push to the branch, and never over commits of others. Pushing again changes nothing.

        Return its last commit, and whether this call has certainly created the branch.
        is_new: whether the push must create the branch, and change none that somebody has created meanwhile.
        Raises BranchHasOtherCommits, MustBeVerified, NotPushed, RetryLater.
        """
        try:
            self._push(self.tip, branch, is_new=is_new)
        except BranchHasOtherCommits:
            found = self.find_on(branch)
            if is_new and found.head not in (None, self.tip):  # git repeats a request whose answer was lost
                raise
            tip = self._replayed_on(found)
            if tip != found.head:
                self._push(tip, branch)
            return tip, False
        return self.tip, is_new

    def create_branch(self, branch: str) -> bool:
        """Create a branch with the commit that the agent started from. Raises as `push` does.

        Return False if the branch has that commit, and it is not certain that this call has created it.
        """
        try:
            self._push(self.base, branch, is_new=True)
        except BranchHasOtherCommits:
            if self.remote_head(branch) != self.base:  # git repeats a request whose answer was lost
                raise
            return False
        return True

    def remove_branch(self, branch: str, head: str) -> None:
        """Remove a branch whose last commit is still `head`. Raises NotPushed, RetryLater."""
        lease = f"--force-with-lease=refs/heads/{branch}:{head}"
        command = [*_IN, "push", "--quiet", lease, self.url, f":refs/heads/{branch}"]
        run_git(self.folder, command, self.url, self.token)

    def message(self, commit: Commit) -> str:
        """Return the message of a commit."""
        raw = run_git(self.folder, [*_IN, "cat-file", "commit", commit.sha])
        return raw.partition(b"\n\n")[2].decode(errors="replace").strip()

    def secrets_at(self, places: Sequence[PlaceOfSecret]) -> tuple[FoundSecret, ...]:
        """Return the secrets at places in the commits, with the digests of what is there."""
        return tuple(
            FoundSecret(
                kind=each.kind,
                path=each.path,
                line=each.line,
                commit=each.commit,
                digests=digests_in(self._lines_at(each)),
            )
            for each in places
        )

    def _lines_at(self, place: PlaceOfSecret) -> Sequence[str]:
        """Return the lines of a file from a place on; nothing if the file is too large or missing."""
        command = [*_IN, "cat-file", "blob", f"{place.commit}:{place.path}"]
        content = start_of_output(self.folder, command, _SEARCHED_BYTES).decode(errors="replace")
        return content.split("\n")[place.line - 1 :]

    def changes(self, number: int) -> Sequence[Change]:
        """Return the files that a commit of the line changes. A renamed file is a deletion and an addition."""
        before = self.line[number - 1].tree if number else f"{self.base}^{{tree}}"
        command = [*_IN, "diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index"]
        words = iter(run_git(self.folder, [*command, before, self.line[number].tree]).split(b"\0")[:-1])
        found = ((each.decode().removeprefix(":").split(), next(words)) for each in words)
        return [Change(path, old_mode, mode, blob) for (old_mode, mode, _, blob, *_), path in found]

    def sizes(self, changes: Sequence[Change]) -> Sequence[int]:
        """Return the bytes of the new contents of files."""
        wanted = "".join(f"{change.blob}\n" for change in changes).encode()
        return [int(size) for size in run_git(self.folder, [*_IN, "cat-file", _SIZES], stdin=wanted).split()]

    def contents(self, changes: Sequence[Change]) -> Iterator[bytes]:
        """Yield the new contents of files, which are all read at once."""
        wanted = "".join(f"{change.blob}\n" for change in changes).encode()
        printed, at = run_git(self.folder, [*_IN, "cat-file", "--batch"], stdin=wanted), 0
        while at < len(printed):
            start = printed.index(b"\n", at) + 1
            end = start + int(printed[at:start].split()[-1])
            yield printed[start:end]
            at = end + 1

    def _push(self, commit: str, branch: str, *, is_new: bool = False) -> None:
        options = [PORCELAIN, f"--force-with-lease=refs/heads/{branch}:"] if is_new else ["--quiet"]
        command = [*_IN, "push", *options, self.url, f"{commit}:refs/heads/{branch}"]
        printed = run_git(self.folder, command, self.url, self.token)
        if is_new and not _NEW_BRANCH.search(printed):  # git accepts a branch that has the commit, whatever the lease
            raise BranchHasOtherCommits("the branch exists")

    def _replayed_on(self, found: OnBranch) -> str:
        """Return the last commit after those that a branch lacks are put on its own. Equal inputs give equal ids."""
        git, head = partial(_in_repository, self.folder), found.head or self.base
        for commit in self.line[found.count :]:
            head = CommitObject.read(git, commit.sha).replayed_on(head).write(git, self.signer)
        return head


def remove_leftovers() -> None:
    """Remove the temporary repositories of publishers that were killed, before this process has one. Blocks.

    In a container each publisher has the same process ID.
    """
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError:  # no folder for them can be written to, perhaps as the leftovers fill the disk
        place = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108, only own folders in it are removed
    for folder in Path(place).glob(f"{TEMPORARY}*"):
        pid = folder.name.removeprefix(TEMPORARY).partition("-")[0]
        if pid == str(os.getpid()) or (pid.isdecimal() and not Path("/proc", pid).exists()):
            shutil.rmtree(folder, ignore_errors=True)


_IN: Final = ("--git-dir=repository.git",)
_CHANGED_FILES: Final = ("log", "-m", "--format=", "--name-only", "--no-renames", "--no-show-signature", "-z")
_NAMES_BYTES: Final = 16 * 1024 * 1024
_TOO_MANY_FILES: Final = "the commits change so many files that git cannot list them"
"""A few hundred bytes of a bundle can have billions of files: the same folder many times in itself."""

_IDS_BYTES: Final = 32 * 1024 * 1024
_TOO_MANY_COMMITS: Final = "the agent made so many commits that git cannot list them"

_SIZES: Final = "--batch-check=%(objectsize)"


def _unpack(folder: Path, bundle: bytes) -> None:
    """Store the objects of a bundle, each of which git checks, and its reference. Before 2.46 a fetch checks none."""
    head, _, pack = bundle.partition(b"\n\n")
    tip = re.search(rb"^([0-9a-f]+) " + BUNDLE_REF.encode() + rb"$", head, re.MULTILINE)
    if tip is None:
        raise NotPushed("the bundle has no commits")
    # Each further thread would take memory.
    run_git(folder, [*_IN, "index-pack", "--stdin", "--fix-thin", "--strict", "--threads=1"], stdin=pack)
    run_git(folder, [*_IN, "update-ref", BUNDLE_REF, tip[1].decode()])


def _require_descent(folder: Path, base: str) -> None:
    """Raise NotPushed unless the commits descend from the base. A change to a commit without it would delete files."""
    if run_git(folder, [*_IN, "rev-list", "--max-count=1", base, f"^{BUNDLE_REF}"]):
        raise NotPushed("the commits do not descend from the commit that was cloned")


def _require_few(folder: Path, base: str) -> None:
    """Raise NotPushed if the bundle has too many commits, or too long ones."""
    ids = short_output(folder, [*_IN, "rev-list", f"{base}..{BUNDLE_REF}"], _IDS_BYTES, _TOO_MANY_COMMITS)
    if (count := ids.count(b"\n")) > MOST_COMMITS:
        raise NotPushed(f"the agent made {count} commits, and at most {MOST_COMMITS} are published")
    size = sum(map(int, run_git(folder, [*_IN, "cat-file", _SIZES], stdin=ids).split()))
    if size > COMMITS_BYTES:
        most, found = COMMITS_BYTES // 2**20, -(-size // 2**20)
        raise NotPushed(f"the agent's commits have {found} MiB without their files, and at most {most} are published")


def _changed_paths(folder: Path, commits: str) -> Sequence[bytes]:
    """Return the paths that commits change. Raises NotPushed if these are too many."""
    names = short_output(folder, [*_IN, *_CHANGED_FILES, commits], _NAMES_BYTES, _TOO_MANY_FILES)
    if (count := names.count(b"\0")) > MOST_PATHS:
        raise NotPushed(f"the commits change {count} paths, counted for each, and at most {MOST_PATHS} are published")
    return names.split(b"\0")


def _rewrite(
    folder: Path, base: str, known_hosts: Collection[str], signer: Signer | None
) -> tuple[Signer | None, str | None]:
    """Let the reference of the bundle name commits whose messages have no active parts, signed if possible.

    Return the signer, or the reason why it cannot sign.
    """
    tip = run_git(folder, [*_IN, "rev-parse", "--verify", BUNDLE_REF]).decode().strip()
    git, unsigned = partial(_in_repository, folder), None
    try:
        written = rewrite_commits(git, f"{base}..{tip}", known_hosts, signer)
    except CannotSign as error:
        signer, unsigned = None, str(error)
        written = rewrite_commits(git, f"{base}..{tip}", known_hosts, None)
    if tip in written:
        git(["update-ref", BUNDLE_REF, written[tip]])
    return signer, unsigned


def _in_repository(folder: Path, arguments: Sequence[str], *, stdin: bytes = b"") -> bytes:
    return run_git(folder, [*_IN, *arguments], stdin=stdin)


def _line(folder: Path, revisions: Sequence[str]) -> Sequence[Commit]:
    """Return commits without the further sides of merges, the newest first."""
    listed = run_git(folder, [*_IN, "log", "--first-parent", "--no-show-signature", "--format=%H %T", *revisions])
    return [Commit(*line.split()) for line in listed.decode().splitlines()]
