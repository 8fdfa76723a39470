"""The end of a program, with the processes that it leaves running."""

from pathlib import Path

import pytest

from labrats.executor import process_exit
from labrats.executor.process_exit import run_to_end
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode


async def run(command: list[str], folder: Path) -> int:
    async with run_to_end(command, folder, {}) as (_, exited):
        return await exited


@pytest.mark.anyio
async def test_process_that_cannot_be_killed_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could still exchange files that the engine reads after a setup command."""
    assert await run(["/bin/true"], tmp_path) == 0
    monkeypatch.setattr(process_exit, "kill_descendants", lambda _: False)
    with pytest.raises(GiveUp, match="a process that a command has left running could not be killed") as failure:
        await run(["/bin/true"], tmp_path)
    assert failure.value.code is FailedCode.INTERNAL
