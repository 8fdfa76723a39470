"""Concurrency keys: what the schedule allows and the plan supersedes."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from labrats.controller.plan import Admit, Delays, Move, Start, Supersede, plan_job
from labrats.controller.schedule import JobSchedule, Reconcile, ReconcileLater
from labrats.model.concurrency import Concurrency, OnNew
from labrats.model.job import Job, superseded
from labrats.model.phases import JobEvent, Phase
from labrats.ports import Alive, Gone, NotStarted
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_result, a_spec, an_ai_model, gone_with
from tests.unit.controller.test_schedule import a_schedule, moved, started, updated

P = Phase
DELAYS = Delays(grace=timedelta(seconds=10), backoff=timedelta(seconds=1), pause=timedelta(seconds=30))


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def keyed(
    job_id: str,
    seconds: float = 0,
    *,
    key: str = "octo/demo#7",
    on_new: OnNew = OnNew.QUEUE,
    debounce: float = 0,
    phase: Phase = P.PENDING,
    **fields: Any,
) -> Job:
    """Return a job with a concurrency key, created some seconds after noon."""
    concurrency = Concurrency(key=key, on_new=on_new, debounce_seconds=debounce)
    return a_job(phase, job_id=job_id, spec=a_spec(concurrency=concurrency, **fields), created_at=at(seconds))


def has_slot(schedule: JobSchedule, *jobs: Job) -> list[bool]:
    return [schedule.holds_slot(job) for job in jobs]


class TestQueue:
    def test_only_the_oldest_job_of_a_key_gets_a_slot(self) -> None:
        jobs = [keyed(f"ir-{number}", number) for number in range(3)]
        schedule = a_schedule(*reversed(jobs), slots=3)
        assert has_slot(schedule, *jobs) == [True, False, False]

    def test_other_keys_and_other_owners_are_not_blocked(self) -> None:
        first, other_key = keyed("ir-1"), keyed("ir-2", 1, key="octo/demo#8")
        other_owner, none = keyed("ir-3", 2, owner="key-other"), a_job()
        schedule = a_schedule(first, other_key, other_owner, none, slots=4)
        assert has_slot(schedule, first, other_key, other_owner, none) == [True] * 4

    def test_priority_does_not_overtake_an_older_job_of_the_key(self) -> None:
        first, urgent = keyed("ir-1"), keyed("ir-2", 1, priority=-1000)
        schedule = a_schedule(urgent, first, slots=2)
        assert has_slot(schedule, first, urgent) == [True, False]

    def test_a_blocked_job_leaves_its_slot_to_another_key(self) -> None:
        first, blocked, other = keyed("ir-1"), keyed("ir-2", 1), keyed("ir-3", 2, key="b")
        schedule = a_schedule(first, blocked, other, slots=2)
        assert has_slot(schedule, first, blocked, other) == [True, False, True]

    def test_the_next_job_starts_when_the_running_one_has_ended(self) -> None:
        first, second = keyed("ir-1"), keyed("ir-2", 1)
        schedule = a_schedule(first, second, slots=2)
        running = started(first)
        schedule.observe(running, NOON)
        work = moved(schedule, running, phase=P.SUCCEEDED)
        assert Reconcile("ir-2") in work
        assert has_slot(schedule, second) == [True]

    def test_a_requeued_job_stays_before_the_younger_ones(self) -> None:
        first, second = keyed("ir-1"), keyed("ir-2", 1)
        schedule = a_schedule(first, second, slots=2)
        running = started(first)
        schedule.observe(running, NOON)
        moved(schedule, running, phase=P.PENDING, not_before=at(60))
        assert has_slot(schedule, first, second) == [False, False]

    def test_a_job_that_is_retried_waits_for_the_running_one_and_is_next(self) -> None:
        running = keyed("ir-2", 1, phase=P.RUNNING)
        schedule = a_schedule(running, third := keyed("ir-3", 2), slots=3)
        schedule.observe(retried := keyed("ir-1"), NOON)
        assert has_slot(schedule, retried, third) == [False, False]
        moved(schedule, running, phase=P.SUCCEEDED)
        assert has_slot(schedule, retried, third) == [True, False]

    def test_an_older_job_that_is_observed_late_does_not_run_beside_a_queued_one(self) -> None:
        schedule = a_schedule(younger := keyed("ir-2", 1), slots=0)
        schedule.observe(older := keyed("ir-1"), NOON)
        schedule.observe_ai_models([an_ai_model(slots=2)], NOON)
        assert has_slot(schedule, older, younger) == [True, False]
        moved(schedule, started(older), phase=P.SUCCEEDED)
        assert has_slot(schedule, younger) == [True]

    def test_a_deleted_job_blocks_its_key_while_its_attempt_may_run(self) -> None:
        running, second = keyed("ir-1", phase=P.RUNNING), keyed("ir-2", 1)
        schedule = a_schedule(running, second, slots=2)
        schedule.observe_deletion(running, NOON)
        assert has_slot(schedule, second) == [False]
        schedule.finish_abandoned(running, NOON)
        assert has_slot(schedule, second) == [True]

    def test_cancel_of_a_waiting_job_lets_the_next_one_start(self) -> None:
        jobs = [keyed(f"ir-{number}", number) for number in range(3)]
        schedule = a_schedule(*jobs, slots=3)
        running = started(jobs[0])
        schedule.observe(running, NOON)
        schedule.observe(updated(jobs[1], phase=P.CANCELLED), NOON)
        moved(schedule, running, phase=P.FAILED)
        assert has_slot(schedule, jobs[2]) == [True]


class TestSupersede:
    @pytest.mark.parametrize("phase", [P.PENDING, P.RUNNING])
    def test_a_new_job_supersedes_waiting_and_running_ones(self, phase: Phase) -> None:
        old = keyed("ir-1", phase=phase)
        schedule = a_schedule(old)
        work = schedule.observe(keyed("ir-2", 1, on_new=OnNew.SUPERSEDE), NOON)
        assert Reconcile("ir-1") in work
        assert schedule.superseder(old) == "ir-2"

    def test_the_newest_one_is_named_and_superseded_by_none(self) -> None:
        jobs = [keyed(f"ir-{number}", number, on_new=OnNew.SUPERSEDE) for number in range(4)]
        schedule = a_schedule(*jobs)
        assert [schedule.superseder(job) for job in jobs] == ["ir-3", "ir-3", "ir-3", None]

    def test_replace_waiting_spares_the_running_job(self) -> None:
        running, waiting = keyed("ir-1", phase=P.RUNNING), keyed("ir-2", 1)
        newest = keyed("ir-3", 2, on_new=OnNew.REPLACE_WAITING)
        schedule = a_schedule(running, waiting, newest, slots=3)
        assert [schedule.superseder(job) for job in (running, waiting, newest)] == [None, "ir-3", None]
        assert has_slot(schedule, newest) == [False]
        schedule.observe(updated(waiting, phase=P.CANCELLED), NOON)
        moved(schedule, running, phase=P.SUCCEEDED)
        assert has_slot(schedule, newest) == [True]

    @pytest.mark.parametrize("untrusted", [True, False])
    def test_a_job_of_other_trust_neither_supersedes_nor_blocks(self, untrusted: bool) -> None:
        old = keyed("ir-1", untrusted=not untrusted)
        new = keyed("ir-2", 1, on_new=OnNew.SUPERSEDE, untrusted=untrusted)
        schedule = a_schedule(old, new, slots=2)
        assert schedule.superseder(old) is None
        assert has_slot(schedule, old, new) == [True, True]

    def test_a_job_of_another_owner_supersedes_nothing(self) -> None:
        old = keyed("ir-1", owner="key-one")
        schedule = a_schedule(old, keyed("ir-2", 1, on_new=OnNew.SUPERSEDE, owner="key-two"))
        assert schedule.superseder(old) is None

    def test_a_superseded_job_gets_no_slot(self) -> None:
        old = keyed("ir-1")
        schedule = a_schedule(old, keyed("ir-2", 1, on_new=OnNew.SUPERSEDE), slots=0)
        schedule.observe_ai_models([an_ai_model(slots=2)], NOON)
        assert has_slot(schedule, old) == [False]

    def test_creation_in_the_same_moment_is_ordered_by_id(self) -> None:
        first, second = keyed("ir-a", on_new=OnNew.SUPERSEDE), keyed("ir-b", on_new=OnNew.SUPERSEDE)
        for order in ([first, second], [second, first]):
            schedule = a_schedule(*order)
            assert [schedule.superseder(job) for job in (first, second)] == ["ir-b", None]


class TestDebounce:
    def test_a_job_is_queued_when_its_debounce_has_passed(self) -> None:
        job = keyed("ir-1", debounce=30)
        schedule = a_schedule()
        assert schedule.observe(job, NOON) == [ReconcileLater("ir-1", 30)]
        assert has_slot(schedule, job) == [False]
        schedule.ensure_queued(job, at(30))
        assert has_slot(schedule, job) == [True]

    def test_the_debounce_counts_from_creation(self) -> None:
        job = keyed("ir-1", debounce=30)
        schedule = a_schedule()
        schedule.observe(job, at(31))
        assert has_slot(schedule, job) == [True]


class TestPlan:
    @pytest.mark.parametrize("slot", [True, False])
    def test_a_superseded_waiting_job_is_cancelled_and_names_the_newer_one(self, slot: bool) -> None:
        plan = plan_job(keyed("ir-1"), NotStarted(), has_slot=slot, now=NOON, delays=DELAYS, superseded_by="ir-2")
        cancelled = {"finished_at": NOON, "cancel_requested_at": NOON, "superseded_by": "ir-2"}
        assert plan == [Move(JobEvent.CANCEL, cancelled)]

    @pytest.mark.parametrize("attempt", [NotStarted(), Alive()])
    def test_a_superseded_running_job_records_it_before_anything_else(self, attempt: NotStarted | Alive) -> None:
        job = keyed("ir-1", phase=P.RUNNING)
        assert plan_job(job, attempt, has_slot=True, now=NOON, delays=DELAYS, superseded_by="ir-2") == [
            Supersede("ir-2")
        ]
        stopping = superseded(job, "ir-2", NOON)
        assert stopping.status.superseded_by == "ir-2"
        plan = plan_job(stopping, attempt, has_slot=True, now=NOON, delays=DELAYS, superseded_by="ir-2")
        assert not {Supersede("ir-2"), Start()} & set(plan)

    def test_a_result_that_arrived_before_the_newer_job_counts(self) -> None:
        gone: Gone = gone_with(a_result())
        job = keyed("ir-1", phase=P.RUNNING)
        (move,) = plan_job(job, gone, has_slot=True, now=NOON, delays=DELAYS, superseded_by="ir-2")
        assert isinstance(move, Move)
        assert move.event is JobEvent.SUCCEED

    def test_a_job_that_nothing_supersedes_is_admitted(self) -> None:
        assert plan_job(keyed("ir-1"), NotStarted(), has_slot=True, now=NOON, delays=DELAYS) == [Admit()]
