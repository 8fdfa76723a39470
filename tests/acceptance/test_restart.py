"""Restarts: accepted jobs continue, and readers of logs can resume, after an engine was stopped or killed."""

import asyncio
import shutil
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from labrats.processes import send_signal
from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine, SentEvent, a_submission, lines_of

ENDINGS = [LocalEngine.stop, LocalEngine.kill]
LINES = [f"line {n}" for n in range(1, 101)]


@pytest.mark.parametrize("end", ENDINGS)
async def test_running_job_continues_and_is_supervised_to_its_end_after_a_restart(
    start_program: EngineFactory, end: Callable[[LocalEngine], None]
) -> None:
    engine = start_program()
    async with engine.user() as user:
        job_id = await user.submit({"log": "line {n}", "times": 100, "everyMs": 20}, {"result": "whole"})
        await user.wait(job_id, "active")

        end(engine)
        engine.start()

        detail = await user.wait(job_id)
        assert (detail["status"], detail["result"], detail["attempts"]) == ("completed", "whole", 1)
        assert await user.log_lines(job_id) == LINES


@pytest.mark.parametrize("end", ENDINGS)
async def test_log_reader_resumes_after_a_restart_without_gap_or_repetition(
    start_program: EngineFactory, end: Callable[[LocalEngine], None]
) -> None:
    engine = start_program()
    async with engine.user() as user:
        job_id = await user.submit({"log": "line {n}", "times": 100, "everyMs": 20})
        seen: list[SentEvent] = []

        async with user.log_stream(job_id) as events:
            seen += [await anext(events) for _ in range(10)]
            end(engine)
            with suppress(httpx2.TransportError):  # the connection may break
                seen += [event async for event in events]
        assert lines_of(seen) == LINES[: len(seen)]
        engine.start()
        seen += await user.full_log(job_id, seen[-1].id)

        assert lines_of(seen) == LINES
        assert seen[-1].data == {"done": True, "status": "completed"}


async def test_outcomes_of_jobs_that_end_while_no_engine_runs_are_recorded_at_its_start(
    start_program: EngineFactory,
) -> None:
    engine = start_program()
    async with engine.user() as user:
        good = await user.submit({"sleepMs": 500}, {"result": "good"})
        bad = await user.submit({"sleepMs": 500}, {"fail": "bad"})
        died = await user.submit({"sleepMs": 500}, {"signal": 9})
        for job_id in (good, bad, died):
            await user.wait(job_id, "active")

        engine.kill()
        async with asyncio.timeout(30):
            while any(engine.processes_of(job_id) for job_id in (good, bad, died)):
                await asyncio.sleep(0.02)
        engine.start()

        assert (await user.wait(good))["result"] == "good"
        assert (await user.wait(bad))["failedReason"] == "bad"
        assert (await user.wait(died))["failedCode"] == "executor_died"


async def test_waiting_jobs_and_accepted_cancels_survive_a_crash(start_program: EngineFactory) -> None:
    engine = start_program(DEFAULT_MODEL_SLOTS="1")
    async with engine.user() as user:
        first = await user.submit({"ignoreSignals": True}, {"log": "on"}, {"hang": True})
        second = await user.submit({"result": "after"})
        async with user.log_stream(first) as events:
            await anext(events)

        await user.cancel(first)
        engine.kill()
        engine.start()

        assert (await user.wait(first))["status"] == "cancelled"
        assert (await user.wait(second))["result"] == "after"
        assert engine.processes_of(first) == []


async def test_deadline_that_passes_while_no_engine_runs_is_enforced(start_program: EngineFactory) -> None:
    engine = start_program()
    async with engine.user() as user:
        job_id = await user.submit({"ignoreSignals": True}, {"log": "on"}, {"hang": True}, config={"timeoutMs": 800})
        await user.wait(job_id, "active")

        engine.kill()
        engine.start()

        detail = await user.wait(job_id)
        assert (detail["status"], detail["failedCode"]) == ("failed", "timeout")


async def test_stopping_engine_ends_its_log_streams(start_program: EngineFactory) -> None:
    engine = start_program()
    async with engine.user() as user:
        job_id = await user.submit({"log": "on"}, {"hang": True})
        async with user.log_stream(job_id) as events:
            await anext(events)

            engine.stop()

            assert [event async for event in events] == []  # the stream ended without an error and without `done`


async def test_second_engine_on_the_same_data_folder_is_refused(start_program: EngineFactory) -> None:
    engine = start_program()

    assert "another engine is running" in refusal_of(engine)
    async with engine.user() as user:
        assert (await user.run())["status"] == "completed"


def test_engine_on_an_occupied_port_exits_and_names_the_option_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "--port" in refusal_of(LocalEngine(tmp_path), "--port", str(taken.getsockname()[1]))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_engine_refuses_a_public_address_without_labrats_allow_public(tmp_path: Path, host: str) -> None:
    assert "LABRATS_ALLOW_PUBLIC=true" in refusal_of(LocalEngine(tmp_path), "--host", host)


def test_engine_with_the_embedded_backend_refuses_a_role(tmp_path: Path) -> None:
    assert "on one machine the engine has the role `all`" in refusal_of(LocalEngine(tmp_path), "--role", "api")


def refusal_of(engine: LocalEngine, *options: str) -> str:
    """Start a second engine on the data folder of `engine`, which must exit without a traceback. Return its stderr."""
    refused = engine.run_another("--port", "0", *options)
    assert refused.returncode not in (0, 1)
    assert "Traceback" not in refused.stderr
    return refused.stderr


async def test_accepted_jobs_survive_the_death_of_the_engine_under_load(start_program: EngineFactory) -> None:
    engine = start_program()
    async with engine.user() as user:
        accepted: list[str] = []

        async def keep_submitting() -> None:
            while True:
                try:
                    answer = await user.post("/api/jobs/submit", a_submission())
                except httpx2.TransportError:
                    return
                accepted.append(answer.json()["jobId"])

        async with asyncio.TaskGroup() as callers:
            tasks = [callers.create_task(keep_submitting()) for _ in range(10)]
            while len(accepted) < 100:
                await asyncio.sleep(0.001)
            engine.kill()
        assert all(task.done() for task in tasks)
        engine.start()

        assert {(await user.wait(job_id))["status"] for job_id in accepted} == {"completed"}


async def test_running_job_of_a_database_that_is_restored_alone_is_lost(start_program: EngineFactory) -> None:
    engine = start_program()
    async with engine.user() as user:
        job_id = await user.submit({"hang": True})
        await user.wait(job_id, "active")
        engine.stop()
        for pid in engine.processes_of(job_id):
            send_signal(pid, signal.SIGKILL)
        shutil.rmtree(engine.data_dir / "attempts")

        engine.start()

        detail = await user.wait(job_id)
        assert (detail["status"], detail["failedCode"], detail["attempts"]) == ("failed", "lost", 1)
        assert engine.processes_of(job_id) == []


@pytest.mark.parametrize("end", ENDINGS)
async def test_nobody_takes_the_port_of_an_engine_whose_jobs_run(
    start_program: EngineFactory, end: Callable[[LocalEngine], None]
) -> None:
    """An agent with an open network would get the keys of those who call it, and the engine could not start again."""
    engine = start_program()
    async with engine.user() as user:
        job_id = await user.submit({"log": "on"}, {"hang": True})
        await user.wait(job_id, "active")

        end(engine)
        for host in ("127.0.0.1", "0.0.0.0", "::1"):
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with pytest.raises(OSError, match="Address already in use"):
                    other.bind((host, int(engine.url.rpartition(":")[2])))
        engine.start()

        assert (await user.cancel(job_id))["id"] == job_id
