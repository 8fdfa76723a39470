"""Tests of attempts that resume an earlier one, with shell scripts as agents."""

from pathlib import Path

import pytest

from labrats.model.config import JobConfig
from tests.unit.executor.attempts import AttemptFolder, an_attempt, the_next_attempt

INIT = """echo '{"type": "system", "subtype": "init", "session_id": "0190-test"}'\n"""
SUCCESS = """echo '{"type": "result", "subtype": "success", "result": "done"}'\n"""


def an_attempt_of(tmp_path: Path, script: str) -> AttemptFolder:
    """Build an attempt whose agent starts a session and then runs a shell script."""
    program = tmp_path / "agent"
    program.write_text(f"#!/bin/sh\n{INIT}{script}\n")
    program.chmod(0o755)
    return an_attempt(tmp_path, config=JobConfig(provider="claude"), programs={"claude": str(program)})


def test_resumed_attempt_uses_the_workspace_and_home_of_the_earlier_one(tmp_path: Path) -> None:
    first = an_attempt_of(tmp_path, 'echo "$0 $*" >> asked; echo "$HOME $TMPDIR" >> places; touch ~/tool $TMPDIR/note')
    first.run()
    second = the_next_attempt(first)
    second.run()

    places, resumed_places = (first.workspace / "places").read_text().splitlines()
    assert places == resumed_places == f"{first.path}/home {first.path}/tmp"
    assert (first.path / "home" / "tool").exists()
    assert "--resume=0190-test" in (first.workspace / "asked").read_text().splitlines()[1]
    assert second.outcome.outputs.files_changed == 2
    assert f"+{places}\n+{places}\n" in (second.path / "changes.patch").read_text()


def test_only_the_sessions_remain_in_the_programs_folder(tmp_path: Path) -> None:
    script = (
        "mkdir -p ~/.claude/projects; touch ~/.claude/projects/0190-test.jsonl ~/.claude/settings.json ~/.claude.json"
    )
    first = an_attempt_of(tmp_path, f"find ~/.claude* -type f | sort > found; {script}")
    first.run()
    the_next_attempt(first).run()

    home = first.path / "home"
    found = (first.workspace / "found").read_text().split()
    assert found == [str(home / ".claude" / "projects" / "0190-test.jsonl")]


def test_links_and_pipes_among_the_sessions_are_removed(tmp_path: Path) -> None:
    """The program would read a pipe, or a device behind a link, until the time limit of the attempt."""
    folder = "~/.claude/projects/ws"
    script = f"mkdir -p {folder}; touch {folder}/a.jsonl; mkfifo {folder}/b.jsonl; ln -s /dev/zero {folder}/c.jsonl"
    first = an_attempt_of(tmp_path, f"ls {folder} > found; {script}; true")
    first.run()
    the_next_attempt(first).run()
    assert (first.workspace / "found").read_text() == "a.jsonl\n"


@pytest.mark.parametrize("command", ["ln -s {elsewhere} ~/.claude", "echo no folder > ~/.claude", "mkfifo ~/.claude"])
def test_replaced_program_folder_is_not_followed(tmp_path: Path, command: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "projects").mkdir(parents=True)
    first = an_attempt_of(tmp_path, f"rm -rf ~/.claude; {command.format(elsewhere=elsewhere)}")
    first.run()
    second = the_next_attempt(first)
    (tmp_path / "agent").write_text(f"#!/bin/sh\n{INIT}ls -A ~/.claude > found\n{SUCCESS}")
    second.run()

    assert second.result == "done"
    assert (first.workspace / "found").read_text() == ""
    assert [path.name for path in elsewhere.iterdir()] == ["projects"]


@pytest.mark.parametrize("content", [b"", b'{"tree": "\xff"}'])
def test_damaged_baseline_does_not_end_the_next_attempt(tmp_path: Path, content: bytes) -> None:
    """Without a sandbox, an agent can write to it."""
    first = an_attempt_of(tmp_path, "true")
    first.run()
    (first.path / "baseline.json").write_bytes(content)
    second = the_next_attempt(first)
    (tmp_path / "agent").write_text(f"#!/bin/sh\n{INIT}{SUCCESS}")
    second.run()
    assert second.result == "done"


def test_attempt_starts_over_without_a_stored_baseline(tmp_path: Path) -> None:
    first = an_attempt_of(tmp_path, "echo $* > asked")
    first.run()
    (first.path / "baseline.json").unlink()
    second = the_next_attempt(first)
    second.run()

    assert second.logs[0] == "[starting over: attempt 1 had a session, but its workspace no longer exists]"
    assert "--resume" not in (second.workspace / "asked").read_text()
    assert second.session.attempt == 2


def test_lock_of_a_killed_git_does_not_prevent_the_diff(tmp_path: Path) -> None:
    first = an_attempt_of(tmp_path, "touch made")
    first.run()
    (first.path / "baseline.git" / "index.lock").touch()
    second = the_next_attempt(first)
    second.run()

    assert second.outcome.outputs.files_changed == 1


def test_successful_attempt_leaves_its_baseline_for_follow_ups(tmp_path: Path) -> None:
    attempt = an_attempt_of(tmp_path, f"touch made\n{SUCCESS}")
    attempt.run()

    assert attempt.result == "done"
    assert sorted(path.name for path in attempt.path.glob("baseline*")) == ["baseline.git", "baseline.json"]
