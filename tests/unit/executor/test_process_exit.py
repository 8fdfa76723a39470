"""The end of a program, with the processes that it leaves running."""

from pathlib import Path

import pytest

from labrats.executor import process_exit
from labrats.executor.process_exit import run_to_end, wait_for_exit
from labrats.executor.subprocesses import child_process
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode


async def run(command: list[str], folder: Path) -> int:
    async with run_to_end(command, folder, {}) as (_, exited):
        return await exited


@pytest.mark.anyio
async def test_process_that_cannot_be_killed_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could still exchange files that the executor reads and writes later."""
    assert await run(["/bin/true"], tmp_path) == 0
    monkeypatch.setattr(process_exit, "kill_descendants", lambda _, seconds: False)
    with pytest.raises(GiveUp, match="a process that a program has left running could not be killed") as failure:
        await run(["/bin/true"], tmp_path)
    assert failure.value.code is FailedCode.INTERNAL


@pytest.mark.anyio
async def test_agent_whose_process_cannot_be_killed_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program may run once more in this attempt."""
    monkeypatch.setattr(process_exit, "has_child", lambda: True)
    monkeypatch.setattr(process_exit, "kill_descendants", lambda _, seconds: False)
    async with child_process(["/bin/true"], tmp_path, {}) as process:
        with pytest.raises(GiveUp) as failure:
            await wait_for_exit(process)
    assert failure.value.code is FailedCode.INTERNAL
