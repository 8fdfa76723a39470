"""Attempts after the first: repeated by the engine, or retried on request."""

from typing import TypeVar

import pytest

from labrats.model.attempt_name import AttemptName
from labrats.model.job import FailedCode, Job
from labrats.model.phases import Phase
from labrats.model.record import Resource
from labrats.ports import Attempt
from labrats.settings import EngineSettings
from tests.unit.controller.lab import Lab, after, seconds_of

R = TypeVar("R", bound=Resource)
P = Phase


async def test_a_failed_attempt_is_repeated_after_a_backoff_if_attempts_remain(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"onAttempt": 1, "steps": [{"exit": 3}]}, {"result": "ok"}], config={"max_attempts": 2})
        requeued = await requeued_after_start(lab, job)
        ended = await lab.ended(job)
    assert requeued.status.failed_code is FailedCode.EXECUTOR_DIED
    assert requeued.status.not_before
    assert (ended.phase, ended.status.attempts, ended.status.failed_code) == (P.SUCCEEDED, 2, None)
    assert (ended.status.started_at, ended.status.not_before) == (requeued.status.not_before, None)
    assert sorted(lab.machine.executors) == [AttemptName(job.id, 1), AttemptName(job.id, 2)]


async def test_the_last_failure_is_the_outcome(lab: Lab) -> None:
    async with lab.controller():
        ended = await lab.ended(await lab.submit([{"usage": {"turns": 1}}, {"fail": "no"}], config={"max_attempts": 3}))
    assert (ended.phase, ended.status.attempts, ended.status.usage.turns) == (P.FAILED, 3, 3)


async def test_a_requeued_job_holds_no_slot_and_keeps_its_place_in_the_queue(lab: Lab) -> None:
    """After its backoff it starts before younger jobs of its priority, which waited all the time."""
    await lab.set_slots(1)
    async with lab.controller():
        script = [{"onAttempt": 1, "steps": [{"sleepMs": 5_000}, {"fail": "no"}]}]
        failing = await lab.submit(script, config={"max_attempts": 2})
        await lab.clock.advance(1)
        younger = await lab.submit([{"sleepMs": 10_000}])
        await lab.clock.advance(1)
        youngest = await lab.submit([{"sleepMs": 10_000}])
        ends = [seconds_of(await lab.ended(job)) for job in (younger, failing, youngest)]
    assert ends == [after(15), after(15), after(25)]


async def test_a_job_requeued_after_its_backoff_is_not_overtaken(lab: Lab) -> None:
    await lab.set_slots(1)
    lab.settings = EngineSettings(retry_backoff_seconds=1e-9)
    async with lab.controller():
        script = [{"onAttempt": 1, "steps": [{"fail": "no"}]}]
        failing = await lab.submit(script, priority=1, config={"max_attempts": 2})
        later = await lab.submit([{"sleepMs": 10_000}])
        assert (await lab.ended(failing)).phase is P.SUCCEEDED
        assert (await lab.job(later)).phase is not P.SUCCEEDED


async def test_a_requeued_job_can_be_cancelled(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"fail": "no"}], config={"max_attempts": 2})
        await requeued_after_start(lab, job)
        await lab.cancel(job)
        await lab.clock.advance(3600)
    ended = await lab.job(job)
    assert (ended.phase, ended.status.attempts) == (P.CANCELLED, 1)


async def test_a_backoff_holds_across_a_restart(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"onAttempt": 1, "steps": [{"fail": "no"}]}], config={"max_attempts": 2})
        requeued = await requeued_after_start(lab, job)
    async with lab.controller():
        ended = await lab.ended(job)
    assert ended.phase is P.SUCCEEDED
    assert ended.status.started_at == requeued.status.not_before


async def test_a_retried_job_runs_again_as_the_next_attempt(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"onAttempt": 1, "steps": [{"fail": "no"}]}, {"result": "ok"}])
        assert (await lab.ended(job)).phase is P.FAILED
        await lab.retry(job)
        ended = await lab.reaches(job, P.SUCCEEDED)
    assert (ended.status.attempts, ended.status.failed_reason) == (2, None)


async def test_a_follow_up_does_not_continue_another_job_that_got_the_id(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[Job | None] = []
    start = lab.runner.start

    async def note(attempt: Attempt) -> None:
        followed.append(attempt.followed)
        await start(attempt)

    monkeypatch.setattr(lab.runner, "start", note)
    async with lab.controller():
        first = await lab.ended(await lab.submit())
        for uid in (first.metadata.uid, "of-a-deleted-job", None):  # None: stored by an earlier version
            await lab.ended(await lab.submit(follow_up_of=first.id, follow_up_uid=uid))
    assert [each and each.id for each in followed] == [None, first.id, None, first.id]


async def requeued_after_start(lab: Lab, job: Job) -> Job:
    """Wait until the job has started and is requeued, and return it."""
    await lab.started(job)
    return await lab.reaches(job, P.PENDING)
