"""The contract of every Runner (labrats/ports.py): starting attempts."""

import asyncio

import pytest
from msgspec.structs import replace

from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, KeyReference
from labrats.model.protocol import ErrorEvent, ResultEvent
from labrats.ports import Alive, Attempt, Gone, NotStarted, Runner
from tests.conformance.attempts import HANG, end_of, events_of, eventually_one_process, logs_in, until_logged
from tests.conformance.runner_backends import RunnerBackend
from tests.support.builders import a_session, a_spec, an_attempt


async def test_a_started_attempt_runs_to_its_result(runner: Runner) -> None:
    attempt = an_attempt([{"log": "hello"}, {"result": {"answer": 42}}])
    await runner.start(attempt)
    gone = await end_of(runner, attempt)
    assert isinstance(gone.outcome, ResultEvent)
    assert gone.outcome.result == {"answer": 42}
    assert gone.tail.logs == ("hello",)


async def test_an_attempt_is_not_started_before_start(runner: Runner) -> None:
    assert await runner.find(an_attempt().name) == NotStarted()


async def test_a_repeated_start_does_nothing(runner: Runner) -> None:
    attempt = an_attempt([{"log": "once"}, HANG])
    await runner.start(attempt)
    await runner.start(attempt)
    await until_logged(runner, attempt, "once")
    await runner.start(attempt)
    await runner.kill(attempt.name)
    await runner.start(attempt)
    assert logs_in(await events_of(runner, attempt)) == ["once"]
    assert isinstance(await runner.find(attempt.name), Gone)


async def test_an_ended_attempt_is_not_started_again(runner: Runner) -> None:
    attempt = an_attempt([{"log": "once"}])
    await runner.start(attempt)
    ended = await end_of(runner, attempt)
    await runner.start(attempt)
    assert await runner.find(attempt.name) == ended
    assert logs_in(await events_of(runner, attempt)) == ["once"]


async def test_concurrent_starts_of_an_attempt_run_one_executor(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"log": "once"}, HANG])
    async with backend.open_runner() as other_engine:
        await asyncio.gather(*(each.start(attempt) for each in (runner, other_engine, runner, other_engine)))
        await until_logged(runner, attempt, "once")
        await eventually_one_process(backend, attempt)
        assert isinstance(await runner.find(attempt.name), Alive)
        assert isinstance(await other_engine.find(attempt.name), Alive)
        await other_engine.kill(attempt.name)
        assert backend.living_processes(attempt.name) == 0
    assert logs_in(await events_of(runner, attempt)) == ["once"]


async def test_many_attempts_run_side_by_side(runner: Runner) -> None:
    attempts = [an_attempt([{"log": f"job {number}"}, {"result": number}]) for number in range(6)]
    await asyncio.gather(*(runner.start(attempt) for attempt in attempts))
    results = []
    for number, attempt in enumerate(attempts):
        gone = await end_of(runner, attempt)
        assert isinstance(gone.outcome, ResultEvent)
        assert gone.tail.logs == (f"job {number}",)
        results.append(gone.outcome.result)
    assert results == list(range(6))


async def test_the_attempts_of_a_job_are_independent(runner: Runner) -> None:
    steps = [{"onAttempt": 1, "steps": [{"fail": "not yet"}]}, {"result": "now"}]
    first = an_attempt(steps)
    second = Attempt(replace(first.job, status=replace(first.job.status, attempts=2)))
    await runner.start(first)
    assert isinstance((await end_of(runner, first)).outcome, ErrorEvent)
    assert await runner.find(second.name) == NotStarted()
    await runner.start(second)
    assert isinstance((await end_of(runner, second)).outcome, ResultEvent)


async def test_an_attempt_starts_over_and_logs_it_if_the_workspace_of_its_session_is_gone(runner: Runner) -> None:
    second = an_attempt([{"log": "here"}], number=2)
    second = Attempt(replace(second.job, status=replace(second.job.status, session=a_session(1))))
    await runner.start(second)
    gone = await end_of(runner, second)
    assert isinstance(gone.outcome, ResultEvent)
    assert gone.tail.logs == ("[starting over: attempt 1 had a session, but its workspace no longer exists]", "here")


async def test_an_attempt_that_can_never_start_raises_give_up(runner: Runner) -> None:
    job = replace(an_attempt().job, spec=a_spec(prompt=None, prompt_ref=KeyReference(name="missing", key="prompt")))
    with pytest.raises(GiveUp, match="prompt") as refusal:
        await runner.start(Attempt(job))
    assert FailedCode(refusal.value.code) is FailedCode.INTERNAL
    assert await runner.find(job.attempt_name) == NotStarted()
