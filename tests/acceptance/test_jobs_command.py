"""`labrats jobs --watch` with a real engine."""

import asyncio
import json
import os
import pty
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from labrats.cli.output import terminal_safe
from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine, User

INTERRUPTED = 130


@asynccontextmanager
async def watching(engine: LocalEngine, user: User, *options: str, output: int = PIPE) -> AsyncIterator[Process]:
    """Run `labrats jobs --watch`, and end it by Ctrl-C."""
    command = engine.command()[0]
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "COLUMNS": "150", "LINES": "40"}
    process = await asyncio.create_subprocess_exec(
        command, "jobs", "--watch", "--url", engine.url, "--api-key", user.key, *options,
        env=environment, stdout=output, stderr=output,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # it is ignored in a shell's background job
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == INTERRUPTED


async def line_with(process: Process, *texts: str) -> str:
    """Return the first line that contains all of `texts`."""
    assert process.stdout
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for line in process.stdout:
            if all(text in line.decode() for text in texts):
                return line.decode()
    raise AssertionError(f"ended without {texts}")


async def test_changed_jobs_are_lines_in_a_pipe_also_after_a_restart(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.user() as user, watching(engine, user, "--type", "wanted") as process:
        first = await user.submit(type="wanted")
        await line_with(process, first, "completed")
        await user.run(type="other")
        engine.kill()
        engine.start()
        second = await user.submit(type="wanted")
        assert process.stdout
        seen = b""
        while f"{second}  completed" not in seen.decode():
            seen += await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)
    assert {line.split()[0] for line in seen.decode().splitlines() if line.startswith("ir-")} == {second}


async def test_changed_jobs_are_items_in_json(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.user() as user, watching(engine, user, "--json") as process:
        job_id = (await user.run({"fail": "no"}))["id"]
        item = json.loads(await line_with(process, '"failed"'))
        detail = await user.job(job_id)
    assert item == {field: detail[field] for field in item}


async def test_list_stays_on_a_terminal(start_engine: EngineFactory) -> None:
    engine = start_engine()
    controller, terminal = pty.openpty()
    shown = ""
    async with engine.user() as user, watching(engine, user, output=terminal):
        os.close(terminal)
        running = await user.submit({"hang": True})
        ended = await user.submit({"fail": "no cheese"})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not all(text in shown for text in (running, "active", ended, "no cheese", "2 of 2 jobs · live")):
                shown += (await asyncio.to_thread(os.read, controller, 65536)).decode(errors="replace")
    last = terminal_safe(shown[shown.rindex("DURATION") :])
    assert last.index(ended) < last.index(running)
