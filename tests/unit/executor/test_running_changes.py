"""Tests of the changes of an attempt while its agent runs."""

import subprocess
import sys
import time
from pathlib import Path

from labrats.executor.running_changes import PAUSE_SECONDS
from labrats.model.job import WorkspaceSetup
from labrats.model.protocol import CHANGES_FILE, CHANGES_WANTED_FILE, PATCH_FILE, PartEvent
from tests.unit.executor.attempts import DEADLINE_SECONDS, AttemptFolder, an_attempt, wait_until
from tests.unit.executor.test_workspace_diff import COMMIT, an_attempt_of, git, patch_of, repository

__all__ = ["repository"]

WAIT = "while ! test -e go; do sleep 0.05; done; rm go; "


def changes_of(attempt: AttemptFolder) -> bytes:
    """Ask for the changes so far, as the engine does, and return them."""
    wanted = attempt.path / CHANGES_WANTED_FILE
    wanted.touch()
    wait_until(lambda: not wanted.exists(), "report")
    return (attempt.path / CHANGES_FILE).read_bytes()


def test_changes_so_far_are_reported_on_request_and_do_not_disturb_the_final_patch(
    tmp_path: Path, repository: Path
) -> None:
    script = f"""
        echo three >> readme.txt; rm obsolete.txt; echo new > new.txt; mkdir build; echo junk > build/junk
        echo TOKEN-0123456789 > leak.txt; chmod 0 new.txt; touch ready; {WAIT}
        git add readme.txt; {COMMIT} -m 'A commit'; chmod 644 new.txt; rm ready"""
    attempt = an_attempt_of(tmp_path, script, repository, secrets={"ANTHROPIC_API_KEY": "TOKEN-0123456789"})

    with attempt.started() as process:
        wait_until((attempt.workspace / "ready").exists, "changes")
        so_far = changes_of(attempt)
        assert (attempt.workspace / "new.txt").stat().st_mode & 0o777 == 0
        (attempt.workspace / "go").touch()
        process.wait(DEADLINE_SECONDS)

    for line in (b"+three", b"-old", b"b/ready", b"+[redacted"):
        assert line in so_far
    for text in (b"junk", b"TOKEN"):
        assert text not in so_far
    assert b"+new" in patch_of(attempt)
    assert attempt.outcome.outputs.commits == (git(attempt.workspace, "rev-parse", "HEAD"),)
    assert not [path.name for path in attempt.path.glob("running*")]
    assert not (attempt.path / CHANGES_FILE).exists()


def test_changes_of_an_attempt_that_nobody_follows_are_not_computed(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_of(tmp_path, "echo three >> readme.txt; sleep 2", repository)
    attempt.run()
    assert not (attempt.path / CHANGES_FILE).exists()
    assert b"+three" in patch_of(attempt)


def test_workspace_that_was_empty_has_changes_so_far(tmp_path: Path) -> None:
    attempt = an_attempt_of(tmp_path, f"echo new > new.txt; touch ready; {WAIT}")
    with attempt.started() as process:
        wait_until((attempt.workspace / "ready").exists, "changes")
        assert b"+new" in changes_of(attempt)
        (attempt.workspace / "go").touch()
        process.wait(DEADLINE_SECONDS)
    assert b"+new" in patch_of(attempt)


def test_file_at_which_git_waits_delays_neither_the_agent_nor_its_end(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_of(tmp_path, f"rm .gitignore; mkfifo .gitignore; touch ready; {WAIT}", repository)
    with attempt.started() as process:
        wait_until((attempt.workspace / "ready").exists, "changes")
        (attempt.path / CHANGES_WANTED_FILE).touch()
        wait_until((attempt.path / "staging.git").exists, "report")
        time.sleep(0.5)
        (attempt.workspace / "go").touch()
        process.wait(DEADLINE_SECONDS)
    assert b"b/ready" in patch_of(attempt)


def test_executor_without_a_shared_folder_prints_changes_once_after_an_event(tmp_path: Path, repository: Path) -> None:
    pause = int(1000 * (PAUSE_SECONDS + 3))
    steps = [{"write": {"path": "new.txt", "text": "new\n"}}, {"log": "written"}, {"sleepMs": pause}, {"result": 1}]
    setup = WorkspaceSetup(git_repo=str(repository))
    attempt = an_attempt(tmp_path, steps, workspace_setup=setup, repo_roots=(str(repository.parent),))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "labrats.executor", str(attempt.path), str(scratch)]

    with attempt.output.open("ab") as output:
        subprocess.run(command, stdout=output, timeout=DEADLINE_SECONDS, check=True)

    parts = [event for event in attempt.events if isinstance(event, PartEvent)]
    (so_far,) = [part for part in parts if part.file == CHANGES_FILE]
    (final,) = [part for part in parts if part.file == PATCH_FILE]
    assert so_far.data == final.data
    assert b"+new" in final.data
    assert so_far.is_last
