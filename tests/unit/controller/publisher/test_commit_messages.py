"""Commits of an agent whose messages have active parts get other messages, and always the same new ids."""

import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from labrats.controller.publisher.commit_messages import neutralise_messages


def run_git(folder: Path, arguments: Sequence[str], stdin: bytes = b"") -> bytes:
    identity = ["-c", "user.name=Agent", "-c", "user.email=agent@example.com"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, input=stdin, check=True, capture_output=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    run_git(tmp_path, ["init", "--quiet", "--initial-branch=main"])
    commit(tmp_path, "Start")
    return tmp_path


def commit(repository: Path, message: str) -> str:
    run_git(repository, ["commit", "--quiet", "--allow-empty", "--message", message])
    return head_of(repository)


def head_of(repository: Path) -> str:
    return run_git(repository, ["rev-parse", "HEAD"]).decode().strip()


def neutralised(repository: Path, base: str) -> dict[str, str]:
    return neutralise_messages(partial(run_git, repository), repository, f"{base}..HEAD", ())


def messages_of(repository: Path, tip: str) -> list[str]:
    return run_git(repository, ["log", "--format=%s", tip]).decode().splitlines()


def test_commits_without_active_parts_stay_as_they_are(repository: Path) -> None:
    base = head_of(repository)
    commit(repository, "Fix it\n\nCo-Authored-By: Octo <octo@example.com>")
    assert neutralised(repository, base) == {}


def test_an_active_message_changes_its_commit_and_those_after_it(repository: Path) -> None:
    base = head_of(repository)
    first, second, third = (commit(repository, message) for message in ("Add it", "Fixes #9", "Test it"))
    written = neutralised(repository, base)
    assert written.keys() == {second, third}
    assert messages_of(repository, written[third]) == ["Test it", "Fixes \u200b#\u200b9", "Add it", "Start"]
    assert run_git(repository, ["rev-parse", f"{written[third]}~2"]).decode().strip() == first
    assert neutralised(repository, base) == written


def test_both_sides_of_a_merge_are_written_anew(repository: Path) -> None:
    base = head_of(repository)
    run_git(repository, ["checkout", "--quiet", "-b", "side"])
    commit(repository, "Ask @octo")
    run_git(repository, ["checkout", "--quiet", "main"])
    commit(repository, "Closes #9")
    run_git(repository, ["merge", "--quiet", "--no-ff", "--message", "Merge it", "side"])
    tip = neutralised(repository, base)[head_of(repository)]
    assert {*messages_of(repository, tip)} == {"Merge it", "Ask @\u200bocto", "Closes \u200b#\u200b9", "Start"}


def test_a_changed_commit_loses_its_signature(repository: Path) -> None:
    base = head_of(repository)
    raw = run_git(repository, ["cat-file", "commit", commit(repository, "Fixes #9")])
    head, _, message = raw.partition(b"\n\n")
    signed = b"\n\n".join([head + b"\ngpgsig -----BEGIN-----\n \n more\n -----END-----", message])
    sha = run_git(repository, ["hash-object", "-t", "commit", "-w", "--stdin"], signed).decode().strip()
    run_git(repository, ["reset", "--quiet", "--hard", sha])
    written = run_git(repository, ["cat-file", "commit", neutralised(repository, base)[sha]])
    assert written.partition(b"\n\n")[0] == head
