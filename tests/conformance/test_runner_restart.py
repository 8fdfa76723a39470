"""The contract of every Runner (labrats/ports.py): attempts that outlive the engine or its helpers."""

import pytest

from labrats.model.job import FailedCode
from labrats.model.protocol import ResultEvent
from labrats.ports import Alive, Gone, Runner
from tests.conformance.attempts import (
    HANG,
    LEAVE_DETACHED_CHILD,
    STUBBORN,
    end_of,
    events_of,
    logs_in,
    start_with_retries,
    until_logged,
)
from tests.conformance.runner_backends import RunnerBackend
from tests.support.builders import an_attempt
from tests.support.waiting import eventually


async def test_attempts_outlive_the_engine(backend: RunnerBackend) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 40, "everyMs": 10}, {"result": "done"}])
    async with backend.open_runner() as first:
        await first.start(attempt)
        await until_logged(first, attempt, "tick 3")
    async with backend.open_runner() as second:
        assert isinstance(await second.find(attempt.name), Alive)
        events = await events_of(second, attempt, follow=True)
        gone = await second.find(attempt.name)
    assert logs_in(events) == [f"tick {n}" for n in range(1, 41)]
    assert isinstance(gone, Gone)
    assert isinstance(gone.outcome, ResultEvent)


@pytest.mark.parametrize(
    ("step", "code"), [({"result": 1}, None), ({"exit": 3}, FailedCode.EXECUTOR_DIED)], ids=["result", "exit"]
)
async def test_an_end_that_no_engine_observed_is_found(
    backend: RunnerBackend, step: dict[str, int], code: FailedCode | None
) -> None:
    attempt = an_attempt([{"log": "here"}, {"sleepMs": 100}, step])
    async with backend.open_runner() as first:
        await first.start(attempt)
        await until_logged(first, attempt, "here")
    await eventually(lambda: backend.living_processes(attempt.name) == 0)
    async with backend.open_runner() as second:
        gone = await end_of(second, attempt)
    assert gone.code is code if code else isinstance(gone.outcome, ResultEvent)


async def test_attempts_outlive_the_helpers(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 40, "everyMs": 10}, {"result": "done"}])
    await runner.start(attempt)
    await until_logged(runner, attempt, "tick 3")
    backend.kill_helpers()
    assert isinstance((await end_of(runner, attempt)).outcome, ResultEvent)
    next_attempt = an_attempt([{"result": "started"}])
    await start_with_retries(runner, next_attempt)
    assert isinstance((await end_of(runner, next_attempt)).outcome, ResultEvent)


async def test_an_attempt_that_outlived_the_helpers_can_be_killed(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([STUBBORN, LEAVE_DETACHED_CHILD, {"log": "here"}, HANG])
    await runner.start(attempt)
    await until_logged(runner, attempt, "here")
    backend.kill_helpers()
    await runner.kill(attempt.name)
    assert isinstance(await runner.find(attempt.name), Gone)
    assert backend.living_processes(attempt.name) == 0
