"""A confined agent: what it can do, and what it cannot, by the real bubblewrap."""

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from labrats.model.config import JobConfig
from labrats.model.protocol import Sandbox
from labrats.processes import with_environment
from tests.unit.executor.attempts import AttemptFolder, a_unique_name, an_attempt, the_next_attempt


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """It hides all that is below the test's folder but what the attempt needs."""
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    return Sandbox(program=program, hidden=(str(tmp_path),))


def a_confined_attempt(tmp_path: Path, sandbox: Sandbox, script: str, **inputs: Any) -> AttemptFolder:
    """An attempt whose agent program is a shell script."""
    program = tmp_path / "programs" / "agent"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    (tmp_path / "engine.key").write_text("test-key-of-the-engine\n")
    inputs |= {"config": JobConfig(provider="claude"), "programs": {"claude": str(program)}, "sandbox": sandbox}
    return an_attempt(tmp_path, **inputs)


def said_by(attempt: AttemptFolder) -> str:
    """What the agent wrote into the file `said` of its workspace."""
    attempt.run()
    return (attempt.workspace / "said").read_text()


def test_it_works_in_its_workspace_home_and_scratch_folder(tmp_path: Path, sandbox: Sandbox) -> None:
    script = 'pwd > said; touch "$HOME/in-home" "$TMPDIR/in-scratch" && cat > prompt'
    attempt = a_confined_attempt(tmp_path, sandbox, script)
    assert said_by(attempt).strip() == str(attempt.workspace)
    assert (attempt.path / "home" / "in-home").exists()
    assert (attempt.path / "tmp" / "in-scratch").exists()
    assert (attempt.workspace / "prompt").read_text() == "Fix the bug."


def test_it_goes_on_where_an_earlier_attempt_was_confined(tmp_path: Path, sandbox: Sandbox) -> None:
    init = """echo '{"type": "system", "subtype": "init", "session_id": "0190-test"}'"""
    script = f'{init}; echo "$HOME $TMPDIR" >> said; pwd >> "$HOME/been"; cat "$HOME/been" >> said'
    first = a_confined_attempt(tmp_path, sandbox, script)
    first.run()
    second = the_next_attempt(first)
    second.run()

    places, workspace = f"{first.path}/home {first.path}/tmp", str(first.workspace)
    said = (first.workspace / "said").read_text().splitlines()
    assert said == [places, workspace, places, workspace, workspace]
    assert second.outcome.outputs.files_changed == 1


def test_it_sees_nothing_else_of_the_engine(tmp_path: Path, sandbox: Sandbox) -> None:
    script = f"ls -A {tmp_path} {tmp_path}/attempt > said; cat {tmp_path}/engine.key >> said 2>&1"
    said = said_by(a_confined_attempt(tmp_path, sandbox, script))
    assert "test-key-of-the-engine" not in said
    assert "output.jsonl" not in said
    assert set(said.split()) >= {"attempt", "programs", "ws", "home", "tmp"}


def test_it_writes_nowhere_else(tmp_path: Path, sandbox: Sandbox) -> None:
    places = f"/etc /usr /var {tmp_path} {tmp_path}/programs"
    script = f"for place in {places}; do touch $place/written 2>/dev/null && echo $place; done > said; true"
    said = said_by(a_confined_attempt(tmp_path, sandbox, script))
    assert said.split() == [str(tmp_path)], "a folder in memory, which nobody else sees"
    assert not (tmp_path / "written").exists()


def test_it_sees_no_process_but_its_own(tmp_path: Path, sandbox: Sandbox) -> None:
    said = said_by(a_confined_attempt(tmp_path, sandbox, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' > said"))
    assert "labrats.executor" not in said


def test_it_reaches_the_network(tmp_path: Path, sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        attempt = a_confined_attempt(
            tmp_path, sandbox, f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' && echo connected > said"
        )
        assert said_by(attempt).strip() == "connected"


def test_what_it_leaves_running_ends_with_it(tmp_path: Path, sandbox: Sandbox) -> None:
    with a_unique_name() as name:
        attempt = a_confined_attempt(tmp_path, sandbox, "setsid sleep 300 & echo $! > said", attempt=name)
        assert said_by(attempt).strip().isdecimal()
        assert with_environment("LABRATS_ATTEMPT", name) == []
