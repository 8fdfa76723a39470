"""What is checked out is read from the repository's files, whatever the agent has done to them."""

import os
import subprocess
from pathlib import Path

import pytest

from labrats.executor.git_outputs import belongs_to_repository, find_pull_request, read_head
from labrats.model.job import Outputs


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "topic/a")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    return tmp_path


def test_a_branch_and_its_commit(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")

    assert read_head(repository) == Outputs(branch="topic/a", commit=commit)


def test_a_branch_among_packed_refs(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "branch", "topic/ab")
    git(repository, "pack-refs", "--all")

    assert read_head(repository) == Outputs(branch="topic/a", commit=commit)


def test_a_commit_without_a_branch(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "--detach")

    assert read_head(repository) == Outputs(commit=commit)


def test_where_there_is_no_repository_or_no_commit_there_is_nothing(tmp_path: Path) -> None:
    assert read_head(tmp_path) == Outputs()
    git(tmp_path, "init", "-q")
    assert read_head(tmp_path) == Outputs()


def test_neither_links_nor_pipes_nor_odd_names_are_followed(repository: Path, tmp_path: Path) -> None:
    head = repository / ".git" / "HEAD"
    (repository / "elsewhere").write_text("0" * 40)
    for content in ("ref: refs/heads/../../../elsewhere\n", "ref: refs/heads//etc/passwd\n", "password\n", ""):
        head.write_text(content)
        assert read_head(repository) == Outputs()
    head.unlink()
    head.symlink_to(repository / "elsewhere")
    assert read_head(repository) == Outputs()
    head.unlink()
    os.mkfifo(head)
    assert read_head(repository) == Outputs()
    head.unlink()
    head.mkdir()
    assert read_head(repository) == Outputs()


@pytest.mark.parametrize(
    ("said", "url"),
    [
        ("Creating ...\nPAGE/pull/7", "PAGE/pull/7"),
        ("PAGE/pull/7\n", "PAGE/pull/7"),
        ("see PAGE/pull/7", None),
        ("PAGE/pull/7 is older", None),
        ("PAGE-of-somebody-else/pull/7", None),
        ("PAGE/issues/7", None),
    ],
)
def test_a_pull_request_is_known_by_the_last_words_of_the_tool_that_opens_it(said: str, url: str | None) -> None:
    page = "https://github.com/octocat/hello"
    found = find_pull_request(said.replace("PAGE", page))
    assert (found if found and belongs_to_repository(found, f"{page}.git") else None) == (
        url and url.replace("PAGE", page)
    )
