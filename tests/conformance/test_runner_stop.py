"""The contract of every Runner (labrats/ports.py): stopping and killing attempts."""

import asyncio
from typing import Any

import pytest

from labrats.model.protocol import ErrorEvent
from labrats.ports import Alive, Gone, NotStarted, Runner
from tests.conformance.attempts import (
    HANG,
    LEAVE_CHILD,
    LEAVE_DETACHED_CHILD,
    STUBBORN,
    end_of,
    events_of,
    until_logged,
)
from tests.conformance.runner_backends import RunnerBackend
from tests.support.builders import an_attempt
from tests.support.waiting import DEADLINE_SECONDS, eventually

# Stop


async def test_a_stopped_attempt_ends_with_an_error_event(runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    await runner.start(attempt)
    await until_logged(runner, attempt, "here")
    await runner.stop(attempt.name)
    await runner.stop(attempt.name)
    gone = await end_of(runner, attempt)
    assert isinstance(gone.outcome, ErrorEvent)
    assert gone.outcome.message == "stopped on request"


async def test_an_engine_that_started_later_can_stop_an_attempt(backend: RunnerBackend) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    async with backend.open_runner() as first:
        await first.start(attempt)
        await until_logged(first, attempt, "here")
    async with backend.open_runner() as second:
        await second.stop(attempt.name)
        assert isinstance((await end_of(second, attempt)).outcome, ErrorEvent)


async def test_stop_of_an_attempt_that_does_not_run_is_harmless(runner: Runner) -> None:
    never_started, ended = an_attempt(), an_attempt([{"result": 1}])
    await runner.stop(never_started.name)
    assert await runner.find(never_started.name) == NotStarted()
    await runner.start(ended)
    before = await end_of(runner, ended)
    await runner.stop(ended.name)
    assert await runner.find(ended.name) == before


async def test_an_attempt_may_ignore_stop(runner: Runner) -> None:
    attempt = an_attempt([STUBBORN, {"log": "tick {n}", "times": 100_000, "everyMs": 2}])
    await runner.start(attempt)
    await until_logged(runner, attempt, "tick 3")
    await runner.stop(attempt.name)
    ticks = len(await events_of(runner, attempt))
    await until_logged(runner, attempt, f"tick {ticks + 5}")
    assert isinstance(await runner.find(attempt.name), Alive)
    await runner.kill(attempt.name)


# Kill


async def test_kill_ends_an_attempt_that_ignores_signals_and_all_its_processes(
    backend: RunnerBackend, runner: Runner
) -> None:
    left = [[], [LEAVE_CHILD], [LEAVE_DETACHED_CHILD], [LEAVE_CHILD, LEAVE_DETACHED_CHILD]]

    async def run_and_kill(leave: list[dict[str, Any]]) -> None:
        attempt = an_attempt([STUBBORN, *leave, {"log": "here"}, HANG])
        await runner.start(attempt)
        await until_logged(runner, attempt, "here")
        assert backend.living_processes(attempt.name) == 1 + len(leave)
        await runner.kill(attempt.name)
        assert backend.living_processes(attempt.name) == 0
        gone = await runner.find(attempt.name)
        assert isinstance(gone, Gone)
        assert gone.outcome is None
        assert gone.tail.logs == ("here",)

    await asyncio.gather(*map(run_and_kill, left))


async def test_an_engine_that_started_later_can_kill_an_attempt(backend: RunnerBackend) -> None:
    attempt = an_attempt([STUBBORN, {"log": "here"}, HANG])
    async with backend.open_runner() as first:
        await first.start(attempt)
        await until_logged(first, attempt, "here")
    async with backend.open_runner() as second, asyncio.timeout(DEADLINE_SECONDS):
        await second.kill(attempt.name)
        assert isinstance(await second.find(attempt.name), Gone)
    assert backend.living_processes(attempt.name) == 0


async def test_an_attempt_killed_before_its_start_never_starts(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"log": "must not be"}])
    await runner.kill(attempt.name)
    assert isinstance(await runner.find(attempt.name), Gone)
    await runner.start(attempt)
    async with backend.open_runner() as other_engine:
        await other_engine.start(attempt)
        assert isinstance(await other_engine.find(attempt.name), Gone)
    assert isinstance(await runner.find(attempt.name), Gone)
    assert await events_of(runner, attempt) == []


@pytest.mark.parametrize("head_start", range(8))
async def test_kill_wins_over_a_concurrent_start(backend: RunnerBackend, runner: Runner, head_start: int) -> None:
    attempt = an_attempt([STUBBORN, HANG])
    start = asyncio.create_task(runner.start(attempt))
    for _ in range(head_start):
        await asyncio.sleep(0)
    await runner.kill(attempt.name)
    assert isinstance(await runner.find(attempt.name), Gone)
    await start
    assert isinstance(await runner.find(attempt.name), Gone)
    await eventually(lambda: backend.living_processes(attempt.name) == 0)


async def test_a_repeated_or_late_kill_changes_nothing(runner: Runner) -> None:
    attempt = an_attempt([{"result": "done"}])
    await runner.start(attempt)
    ended = await end_of(runner, attempt)
    await runner.kill(attempt.name)
    await runner.kill(attempt.name)
    assert await runner.find(attempt.name) == ended


async def test_an_attempt_that_is_gone_has_no_processes(backend: RunnerBackend, runner: Runner) -> None:
    async def run(ending: dict[str, Any]) -> None:
        attempt = an_attempt([LEAVE_CHILD, LEAVE_DETACHED_CHILD, ending])
        await runner.start(attempt)
        await end_of(runner, attempt)
        assert backend.living_processes(attempt.name) == 0

    await asyncio.gather(*(run(ending) for ending in ({"result": 1}, {"fail": "no"}, {"exit": 3}, {"signal": 9})))


async def test_an_attempt_whose_end_was_not_observed_has_no_processes(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([LEAVE_CHILD, LEAVE_DETACHED_CHILD, {"log": "here"}, HANG])
    await runner.start(attempt)
    await until_logged(runner, attempt, "here")
    await backend.crash_unseen(attempt.name)
    await end_of(runner, attempt)
    assert backend.living_processes(attempt.name) == 0
