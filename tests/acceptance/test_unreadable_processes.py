"""Processes of an engine, whose memory and environment other processes of the same user cannot read."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labrats.processes import children, hides_processes
from tests.acceptance.engine import WITHOUT_CAPABILITIES, OrdinaryEngine
from tests.support.waiting import eventually


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[OrdinaryEngine]:
    with OrdinaryEngine(tmp_path, LABRATS_SANDBOX="false") as engine:
        yield engine


@pytest.mark.skipif(hides_processes(), reason="/proc hides the processes of others")
async def test_engine_launcher_and_executors_cannot_be_read(engine: OrdinaryEngine) -> None:
    async with engine.user() as user:
        job_id = await user.submit({"log": "on"}, {"hang": True})
        async with user.log_stream(job_id) as events:
            await anext(events)
        (launcher,) = children(engine.pid)
        executor, *_ = children(launcher)
        readable = [
            name
            for name, pid in {"engine": engine.pid, "launcher": launcher, "executor": executor}.items()
            if can_read(pid)
        ]
        await user.cancel(job_id)
    assert readable == []


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that gives up its capabilities."""
    with subprocess.Popen([*WITHOUT_CAPABILITIES, "sleep", "60"]) as process:
        yield process
        process.kill()


async def test_other_process_can_be_read(other: subprocess.Popen[bytes]) -> None:
    """Checks that the test above can fail."""
    await eventually(lambda: can_read(other.pid))  # at first it still has its capabilities


def can_read(pid: int) -> bool:
    """Return whether another process of this user, without capabilities, can read the environment of a process."""
    command = [*WITHOUT_CAPABILITIES, "cat", f"/proc/{pid}/environ"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
