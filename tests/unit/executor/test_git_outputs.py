"""Tests of reading the head of a repository that the agent may have changed."""

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


def test_head_on_a_branch_has_branch_and_commit(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")

    assert read_head(repository) == Outputs(branch="topic/a", commit=commit)


def test_head_finds_a_branch_among_packed_refs(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "branch", "topic/ab")
    git(repository, "pack-refs", "--all")

    assert read_head(repository) == Outputs(branch="topic/a", commit=commit)


def test_detached_head_has_only_a_commit(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "--detach")

    assert read_head(repository) == Outputs(commit=commit)


def test_head_without_repository_or_commit_is_empty(tmp_path: Path) -> None:
    assert read_head(tmp_path) == Outputs()
    git(tmp_path, "init", "-q")
    assert read_head(tmp_path) == Outputs()


def test_head_does_not_follow_links_pipes_or_unsafe_names(repository: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("link", [".git", ".git/refs", ".git/refs/heads", ".git/refs/heads/topic"])
def test_head_is_not_read_behind_a_link_to_a_folder(repository: Path, link: str) -> None:
    place, elsewhere = repository / link, repository / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    assert read_head(repository) == Outputs()


def test_branch_that_is_named_like_another_ref_is_not_reported(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "update-ref", "refs/heads/refs/pull/7/head", commit)
    (repository / ".git" / "HEAD").write_text("ref: refs/heads/refs/pull/7/head\n")
    assert read_head(repository) == Outputs()


@pytest.mark.parametrize(
    ("output", "url"),
    [
        ("Creating ...\nPAGE/pull/7", "PAGE/pull/7"),
        ("PAGE/pull/7\n", "PAGE/pull/7"),
        ("see PAGE/pull/7", None),
        ("PAGE/pull/7 is older", None),
        ("PAGE-of-somebody-else/pull/7", None),
        ("PAGE/issues/7", None),
        ("PAGE/../../somebody/else/pull/7", None),
    ],
)
def test_pull_request_is_found_in_the_last_line_of_a_tools_output(output: str, url: str | None) -> None:
    page = "https://github.com/octocat/hello"
    found = find_pull_request(output.replace("PAGE", page))
    assert (found if found and belongs_to_repository(found, f"{page}.git") else None) == (
        url and url.replace("PAGE", page)
    )
