"""The contract of every Runner (labrats/ports.py): the state of attempts, and their ends."""

import asyncio
from typing import Any

import pytest

from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import ErrorEvent
from labrats.ports import Alive, Gone, Runner
from tests.conformance.attempts import HANG, end_of, ends_of, first_reported_end, until_logged
from tests.conformance.runner_backends import RunnerBackend
from tests.support.builders import an_attempt
from tests.support.waiting import DEADLINE_SECONDS


async def test_a_running_attempt_is_alive(runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    await runner.start(attempt)
    assert isinstance(await runner.find(attempt.name), Alive)
    await until_logged(runner, attempt, "here")
    assert isinstance(await runner.find(attempt.name), Alive)


async def test_a_failure_has_its_code_and_reason(runner: Runner) -> None:
    attempt = an_attempt([{"fail": "the tests are red"}])
    await runner.start(attempt)
    outcome = (await end_of(runner, attempt)).outcome
    assert isinstance(outcome, ErrorEvent)
    assert (outcome.code, outcome.message) == (FailedCode.AGENT_ERROR, "the tests are red")


async def test_an_executor_that_dies_without_an_outcome_is_reported_with_its_exit_status(runner: Runner) -> None:
    deaths = {
        "exited with code 3": {"exit": 3},
        "exited with code 0": {"exit": 0},
        "killed by signal 9": {"signal": 9},
        "killed by signal 11": {"signal": 11},
    }
    begin: list[dict[str, Any]] = [{"log": "so far"}, {"usage": {"inputTokens": 7}}]
    for words, gone in zip(deaths, await ends_of(runner, [[*begin, step] for step in deaths.values()]), strict=True):
        assert (gone.outcome, gone.code) == (None, FailedCode.EXECUTOR_DIED)
        assert words in gone.reason
        assert (gone.tail.logs, gone.tail.usage) == (("so far",), Usage(input_tokens=7, cost_usd=0.0))


async def test_an_executor_that_is_killed_is_reported_with_the_signal(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    await runner.start(attempt)
    await until_logged(runner, attempt, "here")
    backend.crash(attempt.name)
    gone = await end_of(runner, attempt)
    assert (gone.outcome, gone.code) == (None, FailedCode.EXECUTOR_DIED)
    assert "signal 9" in gone.reason


async def test_an_executor_whose_end_was_not_observed_is_lost(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    await runner.start(attempt)
    await until_logged(runner, attempt, "here")
    await backend.crash_unseen(attempt.name)
    gone = await end_of(runner, attempt)
    assert (gone.outcome, gone.code) == (None, FailedCode.LOST)
    assert gone.tail.logs == ("here",)


async def test_the_usage_of_the_outcome_is_the_sum(runner: Runner) -> None:
    attempt = an_attempt([{"usage": {"inputTokens": 10, "costUsd": 0.5}}, {"usage": {"inputTokens": 5, "turns": 1}}])
    await runner.start(attempt)
    gone = await end_of(runner, attempt)
    assert gone.outcome is not None
    assert gone.outcome.usage == gone.tail.usage == Usage(input_tokens=15, cost_usd=0.5, turns=1)


@pytest.mark.parametrize("steps", [[], [{"exit": 3}], [HANG]])
async def test_a_watch_reports_every_end(runner: Runner, steps: list[object]) -> None:
    attempt = an_attempt(steps)
    async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as tasks:
        reported = tasks.create_task(first_reported_end(runner, attempt))
        await asyncio.sleep(0)
        await runner.start(attempt)
        if steps == [HANG]:
            await runner.kill(attempt.name)
        assert isinstance(await reported, Gone)
