"""The revision that `benchmarks.compare` compares with by default."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.compare import Figure, Tree, default_base, in_turn

HERE = Tree("now", Path("now"), Path("python"))
BASE = Tree("base", Path("base"), Path("python"))


def git(*arguments: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    return subprocess.run(["git", *author, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def commit() -> str:
    git("commit", "--quiet", "--allow-empty", "--message", "a commit")
    return git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    git("init", "--quiet", str(folder))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.usefixtures("repository")
class TestDefaultBase:
    def test_newest_release_before_head_is_the_base(self) -> None:
        for tag in ("v0.1.0", "v0.2.0", "another-tag"):
            commit()
            git("tag", tag)
        commit()
        assert default_base() == "v0.2.0"

    def test_release_at_head_is_compared_with_the_one_before(self) -> None:
        for tag in ("v0.1.0", "v0.2.0"):
            commit()
            git("tag", tag)
        assert default_base() == "v0.1.0"

    def test_parent_is_the_base_without_releases(self) -> None:
        parent = commit()
        commit()
        assert default_base() == parent

    def test_first_commit_has_no_base(self) -> None:
        commit()
        assert default_base() is None

    def test_shallow_clone_has_no_base(self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        commit()
        git("tag", "v0.1.0")
        commit()
        git("clone", "--quiet", "--depth=1", repository.as_uri(), str(tmp_path / "shallow"))
        monkeypatch.chdir(tmp_path / "shallow")
        assert default_base() is None


def test_minimum_of_the_rounds_counts() -> None:
    numbers = iter([3.0, 5.0, 2.0, 4.0])
    assert in_turn(Figure("a", "ms", lambda tree: next(numbers)), BASE, HERE, rounds=2) == (2.0, 4.0)


def test_base_that_does_not_run_is_not_measured() -> None:
    def measure(tree: Tree) -> float:
        if tree is BASE:
            raise RuntimeError("the server exited with 1 before it was ready")
        return 4.0

    assert in_turn(Figure("a", "ms", measure), BASE, HERE, rounds=2) == (None, 4.0)


def test_own_revision_that_does_not_run_fails() -> None:
    def measure(tree: Tree) -> float:
        if tree is HERE:
            raise RuntimeError("the server exited with 1 before it was ready")
        return 4.0

    with pytest.raises(RuntimeError):
        in_turn(Figure("a", "ms", measure), BASE, HERE, rounds=1)
