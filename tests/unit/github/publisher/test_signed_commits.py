"""Commits that GitHub's API cannot create are pushed as they are, with the reason."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from labrats.github.client.access import Access
from labrats.github.publisher import branch
from labrats.github.publisher.branch import Commits
from labrats.github.publisher.git import BranchHasOtherCommits, NotPushed
from labrats.github.publisher.signed_commits import MOST_BYTES, MOST_COMMITS, place_on_branch
from labrats.model.protocol import BUNDLE_REF

IDENTITY = {f"GIT_{role}_{key}": "test" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
NO_ACCESS = cast("Access", None)
"""Nothing is asked of GitHub's API in these tests."""


@pytest.fixture
def anyio_backend() -> str:
    """The ordinary event loop, since git runs in threads."""
    return "asyncio"


def git(folder: Path, *arguments: str | bytes) -> str:
    environment = os.environ | IDENTITY | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    run = subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    return run.stdout.decode().strip()


def commit_all(checkout: Path) -> None:
    git(checkout, "add", "--all")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "A change")


def too_large(checkout: Path) -> None:
    (checkout / "large.bin").write_bytes(bytes(MOST_BYTES + 1))
    commit_all(checkout)


def too_many(checkout: Path) -> None:
    for _ in range(MOST_COMMITS + 1):
        commit_all(checkout)


def no_longer_executable(checkout: Path) -> None:
    (checkout / "run.sh").chmod(0o644)
    commit_all(checkout)


def submodule(checkout: Path) -> None:
    git(checkout, "update-index", "--add", "--cacheinfo", f"160000,{git(checkout, 'rev-parse', 'HEAD')},module")
    git(checkout, "commit", "-q", "-m", "Add a submodule")


def unreadable_name(checkout: Path) -> None:
    Path(os.fsdecode(os.fsencode(checkout) + b"/\xff")).write_text("x")
    commit_all(checkout)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (too_large, "GitHub is asked to sign 25 MiB a commit, and one has 26 MiB"),
        (too_many, "GitHub is asked to sign 50 commits at most, and these are 51"),
        (no_longer_executable, "`run.sh` was executable before"),
        (submodule, "`module` is a submodule"),
        (unreadable_name, "has a name that is not UTF-8"),
    ],
)
async def test_a_commit_that_the_api_cannot_create_is_pushed(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    origin, checkout, bundle = changed(tmp_path, change)
    commits = Commits.fetch(bundle, str(origin), "")
    try:
        placed = await place_on_branch(NO_ACCESS, commits, "work", set(), sign=True)
    finally:
        commits.close()
    (refused,) = placed.refused
    assert reason in refused
    assert refused.endswith("so the commits were pushed without a signature")
    assert git(origin, "rev-parse", "refs/heads/work") == placed.head == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("sign", [False, True], ids=["pushed", "signed"])
async def test_a_branch_that_somebody_has_created_meanwhile_stays_as_it_is(tmp_path: Path, sign: bool) -> None:
    origin, _, bundle = changed(tmp_path, commit_all)
    before = git(origin, "rev-parse", "refs/heads/main")
    commits = Commits.fetch(bundle, str(origin), "")
    try:
        with pytest.raises(BranchHasOtherCommits):
            await place_on_branch(NO_ACCESS, commits, "main", set(), sign=sign, is_new=True)
        assert not commits.create_branch("main")
    finally:
        commits.close()
    assert git(origin, "rev-parse", "refs/heads/main") == before


async def test_commits_that_do_not_descend_from_the_cloned_one_are_refused(tmp_path: Path) -> None:
    """Their changes are not what they add: on a branch, files would be missing that no commit has removed."""
    origin, checkout, _ = changed(tmp_path, commit_all)
    base = git(origin, "rev-parse", "refs/heads/main")
    git(checkout, "rm", "-q", "--cached", "run.sh")
    git(checkout, "update-ref", BUNDLE_REF, git(checkout, "commit-tree", git(checkout, "write-tree"), "-m", "Orphan"))
    git(checkout, "bundle", "create", "-q", "orphan", BUNDLE_REF)
    first, rest = (checkout / "orphan").read_bytes().split(b"\n", 1)
    with pytest.raises(NotPushed, match="do not descend from the commit that was cloned"):
        Commits.fetch(b"%b\n-%b \n%b" % (first, base.encode(), rest), str(origin), "")


def with_a_long_message(checkout: Path) -> None:
    message = checkout.with_name("message")
    message.write_text("@octocat " * 600_000)
    git(checkout, "commit", "-q", "--allow-empty", "-F", str(message))


def with_a_folder_in_itself(checkout: Path) -> None:
    """Add 200,000 files in two folders' objects, and remove them again."""
    blob, tree = git(checkout, "rev-parse", "HEAD:run.sh"), git(checkout, "rev-parse", "HEAD^{tree}")
    kind, many = f"100644 blob {blob}", ""
    for _ in range(2):
        listed = checkout.with_name("listed")
        listed.write_text("".join(f"{kind}\t{number:03}\n" for number in range(450)))
        with listed.open() as lines:
            many = subprocess.check_output(["git", "mktree"], cwd=checkout, stdin=lines, text=True).strip()
        kind = f"040000 tree {many}"
    for files in (many, tree):
        git(checkout, "reset", "-q", "--soft", git(checkout, "commit-tree", files, "-p", "HEAD", "-m", "A change"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_a_long_message, "commits have 6 MiB without their files, and at most 4 are published"),
        (with_a_folder_in_itself, "change 405002 paths"),
    ],
)
def test_a_bundle_that_would_take_the_memory_of_the_publisher_is_refused(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    origin, _, bundle = changed(tmp_path, change)
    with pytest.raises(NotPushed, match=reason):
        Commits.fetch(bundle, str(origin), "")


def test_a_bundle_with_too_many_commits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch, "MOST_COMMITS", MOST_COMMITS)
    origin, _, bundle = changed(tmp_path, too_many)
    with pytest.raises(NotPushed, match="the agent made 51 commits, and at most 50 are published"):
        Commits.fetch(bundle, str(origin), "")


def a_folder_of_git(checkout: Path) -> None:
    """Commit a file that a checkout would take for the configuration of a repository."""

    def store(kind: str, content: bytes) -> str:
        command = ["git", "hash-object", "-t", kind, "-w", "--literally", "--stdin"]
        return (
            subprocess.run(command, cwd=checkout, input=content, check=True, capture_output=True)
            .stdout.decode()
            .strip()
        )

    blob = store("blob", b"[core]\n")
    inner = store("tree", b"100644 config\0" + bytes.fromhex(blob))
    outer = store("tree", b"40000 .git\0" + bytes.fromhex(inner))
    git(checkout, "reset", "-q", "--soft", git(checkout, "commit-tree", outer, "-p", "HEAD", "-m", "A trap"))


def test_a_bundle_with_an_invalid_object_is_refused(tmp_path: Path) -> None:
    origin, _, bundle = changed(tmp_path, a_folder_of_git)
    with pytest.raises(NotPushed, match="hasDotgit"):
        Commits.fetch(bundle, str(origin), "")


def changed(folder: Path, change: Callable[[Path], None]) -> tuple[Path, Path, bytes]:
    """Return a repository, a checkout of it with a change, and the bundle of the change."""
    origin, checkout = folder / "origin.git", folder / "checkout"
    git(folder, "init", "-q", "--bare", str(origin))
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(folder, "init", "-q", str(checkout))
    (checkout / "run.sh").write_text("true\n")
    (checkout / "run.sh").chmod(0o755)
    commit_all(checkout)
    git(checkout, "push", "-q", str(origin), "HEAD:refs/heads/main")
    base = git(checkout, "rev-parse", "HEAD")
    change(checkout)
    git(checkout, "update-ref", BUNDLE_REF, "HEAD")
    git(checkout, "bundle", "create", "-q", "../it.bundle", BUNDLE_REF, f"^{base}")
    return origin, checkout, (folder / "it.bundle").read_bytes()
