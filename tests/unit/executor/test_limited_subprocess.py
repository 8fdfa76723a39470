"""Programs that handle untrusted input, in the attempt's sandbox."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labrats.executor.limited_subprocess import output_of_limited
from labrats.model.errors import GiveUp
from labrats.model.protocol import Sandbox
from tests.unit.executor.attempts import Work, a_task, some_work

INTERPRETER = "code"
"""A module that executes its input, as a parser with a hole would."""


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / "admin.key").write_text("test-key-of-the-engine\n")
    with some_work(tmp_path, a_task(tmp_path, sandbox=Sandbox(program=program, hidden=(str(engine),)))) as work:
        yield work


def output_of(work: Work, script: str | Path) -> str:
    stdin = script.encode() if isinstance(script, str) else script
    return (asyncio.run(output_of_limited(INTERPRETER, work.context, stdin)) or b"").decode()


def test_program_runs_in_the_sandbox(work: Work, tmp_path: Path) -> None:
    script = f"import os, pathlib\nos.getppid()\nlist(map(str, pathlib.Path('{tmp_path}/engine').glob('*')))\n"
    assert output_of(work, script) == ">>> >>> 1>>> []>>> "


def test_program_without_a_sandbox_runs_by_itself(work: Work, tmp_path: Path) -> None:
    plain = replace(work, context=replace(work.context, task=a_task(tmp_path)))
    assert "admin.key" in output_of(plain, f"import os\nos.listdir('{tmp_path}/engine')\n")


def test_failure_of_the_program_is_not_taken_for_a_limit(work: Work) -> None:
    with pytest.raises(GiveUp, match=r"the program no_such_module failed: .*No module named no_such_module"):
        asyncio.run(output_of_limited("no_such_module", work.context, b""))


def test_program_that_is_killed_has_exceeded_a_limit(work: Work) -> None:
    killed = b"import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)\n"
    assert asyncio.run(output_of_limited(INTERPRETER, work.context, killed)) is None


def test_program_whose_output_cannot_be_read_has_exceeded_a_limit(work: Work) -> None:
    """The reader skips a line that is too long, so that nothing is left."""
    assert asyncio.run(output_of_limited("string", work.context, b"")) is None


def test_program_reads_a_file_that_the_sandbox_does_not_show(work: Work, tmp_path: Path) -> None:
    path = tmp_path / "engine" / "upload"
    path.write_text("1 + 1\n")
    assert "2" in output_of(work, path)
