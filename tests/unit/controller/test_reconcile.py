"""The controller on fakes: each job from Pending to its end, whatever happens on the way."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TypeVar

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from labrats.controller.work_queue import ERROR_DELAY_SECONDS
from labrats.model.ai_model import AiModel
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import Invalid, Problem, RetryLater
from labrats.model.job import FailedCode, Job, KeyReference, Usage
from labrats.model.phases import Phase
from labrats.model.record import Resource
from labrats.ports import Attempt, AttemptState, Change, Gone
from labrats.settings import EngineSettings
from tests.fakes.clock import NOON
from tests.fakes.runner import MemoryRunner
from tests.support.builders import a_job, a_spec, an_error
from tests.unit.controller.lab import SETTINGS, Lab
from tests.unit.controller.trouble import Trouble, TroubledRunner, TroubledStore

R = TypeVar("R", bound=Resource)

P = Phase
HANG = {"hang": True}
STUBBORN = {"ignoreSignals": True}


def after(seconds: float) -> object:
    """A time of day on the virtual clock, to the millisecond."""
    return pytest.approx(seconds, abs=0.001)


def seconds_of(job: Job) -> float:
    """When the job ended, in seconds after noon."""
    assert job.status.finished_at
    return (job.status.finished_at - NOON).total_seconds()


# One job


async def test_a_job_runs_to_its_result(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 1500}, {"log": "done"}, {"usage": {"turns": 2}}, {"result": 42}])
        running, ended = await lab.started(job), await lab.ended(job)
    assert (running.status.attempts, running.status.slot) == (1, "mock/mock")
    assert (running.status.started_at, running.status.deadline_at) == (NOON, NOON + timedelta(milliseconds=3_300_000))
    assert (ended.phase, ended.status.result) == (P.SUCCEEDED, 42)
    assert (ended.status.logs, ended.status.usage) == (("done",), Usage(turns=2, cost_usd=0.0, seconds=1.5))
    assert ended.status.finished_at == NOON + timedelta(seconds=1.5)


async def test_a_job_that_was_waiting_before_the_controller_came_runs_too(lab: Lab) -> None:
    job = await lab.submit()
    async with lab.controller():
        assert (await lab.ended(job)).phase is P.SUCCEEDED


async def test_a_failure_names_its_code_and_reason(lab: Lab) -> None:
    async with lab.controller():
        ended = await lab.ended(await lab.submit([{"fail": "the tests are red"}]))
    assert ended.phase is P.FAILED
    assert (ended.status.failed_code, ended.status.failed_reason) == (FailedCode.AGENT_ERROR, "the tests are red")


async def test_a_failure_stands_in_the_log_of_the_engine(lab: Lab) -> None:
    with capture_logs() as logged:
        async with lab.controller():
            failed = await lab.ended(await lab.submit([{"fail": "the tests are red"}]))
            await lab.ended(await lab.submit())
    (entry,) = [entry for entry in logged if entry["event"] == "job failed"]
    assert (entry["job"], entry["attempts"]) == (failed.id, 1)
    assert (entry["code"], entry["reason"]) == (FailedCode.AGENT_ERROR, "the tests are red")


async def test_a_job_that_can_never_start_fails_and_frees_its_slot(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        hopeless = await lab.submit(prompt=None, prompt_ref=KeyReference(name="missing", key="prompt"))
        next_one = await lab.submit()
        ended = await lab.ended(hopeless)
        assert (await lab.ended(next_one)).phase is P.SUCCEEDED
    assert (ended.phase, ended.status.failed_code) == (P.FAILED, FailedCode.INTERNAL)
    assert ended.status.finished_at
    assert isinstance(await lab.runner.find(ended.attempt_name), Gone)


# Cancelling


async def test_a_waiting_job_that_is_cancelled_never_starts(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        first, second, third = [await lab.submit([{"sleepMs": 1000}]) for _ in range(3)]
        await lab.started(first)
        await lab.cancel(second)
        await lab.ended(third)
    assert AttemptName(second.id, 1) not in lab.machine.executors
    assert (await lab.job(second)).phase is P.CANCELLED


async def test_a_running_job_that_is_cancelled_is_asked_to_end_and_holds_its_slot_until_it_has(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        job, next_one = await lab.submit([STUBBORN, HANG]), await lab.submit()
        await lab.started(job)
        await lab.clock.advance(3)
        await lab.cancel(job)
        await lab.clock.advance(SETTINGS.stop_grace_seconds - 1)
        assert (await lab.job(job)).phase is P.RUNNING
        assert (await lab.job(next_one)).phase is P.PENDING
        ended = await lab.ended(job)
        await lab.ended(next_one)
    assert (ended.phase, ended.status.failed_code) == (P.CANCELLED, None)
    assert seconds_of(ended) == after(3 + SETTINGS.stop_grace_seconds)


async def test_an_obedient_job_that_is_cancelled_ends_at_once(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([HANG])
        await lab.started(job)
        await lab.clock.advance(3)
        await lab.cancel(job)
        assert seconds_of(await lab.ended(job)) == after(3)


@pytest.mark.parametrize("milliseconds", range(0, 40, 3))
async def test_a_cancel_at_any_moment_of_a_short_life_leaves_one_end(lab: Lab, milliseconds: int) -> None:
    trouble = Trouble(random.Random(milliseconds), failure_rate=0, call_seconds=0.005, watch_seconds=0.005)
    lab.controller_store = TroubledStore(lab.store, trouble)
    lab.controller_runner = TroubledRunner(lab.runner, trouble)
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 5}])
        await lab.clock.advance(milliseconds / 1000)
        before = await lab.job(job)
        if not before.ended:
            await lab.cancel(job)
        ended = await lab.ended(job)
        await lab.clock.advance(3600)
    assert ended.phase is (before.phase if before.ended else P.CANCELLED)
    assert await lab.job(job) == ended


# Deadlines


async def test_a_job_is_ended_at_its_deadline(lab: Lab) -> None:
    async with lab.controller():
        ended = await lab.ended(await lab.submit([HANG], config={"timeout_ms": 60_000}))
    assert (ended.phase, ended.status.failed_code) == (P.FAILED, FailedCode.TIMEOUT)
    assert seconds_of(ended) == after(60)


async def test_a_job_that_ignores_its_deadline_is_killed_after_the_grace(lab: Lab) -> None:
    async with lab.controller():
        ended = await lab.ended(await lab.submit([STUBBORN, HANG], config={"timeout_ms": 60_000}))
    assert ended.status.failed_code is FailedCode.TIMEOUT
    assert seconds_of(ended) == after(60 + SETTINGS.stop_grace_seconds)


async def test_a_deadline_holds_although_the_runner_never_says_a_word(lab: Lab) -> None:
    lab.controller_runner = SilentRunner(lab.store, lab.machine)
    async with lab.controller():
        ended = await lab.ended(await lab.submit([STUBBORN, HANG], config={"timeout_ms": 60_000}))
    assert seconds_of(ended) == after(60 + SETTINGS.stop_grace_seconds)


class SilentRunner(MemoryRunner):
    """Its watch has nothing to tell."""

    async def watch(self) -> AsyncIterator[AttemptName]:
        await asyncio.Event().wait()
        yield AttemptName("never", 1)


@pytest.mark.parametrize("down_until", [30, 65, 300])
async def test_a_deadline_holds_across_a_restart(lab: Lab, down_until: int) -> None:
    async with lab.controller():
        job = await lab.submit([STUBBORN, HANG], config={"timeout_ms": 60_000})
        await lab.started(job)
        await lab.clock.advance(20)
    await lab.clock.advance(down_until - 20)
    async with lab.controller():
        ended = await lab.ended(job)
    assert ended.status.failed_code is FailedCode.TIMEOUT
    assert seconds_of(ended) == after(max(60 + SETTINGS.stop_grace_seconds, down_until))


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_setting_the_clock_ends_no_job_early(lab: Lab, step: float) -> None:
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 50_000}, {"result": 1}], config={"timeout_ms": 60_000})
        await lab.started(job)
        await lab.clock.advance(1)
        lab.clock.step(step)
        assert (await lab.ended(job)).phase is P.SUCCEEDED


# Slots and order


@pytest.mark.parametrize("slots", [1, 3])
async def test_no_more_run_than_the_model_has_slots_and_all_of_them_do(lab: Lab, slots: int) -> None:
    await lab.set_slots(slots)
    async with lab.controller():
        for _ in range(7):
            await lab.submit([{"sleepMs": 1000}])
        phases = [P.PENDING]
        running = set()
        while P.PENDING in phases or P.RUNNING in phases:
            await lab.clock.advance(0.1)
            phases = [job.phase for job in await lab.store.list(Job)]
            running.add(phases.count(P.RUNNING))
    assert max(running) == slots


async def test_a_model_without_a_record_has_the_default_slots(lab: Lab) -> None:
    async with lab.controller():
        jobs = [await lab.submit([HANG]) for _ in range(5)]
        await lab.clock.advance(10)
        phases = [(await lab.job(job)).phase for job in jobs]
    assert phases.count(P.RUNNING) == SETTINGS.default_model_slots


async def test_jobs_start_by_priority_and_age(lab: Lab) -> None:
    await lab.set_slots(1)
    jobs = {}
    for name, priority in (("third", 2), ("first", 1), ("fourth", 2), ("last", 3), ("second", 1)):
        jobs[name] = await lab.submit([{"sleepMs": 1000}], priority=priority)
        await lab.clock.advance(1)
    async with lab.controller():
        ended = {name: await lab.ended(job) for name, job in jobs.items()}
    order = sorted(ended, key=lambda name: seconds_of(ended[name]))
    assert order == ["first", "second", "third", "fourth", "last"]


async def test_models_do_not_wait_for_each_other(lab: Lab) -> None:
    await lab.set_slots(1, model="busy")
    async with lab.controller():
        blocking = await lab.submit([HANG], config={"model": "busy"})
        blocked = await lab.submit(priority=0, config={"model": "busy"})
        free = await lab.submit(priority=9, config={"model": "free"})
        assert (await lab.ended(free)).phase is P.SUCCEEDED
        assert (await lab.job(blocking)).phase is P.RUNNING
        assert (await lab.job(blocked)).phase is P.PENDING


async def test_more_slots_start_more_jobs_at_once(lab: Lab) -> None:
    await lab.set_slots(0)
    async with lab.controller():
        jobs = [await lab.submit([HANG]) for _ in range(3)]
        await lab.clock.advance(60)
        assert [(await lab.job(job)).phase for job in jobs] == [P.PENDING] * 3
        await lab.set_slots(2)
        await lab.clock.advance(0)
        await lab.clock.advance(1)
        assert [(await lab.job(job)).phase for job in jobs].count(P.RUNNING) == 2


async def test_fewer_slots_end_nothing_and_start_nothing(lab: Lab) -> None:
    await lab.set_slots(2)
    async with lab.controller():
        first, second, third = [await lab.submit([{"sleepMs": n * 1000}]) for n in (1, 5, 1)]
        await lab.started(second)
        await lab.set_slots(1)
        await lab.ended(first)
        await lab.clock.advance(1)
        assert (await lab.job(third)).phase is P.PENDING
        await lab.ended(second)
        assert (await lab.ended(third)).phase is P.SUCCEEDED


async def test_a_job_that_was_to_start_does_not_when_its_model_is_paused_first(lab: Lab) -> None:
    lab.controller_store = store = FaultyStore(lab)
    async with lab.controller():
        store.faulty = "update"
        job = await lab.submit()
        await lab.clock.advance(5)
        await lab.set_slots(0)
        await lab.clock.advance(5)
        store.faulty = ""
        await lab.clock.advance(60)
        assert (await lab.job(job)).phase is P.PENDING
        await lab.set_slots(1)
        assert (await lab.ended(job)).phase is P.SUCCEEDED


async def test_a_model_that_is_deleted_falls_back_to_the_default_slots(lab: Lab) -> None:
    model = await lab.set_slots(0)
    async with lab.controller():
        job = await lab.submit()
        await lab.clock.advance(60)
        await lab.store.delete(AiModel, model.name)
        assert (await lab.ended(job)).phase is P.SUCCEEDED


async def test_no_slot_is_given_before_the_models_are_known(lab: Lab) -> None:
    await lab.set_slots(0)
    job = await lab.submit()
    lab.controller_store = store = FaultyStore(lab)
    store.held_back = AiModel
    async with lab.controller():
        await lab.clock.advance(60)
        store.held_back = None
        await lab.clock.advance(60)
        assert (await lab.job(job)).phase is P.PENDING


async def test_no_slot_is_given_before_every_running_job_is_known(lab: Lab) -> None:
    """Of jobs that a watch brings by name, the waiting one comes first; the running one holds the only slot."""
    await lab.set_slots(1)
    async with lab.controller():
        holder = await lab.submit([{"sleepMs": 60_000}], job_id="ir-ffffffff")
        await lab.started(holder)
    waiting = await lab.submit(job_id="ir-00000000")
    lab.controller_store = TroubledStore(lab.store, Trouble(random.Random(1), failure_rate=0, watch_seconds=1))
    async with lab.controller():
        await lab.clock.advance(30)
        assert (await lab.job(waiting)).phase is P.PENDING
        await lab.ended(holder)
        await lab.ended(waiting)


class FaultyStore(TroubledStore):
    """faulty: a call that does not get through. held_back: a kind whose changes nobody is told of for now."""

    faulty = ""
    held_back: type[Resource] | None = None

    def __init__(self, lab: Lab) -> None:
        no_trouble = Trouble(random.Random(1), failure_rate=0, call_seconds=1e-6, watch_seconds=1e-6)
        super().__init__(lab.store, no_trouble)

    async def watch(self, kind: type[R]) -> AsyncIterator[Change[R]]:
        async for change in super().watch(kind):
            while self.held_back is kind:
                await asyncio.sleep(1)
            yield change

    async def get(self, kind: type[R], name: str) -> R:
        self._reach("get")
        return await super().get(kind, name)

    async def update(self, resource: R) -> R:
        self._reach("update")
        return await super().update(resource)

    def _reach(self, call: str) -> None:
        if call == self.faulty:
            raise RetryLater(f"{call} does not get through")


# Further attempts


async def test_a_failed_attempt_is_repeated_after_a_while_when_the_job_allows(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"onAttempt": 1, "steps": [{"exit": 3}]}, {"result": "ok"}], config={"max_attempts": 2})
        put_back = await put_back_after_start(lab, job)
        ended = await lab.ended(job)
    assert put_back.status.failed_code is FailedCode.EXECUTOR_DIED
    assert put_back.status.not_before
    assert (ended.phase, ended.status.attempts, ended.status.failed_code) == (P.SUCCEEDED, 2, None)
    assert (ended.status.started_at, ended.status.not_before) == (put_back.status.not_before, None)
    assert sorted(lab.machine.executors) == [AttemptName(job.id, 1), AttemptName(job.id, 2)]


async def test_the_last_failure_stays(lab: Lab) -> None:
    async with lab.controller():
        ended = await lab.ended(await lab.submit([{"usage": {"turns": 1}}, {"fail": "no"}], config={"max_attempts": 3}))
    assert (ended.phase, ended.status.attempts, ended.status.usage.turns) == (P.FAILED, 3, 3)


async def test_a_job_between_attempts_holds_no_slot_and_keeps_its_place(lab: Lab) -> None:
    """Its pause over, it goes before the younger ones of its priority, though they waited all the time."""
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


async def test_a_job_whose_pause_is_over_when_it_is_put_back_is_not_overtaken(lab: Lab) -> None:
    await lab.set_slots(1)
    lab.settings = EngineSettings(retry_backoff_seconds=1e-9)
    async with lab.controller():
        script = [{"onAttempt": 1, "steps": [{"fail": "no"}]}]
        failing = await lab.submit(script, priority=1, config={"max_attempts": 2})
        later = await lab.submit([{"sleepMs": 10_000}])
        assert (await lab.ended(failing)).phase is P.SUCCEEDED
        assert (await lab.job(later)).phase is not P.SUCCEEDED


async def test_a_job_between_attempts_can_be_cancelled(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"fail": "no"}], config={"max_attempts": 2})
        await put_back_after_start(lab, job)
        await lab.cancel(job)
        await lab.clock.advance(3600)
    ended = await lab.job(job)
    assert (ended.phase, ended.status.attempts) == (P.CANCELLED, 1)


async def test_a_pause_between_attempts_holds_across_a_restart(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"onAttempt": 1, "steps": [{"fail": "no"}]}], config={"max_attempts": 2})
        put_back = await put_back_after_start(lab, job)
    async with lab.controller():
        ended = await lab.ended(job)
    assert ended.phase is P.SUCCEEDED
    assert ended.status.started_at == put_back.status.not_before


# A model that has to be left alone


def limited(seconds: float | None = None) -> Gone:
    """The end of an attempt whose provider asks to be left alone for so long."""
    return Gone(an_error(FailedCode.RATE_LIMITED, "slow down", retry_after_seconds=seconds))


async def refused(lab: Lab, job: Job, seconds: float | None = None) -> Job:
    """The job, put back since the provider refused its running attempt."""
    await end_of_running(lab, job, limited(seconds))
    return await lab.reaches(job, P.PENDING)


async def end_of_running(lab: Lab, job: Job, gone: Gone) -> None:
    """Have the running attempt end so."""
    running = await lab.started(job)
    while running.attempt_name not in lab.machine.executors:
        await asyncio.sleep(0)
    lab.machine.executors[running.attempt_name].end(gone)


async def test_a_rate_limit_pauses_the_model_and_no_other(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        limited_job = await lab.submit([{"onAttempt": 1, "steps": [HANG]}])
        waiting, elsewhere = await lab.submit(), await lab.submit(config={"model": "other"})
        put_back = await refused(lab, limited_job, 60)
        ends = [seconds_of(await lab.ended(job)) for job in (elsewhere, limited_job, waiting)]
    assert put_back.paused_until == NOON + timedelta(seconds=60)
    assert ends == [after(0), after(60), after(60)]
    ended = await lab.job(limited_job)
    assert (ended.phase, ended.status.attempts, ended.status.failed_code) == (P.SUCCEEDED, 2, None)


async def test_what_runs_on_a_paused_model_runs_on(lab: Lab) -> None:
    async with lab.controller():
        running = await lab.submit([{"sleepMs": 5_000}])
        await refused(lab, await lab.submit([{"onAttempt": 1, "steps": [HANG]}]), 60)
        assert seconds_of(await lab.ended(running)) == after(5)


async def test_a_pause_of_the_model_holds_across_a_restart(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        await refused(lab, await lab.submit([{"onAttempt": 1, "steps": [HANG]}]), 60)
    await lab.clock.advance(10)
    waiting = await lab.submit(priority=1)
    async with lab.controller():
        assert seconds_of(await lab.ended(waiting)) == after(60)


async def test_a_pause_of_the_model_outlasts_the_job_that_met_it(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        limited_job = await lab.submit([HANG])
        await refused(lab, limited_job, 60)
        await lab.cancel(limited_job)
        assert seconds_of(await lab.ended(await lab.submit())) == after(60)


async def test_a_job_is_put_back_up_to_its_deadline(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([HANG], config={"timeout_ms": 100_000})
        await refused(lab, job)
        await lab.clock.advance(30)
        put_back = await refused(lab, job)
        await lab.clock.advance(60)
        await end_of_running(lab, job, limited())
        ended = await lab.ended(job)
    assert put_back.status.pauses == 2
    assert (ended.phase, ended.status.failed_code) == (P.FAILED, FailedCode.RATE_LIMITED)
    assert (seconds_of(ended), ended.status.attempts) == (after(90), 3)


async def test_a_job_whose_time_runs_out_while_it_waits_fails_then(lab: Lab) -> None:
    """Its own pause is over, but others hold the slot that it needs."""
    await lab.set_slots(1)
    async with lab.controller():
        job = await lab.submit([HANG], config={"timeout_ms": 100_000})
        await refused(lab, job, 60)
        blocking = await lab.submit([HANG], priority=1)
        await lab.started(blocking)
        assert seconds_of(await lab.ended(job)) == after(100)


# Retries


async def test_a_retried_job_runs_again_as_the_next_attempt(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"onAttempt": 1, "steps": [{"fail": "no"}]}, {"result": "ok"}])
        assert (await lab.ended(job)).phase is P.FAILED
        await lab.retry(job)
        ended = await lab.reaches(job, P.SUCCEEDED)
    assert (ended.status.attempts, ended.status.failed_reason) == (2, None)


async def put_back_after_start(lab: Lab, job: Job) -> Job:
    """The job when it waits again after its first attempt."""
    await lab.started(job)
    return await lab.reaches(job, P.PENDING)


# Restarts


async def test_a_running_attempt_is_taken_over_after_a_restart(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 60_000}, {"result": "done"}])
        await lab.started(job)
        await lab.clock.advance(1)
    async with lab.controller():
        ended = await lab.ended(job)
    assert (ended.phase, ended.status.attempts) == (P.SUCCEEDED, 1)
    assert list(lab.machine.executors) == [AttemptName(job.id, 1)]


async def test_an_end_while_nobody_looked_is_recorded_after_a_restart(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 1_000}, {"result": "done"}])
        await lab.started(job)
        await lab.clock.advance(0.5)
    await lab.clock.advance(60)
    async with lab.controller():
        assert (await lab.ended(job)).phase is P.SUCCEEDED


async def test_an_attempt_that_was_recorded_but_not_started_is_started_after_a_restart(lab: Lab) -> None:
    recorded = a_job(P.RUNNING, spec=a_spec([{"result": "late"}]), deadline_at=NOON + timedelta(hours=1))
    job = await lab.store.create(recorded)
    async with lab.controller():
        ended = await lab.ended(job)
    assert (ended.phase, ended.status.attempts, ended.status.result) == (P.SUCCEEDED, 1, "late")


async def test_a_cancel_while_the_engine_was_down_is_honoured(lab: Lab) -> None:
    async with lab.controller():
        running = await lab.submit([STUBBORN, HANG])
        await lab.started(running)
        await lab.clock.advance(1)
    await lab.cancel(running)
    await lab.clock.advance(1)
    async with lab.controller():
        ended = await lab.ended(running)
    assert ended.phase is P.CANCELLED
    assert seconds_of(ended) == after(1 + SETTINGS.stop_grace_seconds)


async def test_a_deleted_job_is_ended_at_once_and_keeps_its_slot_until_it_has_ended(lab: Lab) -> None:
    await lab.set_slots(1)
    lab.controller_runner = runner = UnreachableRunner(lab.store, lab.machine)
    async with lab.controller():
        job, next_one = await lab.submit([STUBBORN, HANG]), await lab.submit()
        job = await lab.started(job)
        runner.unreachable = "kill"
        await lab.store.delete(Job, job.id)
        await lab.clock.advance(100)
        assert (await lab.job(next_one)).phase is P.PENDING
        runner.unreachable = ""
        assert (await lab.ended(next_one)).phase is P.SUCCEEDED
    assert job.attempt_name not in lab.machine.executors


async def test_a_waiting_job_that_is_deleted_never_starts(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        first, waiting = await lab.submit([{"sleepMs": 1000}]), await lab.submit()
        await lab.started(first)
        await lab.store.delete(Job, waiting.id)
        await lab.ended(first)
        await lab.ended(await lab.submit())
    assert AttemptName(waiting.id, 1) not in lab.machine.executors


async def test_a_job_with_the_name_of_a_deleted_one_waits_until_that_has_ended(lab: Lab) -> None:
    lab.controller_runner = runner = UnreachableRunner(lab.store, lab.machine)
    async with lab.controller():
        deleted = await lab.started(await lab.submit([STUBBORN, HANG], job_id="ir-00000001"))
        runner.unreachable = "kill"
        await lab.store.delete(Job, deleted.id)
        await lab.store.delete(Job, (await lab.submit([HANG], job_id=deleted.id)).id)
        successor = await lab.submit([{"result": "mine"}], job_id=deleted.id)
        await lab.clock.advance(100)
        assert (await lab.job(successor)).phase is P.PENDING
        runner.unreachable = ""
        ended = await lab.ended(successor)
    assert (ended.status.result, ended.status.attempts) == ("mine", 1)


# Trouble


async def test_an_unforeseen_error_on_one_job_stops_no_other(lab: Lab) -> None:
    await lab.set_slots(2)
    lab.controller_runner = runner = BrokenRunner(lab.store, lab.machine)
    async with lab.controller():
        runner.poison = await lab.submit()
        others = [await lab.submit() for _ in range(5)]
        assert [(await lab.ended(job)).phase for job in others] == [P.SUCCEEDED] * 5
        assert (await lab.job(runner.poison)).phase is P.RUNNING
        await lab.clock.advance(2.5 * ERROR_DELAY_SECONDS)
        assert runner.calls == 3
        healed, runner.poison = runner.poison, None
        assert (await lab.ended(healed)).phase is P.SUCCEEDED


class BrokenRunner(MemoryRunner):
    """Has a bug that one job meets."""

    poison: Job | None = None
    calls = 0

    async def start(self, attempt: Attempt) -> None:
        if self.poison and attempt.job.id == self.poison.id:
            self.calls += 1
            raise ZeroDivisionError
        await super().start(attempt)


@pytest.mark.parametrize(("call", "seconds"), [("start", 30), ("find", 300), ("kill", 300)])
async def test_a_runner_out_of_reach_is_tried_again(lab: Lab, call: str, seconds: float) -> None:
    lab.controller_runner = runner = UnreachableRunner(lab.store, lab.machine)
    runner.unreachable = call
    async with lab.controller():
        job = await lab.submit([STUBBORN, {"log": "ran"}, HANG], config={"timeout_ms": 60_000})
        await lab.clock.advance(seconds)
        assert (await lab.job(job)).phase is P.RUNNING
        runner.unreachable = ""
        ended = await lab.ended(job)
    assert ended.status.failed_code is FailedCode.TIMEOUT
    assert ended.status.logs == (() if call == "find" else ("ran",))
    assert list(lab.machine.executors) == [AttemptName(job.id, 1)]


async def test_what_cannot_be_asked_to_end_is_killed(lab: Lab) -> None:
    lab.controller_runner = runner = UnreachableRunner(lab.store, lab.machine)
    runner.unreachable = "stop"
    async with lab.controller():
        ended = await lab.ended(await lab.submit([HANG], config={"timeout_ms": 60_000}))
    assert 60 + SETTINGS.stop_grace_seconds <= seconds_of(ended) <= 60 + SETTINGS.stop_grace_seconds + 1


class UnreachableRunner(MemoryRunner):
    """One of its calls does not get through."""

    unreachable = ""

    async def start(self, attempt: Attempt) -> None:
        self._reach("start")
        await super().start(attempt)

    async def find(self, name: AttemptName) -> AttemptState:
        self._reach("find")
        return await super().find(name)

    async def stop(self, name: AttemptName) -> None:
        self._reach("stop")
        await super().stop(name)

    async def kill(self, name: AttemptName) -> None:
        self._reach("kill")
        await super().kill(name)

    def _reach(self, call: str) -> None:
        if call == self.unreachable:
            raise RetryLater(f"{call} does not get through")


async def test_a_store_that_cannot_be_written_is_tried_again(lab: Lab) -> None:
    lab.controller_store = store = FaultyStore(lab)
    async with lab.controller():
        store.faulty = "update"
        job = await lab.submit([{"sleepMs": 1000}])
        await lab.clock.advance(60)
        assert (await lab.job(job)).phase is P.PENDING
        store.faulty = ""
        await lab.started(job)
        store.faulty = "update"
        await lab.clock.advance(60)
        assert (await lab.job(job)).phase is P.RUNNING
        store.faulty = ""
        assert (await lab.ended(job)).phase is P.SUCCEEDED


async def test_a_job_whose_outcome_no_store_takes_has_failed(lab: Lab) -> None:
    lab.controller_store = ParticularStore(lab)
    async with lab.controller():
        ended = await lab.ended(await lab.submit([{"usage": {"inputTokens": 10**9}}]))
    assert (ended.status.failed_code, ended.status.usage) == (FailedCode.INTERNAL, Usage())
    assert ended.status.failed_reason == "what became of the job cannot be kept: status.usage.inputTokens: is too large"


class ParticularStore(FaultyStore):
    """Takes no number above a million."""

    async def update(self, resource: R) -> R:
        if isinstance(resource, Job) and resource.status.usage.input_tokens > 10**6:
            raise Invalid(Problem("status.usage.inputTokens", "is too large"))
        return await super().update(resource)


async def test_a_store_that_cannot_be_read_after_a_conflict_is_tried_again(lab: Lab) -> None:
    lab.controller_store = store = FaultyStore(lab)
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 1000}])
        await lab.started(job)
        store.held_back = Job
        await lab.cancel(job)
        store.faulty = "get"
        await lab.clock.advance(30)
        assert (await lab.job(job)).phase is P.RUNNING
        store.faulty = ""
        assert (await lab.ended(job)).phase is P.CANCELLED


async def test_a_job_that_somebody_else_wrote_meanwhile_is_started_as_it_is_now(lab: Lab) -> None:
    await lab.set_slots(0)
    lab.controller_store = store = FaultyStore(lab)
    async with lab.controller():
        job = await lab.submit()
        await lab.clock.advance(1)
        store.held_back = Job
        await lab.store.update(replace(job, metadata=replace(job.metadata, labels={"by": "hand"})))
        await lab.set_slots(1)
        ended = await lab.ended(job)
    assert ended.metadata.labels == {"by": "hand"}


async def test_a_job_that_somebody_else_deleted_meanwhile_gives_its_slot_back(lab: Lab) -> None:
    await lab.set_slots(1)
    lab.controller_store = store = FaultyStore(lab)
    async with lab.controller():
        deleted, next_one = await lab.submit([{"sleepMs": 1000}], priority=1), await lab.submit()
        await lab.started(deleted)
        await lab.clock.advance(0.5)
        store.held_back = Job
        await lab.store.delete(Job, deleted.id)
        assert (await lab.ended(next_one)).phase is P.SUCCEEDED
