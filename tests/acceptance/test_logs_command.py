"""`labrats logs` with a real engine and the real Claude Code."""

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labrats.cli.output import terminal_safe
from tests.acceptance.engine import POLL_SECONDS, LocalEngine
from tests.agents.claude import CLAUDE
from tests.support.scripted_model import ModelServer, Says


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with CLAUDE.serve(CLAUDE.shell("echo cheese", text="Let me see."), Says("All is well.")) as server:
        yield server


@pytest.fixture
def engine(tmp_path: Path, server: ModelServer) -> Iterator[LocalEngine]:
    with LocalEngine(tmp_path, **CLAUDE.environment, ANTHROPIC_BASE_URL=server.url) as engine:
        yield engine


async def test_logs_shows_tool_calls_and_totals_on_a_terminal_and_plain_lines_in_a_pipe(engine: LocalEngine) -> None:
    async with engine.user() as user:
        job_id = await user.submit(config={"provider": "claude", "model": "sonnet"})

        shown = terminal_safe(on_a_terminal(engine, "logs", "-f", job_id))

        lines = await user.log_lines(job_id)
    said, called, answered = lines.index("Let me see."), lines.index("→ Bash: echo cheese"), lines.index("← cheese")
    assert said < called < answered
    assert all(line in shown for line in lines)
    assert re.search(r"← cheese  \(\d+\.\ds\)", shown)
    assert re.search(r" · 200 tokens in, 20 out; \$0\.\d{4}; turns: 2\s*$", shown)
    address = ("--url", engine.url)
    assert engine.run_labrats("logs", "-f", job_id, *address).splitlines() == lines
    assert terminal_safe(on_a_terminal(engine, "logs", "--raw", job_id)).splitlines() == lines


def on_a_terminal(engine: LocalEngine, *arguments: str) -> str:
    """Run a `labrats` command on a terminal of 200 columns, and return what it shows."""
    controller, terminal = pty.openpty()
    command = [str(Path(sys.executable).parent / "labrats"), *arguments, "--url", engine.url]
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "COLUMNS": "200"}
    environment["LABRATS_DATA_DIR"] = str(engine.data_dir)
    shown = b""
    try:
        with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
            while process.poll() is None or _is_readable(controller):
                if _is_readable(controller):
                    shown += os.read(controller, 65536)
            assert process.returncode == 0, shown
    finally:
        os.close(controller)
        os.close(terminal)
    return shown.decode()


def _is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], POLL_SECONDS)[0])
