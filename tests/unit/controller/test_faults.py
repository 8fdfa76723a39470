"""Faults of the store, the runner and the engine, and concurrent writers."""

import asyncio
from typing import TypeVar

import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes.client import error_of
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import Invalid, Problem
from labrats.model.job import FailedCode, Job, Usage
from labrats.model.phases import Phase
from labrats.model.record import Resource
from labrats.ports import Attempt, Store
from labrats.work_queue import ERROR_DELAY_SECONDS
from tests.fakes.runner import MemoryRunner
from tests.unit.controller.lab import HANG, SETTINGS, STUBBORN, Lab, seconds_of
from tests.unit.controller.trouble import FaultyStore, UnreachableRunner

R = TypeVar("R", bound=Resource)
P = Phase


async def test_an_unexpected_error_on_one_job_stops_no_other(lab: Lab) -> None:
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
    """A runner with a bug that one job triggers. poison: that job."""

    poison: Job | None = None
    calls = 0

    async def start(self, attempt: Attempt) -> None:
        if self.poison and attempt.job.id == self.poison.id:
            self.calls += 1
            raise ZeroDivisionError
        await super().start(attempt)


@pytest.mark.parametrize(("call", "seconds"), [("start", 30), ("find", 300), ("kill", 300)])
async def test_a_call_to_an_unreachable_runner_is_repeated(lab: Lab, call: str, seconds: float) -> None:
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


async def test_an_attempt_that_cannot_be_stopped_is_killed(lab: Lab) -> None:
    lab.controller_runner = runner = UnreachableRunner(lab.store, lab.machine)
    runner.unreachable = "stop"
    async with lab.controller():
        ended = await lab.ended(await lab.submit([HANG], config={"timeout_ms": 60_000}))
    assert 60 + SETTINGS.stop_grace_seconds <= seconds_of(ended) <= 60 + SETTINGS.stop_grace_seconds + 1


async def test_a_failed_write_to_the_store_is_repeated(lab: Lab) -> None:
    lab.controller_store = store = FaultyStore(lab.store)
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


async def test_a_job_whose_outcome_cannot_be_stored_fails(lab: Lab) -> None:
    lab.controller_store = ParticularStore(lab.store)
    async with lab.controller():
        ended = await lab.ended(await lab.submit([{"usage": {"inputTokens": 10**9}}]))
    assert (ended.status.failed_code, ended.status.usage) == (FailedCode.INTERNAL, Usage())
    reason = "the outcome of the job cannot be stored: status.usage.inputTokens: is too large"
    assert ended.status.failed_reason == reason


class ParticularStore(FaultyStore):
    """A store that refuses numbers above a million."""

    async def update(self, resource: R) -> R:
        if isinstance(resource, Job) and resource.status.usage.input_tokens > 10**6:
            raise Invalid(Problem("status.usage.inputTokens", "is too large"))
        return await super().update(resource)


async def test_a_failed_read_after_a_conflict_is_repeated(lab: Lab) -> None:
    lab.controller_store = store = FaultyStore(lab.store)
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


async def test_a_job_that_another_writer_changed_is_started_with_the_change(lab: Lab) -> None:
    await lab.set_slots(0)
    lab.controller_store = store = FaultyStore(lab.store)
    async with lab.controller():
        job = await lab.submit()
        await lab.clock.advance(1)
        store.held_back = Job
        await lab.store.update(replace(job, metadata=replace(job.metadata, labels={"by": "hand"})))
        await lab.set_slots(1)
        ended = await lab.ended(job)
    assert ended.metadata.labels == {"by": "hand"}


async def test_a_waiting_job_that_became_invalid_keeps_no_slot_from_others(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        first = await lab.submit([{"sleepMs": 10_000}])
        await lab.started(first)
        second = await lab.submit()
        await lab.clock.advance(1)
        lab.store.spoiled.add(second.id)
        third = await lab.submit()
        assert (await lab.ended(third)).phase is P.SUCCEEDED
        lab.store.spoiled.clear()
        await lab.store.update(replace(second, metadata=replace(second.metadata, labels={"fixed": "yes"})))
        assert (await lab.ended(second)).phase is P.SUCCEEDED


async def test_a_job_that_another_writer_deleted_releases_its_slot(lab: Lab) -> None:
    await lab.set_slots(1)
    lab.controller_store = store = FaultyStore(lab.store)
    async with lab.controller():
        deleted, next_one = await lab.submit([{"sleepMs": 1000}], priority=1), await lab.submit()
        await lab.started(deleted)
        await lab.clock.advance(0.5)
        store.held_back = Job
        await lab.store.delete(Job, deleted.id)
        assert (await lab.ended(next_one)).phase is P.SUCCEEDED


async def test_a_job_that_was_fixed_before_the_answer_about_its_former_version_runs(lab: Lab) -> None:
    await lab.set_slots(1)
    lab.controller_store = store = LateAnswer(lab.store)
    async with lab.controller():
        first = await lab.submit([{"sleepMs": 10_000}])
        await lab.started(first)
        second = await lab.submit()
        await lab.clock.advance(1)
        lab.store.spoiled.add(second.id)
        store.late = second.id
        await store.asked.wait()
        lab.store.spoiled.clear()
        await lab.store.update(replace(second, metadata=replace(second.metadata, labels={"fixed": "yes"})))
        assert (await lab.ended(second)).phase is P.SUCCEEDED


class LateAnswer(FaultyStore):
    """A store whose answer about one job arrives after the changes that the watch reports. late: its name."""

    late = ""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked = asyncio.Event()

    async def get(self, kind: type[R], name: str) -> R:
        try:
            return await super().get(kind, name)
        finally:
            if name == self.late:
                self.late = ""
                self.asked.set()
                await asyncio.sleep(1)


async def test_a_job_whose_outcome_a_webhook_forbids_fails(lab: Lab) -> None:
    lab.controller_store = ForbiddenOutcome(lab.store)
    async with lab.controller():
        ended = await lab.ended(await lab.submit([{"usage": {"inputTokens": 10**9}}]))
    assert ended.status.failed_code is FailedCode.INTERNAL


class ForbiddenOutcome(FaultyStore):
    """A store behind an admission webhook that denies numbers above a million."""

    async def update(self, resource: R) -> R:
        if isinstance(resource, Job) and resource.status.usage.input_tokens > 10**6:
            raise error_of(422, b'{"message": "admission webhook \\"limits.example\\" denied the request: too many"}')
        return await super().update(resource)
