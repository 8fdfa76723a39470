"""Runs of git whose output is long, or that fill the disk."""

import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from labrats.github.publisher import git
from labrats.github.publisher.branch import remove_leftovers
from labrats.github.publisher.git import (
    TEMPORARY,
    NotPushed,
    Scratch,
    limited_scratch,
    run_git,
    short_output,
    start_of_output,
)
from labrats.model.errors import LabratsError, RetryLater

ENDLESS = ["-c", "alias.endless=!yes", "endless"]


def test_only_the_start_of_a_long_output_is_read(tmp_path: Path) -> None:
    began = monotonic()
    assert start_of_output(tmp_path, ENDLESS, 10_000) == b"y\n" * 5_000
    assert monotonic() - began < 30


MIB = 2**20


def a_repository(folder: Path, name: str, size: int = 0) -> Path:
    """Create the folder of a temporary repository of this process, with a file of that size."""
    repository = folder / f"{TEMPORARY}{os.getpid()}-{name}"
    repository.mkdir()
    (repository / "pack").write_bytes(b"x" * size)
    return repository


def fill(size: int) -> list[str]:
    """Return a command of git that makes a file, at once with its whole size, and does not end then."""
    return ["-c", f"alias.fill=!head -c {size} /dev/zero > ../whole && mv ../whole more; sleep 600", "fill"]


@pytest.mark.parametrize(
    ("others", "own", "error"),
    [(0, 40 * MIB, NotPushed), (20 * MIB, 25 * MIB, RetryLater), (20 * MIB, 40 * MIB, NotPushed)],
    ids=["more than all space", "more than the others leave", "more than all space beside another"],
)
def test_git_that_would_fill_the_disk_is_ended(
    tmp_path: Path, others: int, own: int, error: type[LabratsError]
) -> None:
    repository = a_repository(tmp_path, "b")
    a_repository(tmp_path, "a", others)
    began = monotonic()
    with limited_scratch(40 * MIB), pytest.raises(error, match=r"publisher's disk|more than 30 MiB"):
        run_git(repository, fill(own))
    assert monotonic() - began < 30


def test_only_the_largest_repository_makes_room(tmp_path: Path) -> None:
    largest, other = a_repository(tmp_path, "a", 25 * MIB), a_repository(tmp_path, "b", 20 * MIB)
    assert Scratch(40 * MIB).problem(other) is None
    assert isinstance(Scratch(40 * MIB).problem(largest), RetryLater)
    assert Scratch().problem(largest) is None


def test_without_a_setting_repositories_may_use_half_of_the_free_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = a_repository(tmp_path, "a", 10 * MIB)
    assert Scratch().problem(repository) is None
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=9 * MIB))
    assert "half of the publisher's free disk" in str(Scratch().problem(repository))


def test_repository_that_is_removed_while_it_is_measured_is_no_problem(tmp_path: Path) -> None:
    repository = a_repository(tmp_path, "a", MIB)
    shutil.rmtree(repository)
    assert Scratch().problem(repository) is None


def test_git_that_works_too_long_on_the_commits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "_SECONDS", 0.2)
    with pytest.raises(RetryLater, match=r"took more than 0\.2 seconds to process the commits"):
        run_git(tmp_path, ["-c", "alias.slow=!sleep 600", "slow"])


def test_transfer_that_takes_too_long_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "_SECONDS_OF_TRANSFER", 0.2)
    with pytest.raises(RetryLater, match="took too long to reach GitHub"):
        run_git(tmp_path, ["-c", "alias.slow=!sleep 600", "slow"], "https://github.test/an/app", "token")


def test_leftovers_of_a_publisher_with_the_same_process_id_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    a_repository(tmp_path, "a")
    other = tmp_path / f"{TEMPORARY}{os.getppid()}-a"
    other.mkdir()
    remove_leftovers()
    assert list(tmp_path.iterdir()) == [other]


def test_long_input_reaches_a_git_that_is_measured_meanwhile(tmp_path: Path) -> None:
    text = b"x" * 5_000_000
    assert run_git(tmp_path, ["-c", "alias.slow=!sleep 0.5; cat", "slow"], stdin=text) == text


def test_output_has_a_limit_and_must_be_complete(tmp_path: Path) -> None:
    with pytest.raises(NotPushed, match="too much"):
        short_output(tmp_path, ENDLESS, 10_000, "too much")
    with pytest.raises(NotPushed, match="too much"):
        short_output(tmp_path, ["-c", "alias.fail=!echo a; exit 1", "fail"], 10_000, "too much")
    assert short_output(tmp_path, ["-c", "alias.print=!echo a", "print"], 10_000, "too much") == b"a\n"


def test_git_takes_half_of_the_memory_of_the_publisher_at_most(tmp_path: Path) -> None:
    use_memory = ["-c", "alias.use=!exec python3 -c 'x = bytearray(300 << 20); print(len(x))'", "use"]
    with pytest.raises(NotPushed, match="MemoryError"):
        run_git(tmp_path, use_memory)
    with pytest.raises(NotPushed, match="too much"):
        short_output(tmp_path, use_memory, 10_000, "too much")
    assert start_of_output(tmp_path, use_memory, 10_000) == b""


def test_leftovers_are_removed_although_they_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folder() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    a_repository(tmp_path, "a")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "gettempdir", no_folder)
    remove_leftovers()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
def test_commits_are_published_later_if_git_cannot_be_started_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*command: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(RetryLater, match="git cannot be run"):
        run_git(tmp_path, ["status"])


@pytest.mark.parametrize(
    "words", ["fatal: write error: No space left on device", "error: cannot fork(): Resource temporarily unavailable"]
)
def test_commits_are_published_later_if_git_lacks_space_or_processes(tmp_path: Path, words: str) -> None:
    with pytest.raises(RetryLater, match="git lacks space or processes"):
        run_git(tmp_path, ["-c", f"alias.fail=!echo '{words}' >&2; exit 128", "fail"])
