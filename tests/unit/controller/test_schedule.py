"""The schedule, without an event loop: the work that follows from each observation."""

import tracemalloc
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.schedule import AllocateLater, CancelTimer, JobSchedule, Reconcile, ReconcileLater, Work
from labrats.model.concurrency import Concurrency, OnNew
from labrats.model.job import FailedCode, Job, JobSpec, without_large_fields
from labrats.model.phases import Phase
from labrats.model.queue_order import Group, group_of, rank_of
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_spec, an_ai_model, an_applied_spec

P = Phase
MOCK: Group = ("mock", "mock")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def a_schedule(*jobs: Job, slots: int = 1) -> JobSchedule:
    """Return a schedule that has observed these jobs, and one AiModel."""
    schedule = JobSchedule(default_slots=2, aging_seconds=600)
    schedule.observe_ai_models([an_ai_model(slots=slots)], NOON)
    for job in jobs:
        schedule.observe(job, NOON)
    schedule.observe_synced(NOON)
    return schedule


def updated(job: Job, **status: Any) -> Job:
    """Return the next version of the job, with changes to its status."""
    version = str(int(job.metadata.resource_version) + 1)
    metadata = replace(job.metadata, resource_version=version)
    return replace(job, metadata=metadata, status=replace(job.status, **status))


def started(job: Job, attempt: int = 1) -> Job:
    return updated(job, phase=P.RUNNING, attempts=attempt, started_at=NOON)


def moved(schedule: JobSchedule, job: Job, **status: Any) -> list[Work]:
    """Have the schedule observe a move that the engine has stored. Return the work that follows."""
    with schedule.moving(job):
        return schedule.observe(updated(job, **status), NOON)


def replaced(job: Job) -> Job:
    """Return another job with the same id, created after the first was deleted."""
    metadata = replace(job.metadata, uid="another", resource_version="9")
    return replace(a_job(job_id=job.id), metadata=metadata)


# Slots


def test_a_waiting_job_gets_a_free_slot_and_is_reconciled() -> None:
    schedule, job = a_schedule(), a_job()
    assert schedule.observe(job, NOON) == [Reconcile(job.id)]
    assert schedule.holds_slot(job)
    assert not schedule.is_waiting(job)


def test_a_waiting_job_without_a_free_slot_needs_no_work() -> None:
    schedule, job = a_schedule(a_job(P.RUNNING)), a_job()
    assert schedule.observe(job, NOON) == []
    assert schedule.is_waiting(job)


def test_no_slot_is_allocated_before_all_jobs_are_known() -> None:
    schedule = JobSchedule(default_slots=1, aging_seconds=600)
    waiting, running = a_job(), a_job(P.RUNNING)
    assert schedule.observe(waiting, NOON) == []
    assert schedule.observe(running, NOON) == [Reconcile(running.id)]
    assert schedule.observe_synced(NOON) == []
    assert not schedule.holds_slot(waiting)


def test_slots_are_allocated_once_all_jobs_are_known() -> None:
    schedule, job = JobSchedule(default_slots=1, aging_seconds=600), a_job()
    schedule.observe(job, NOON)
    assert schedule.observe_synced(NOON) == [Reconcile(job.id)]


def test_a_running_job_holds_a_slot_beyond_those_of_its_model() -> None:
    first, second = a_job(P.RUNNING), a_job(P.RUNNING)
    schedule = a_schedule(first, second, slots=1)
    assert schedule.holds_slot(first)
    assert schedule.holds_slot(second)
    assert schedule.is_over_allocated(first)
    schedule.observe_ai_models([an_ai_model(slots=2)], NOON)
    assert not schedule.is_over_allocated(first)


def test_the_end_of_a_job_releases_its_slot_to_the_next_in_the_queue() -> None:
    running, later, urgent = a_job(P.RUNNING), a_job(), a_job(spec=a_spec(priority=1))
    schedule = a_schedule(running, later, urgent)
    assert moved(schedule, running, phase=P.SUCCEEDED) == [CancelTimer(running.id), Reconcile(urgent.id)]
    assert schedule.job(running.id) is None
    assert not schedule.holds_slot(later)


def test_the_end_of_a_job_allocates_no_slot_of_a_model_that_has_lost_it() -> None:
    running, waiting = a_job(P.RUNNING), a_job()
    schedule = a_schedule(running, waiting)
    assert schedule.observe_ai_models([an_ai_model(slots=0)], NOON) == []
    assert moved(schedule, running, phase=P.FAILED) == [CancelTimer(running.id)]


def test_more_slots_are_allocated_in_the_order_of_the_queue() -> None:
    first, second, third = (a_job(created_at=at(seconds)) for seconds in (1, 2, 3))
    schedule = a_schedule(third, second, first, slots=0)
    assert schedule.observe_ai_models([an_ai_model(slots=2)], NOON) == [Reconcile(first.id), Reconcile(second.id)]


def test_a_model_without_an_ai_model_has_the_default_slots() -> None:
    spec = a_spec(config={"model": "other"})
    first, second, third = (a_job(spec=spec, created_at=at(seconds)) for seconds in (1, 2, 3))
    schedule = a_schedule(first, second, third, slots=0)
    assert [schedule.holds_slot(job) for job in (first, second, third)] == [True, True, False]
    assert schedule.slot_name(first) == "mock/other"


def test_the_slot_of_a_job_is_named_by_its_ai_model() -> None:
    assert a_schedule().slot_name(a_job()) == "mock-1"


def test_an_enqueued_job_releases_its_slot_to_a_better_one() -> None:
    job, urgent = a_job(), a_job(spec=a_spec(priority=1))
    schedule = a_schedule(job)
    schedule.observe(urgent, NOON)
    assert schedule.enqueue(job, NOON) == [Reconcile(urgent.id)]
    assert not schedule.holds_slot(job)


# Observed jobs


def test_an_older_version_of_a_job_changes_nothing() -> None:
    job = a_job()
    schedule = a_schedule(job)
    running = started(job)
    schedule.observe(running, NOON)
    assert schedule.observe(job, NOON) == []
    assert schedule.job(job.id) == running


def test_an_update_of_a_queued_job_queues_it_once() -> None:
    blocking, job, later = a_job(P.RUNNING), a_job(created_at=at(1)), a_job(created_at=at(2))
    schedule = a_schedule(blocking, job, later)
    assert schedule.observe(updated(job), NOON) == []
    schedule.observe_ai_models([an_ai_model(slots=3)], NOON)
    assert schedule.holds_slot(job)
    assert schedule.holds_slot(later)


def test_a_queued_job_that_another_writer_started_leaves_the_queue() -> None:
    blocking, job = a_job(P.RUNNING), a_job()
    schedule = a_schedule(blocking, job)
    assert schedule.observe(started(job), NOON) == [Reconcile(job.id)]
    assert schedule.observe_ai_models([an_ai_model(slots=3)], NOON) == []


def test_an_unresolved_job_is_reconciled_and_queued_once_it_is_resolved() -> None:
    schedule, job = a_schedule(), a_job(spec=an_applied_spec())
    assert schedule.observe(job, NOON) == [Reconcile(job.id)]
    assert not schedule.holds_slot(job)
    assert schedule.observe(updated(job, resolved=a_job().resolved), NOON) == [Reconcile(job.id)]
    assert schedule.holds_slot(job)


def test_a_waiting_job_that_is_not_queued_is_queued_and_a_queued_one_is_left_alone() -> None:
    schedule = a_schedule(a_job(P.RUNNING))
    job = a_job(not_before=at(10))
    assert schedule.observe(job, NOON) == [ReconcileLater(job.id, 10)]
    schedule.observe_ai_models([an_ai_model(slots=2)], NOON)
    assert not schedule.holds_slot(job)
    assert schedule.ensure_queued(job, at(10)) == [Reconcile(job.id)]
    other = a_job(deadline_at=at(90))
    schedule.observe(other, at(10))
    assert schedule.ensure_queued(other, at(10)) == []


# Requeued jobs and pauses


def test_a_requeued_job_waits_for_its_time_and_releases_its_slot() -> None:
    running, waiting = a_job(P.RUNNING), a_job()
    schedule = a_schedule(running, waiting)
    requeued = {"phase": P.PENDING, "not_before": at(30), "failed_code": FailedCode.EXECUTOR_DIED}
    assert moved(schedule, running, **requeued) == [ReconcileLater(running.id, 30), Reconcile(waiting.id)]


def test_a_queued_job_with_a_deadline_is_reconciled_then() -> None:
    schedule = a_schedule(a_job(P.RUNNING))
    job = a_job(deadline_at=at(90))
    assert schedule.observe(job, NOON) == [ReconcileLater(job.id, 90)]


def test_a_rate_limited_job_pauses_its_model() -> None:
    running, waiting = a_job(P.RUNNING), a_job(created_at=at(-1))
    schedule = a_schedule(running, waiting)
    limited = {"phase": P.PENDING, "not_before": at(60), "failed_code": FailedCode.RATE_LIMITED}
    assert moved(schedule, running, **limited) == [AllocateLater(MOCK, 60), ReconcileLater(running.id, 60)]
    assert schedule.allocate([MOCK], at(59)) == []
    assert schedule.allocate([MOCK], at(60)) == [Reconcile(waiting.id)]


def test_a_pause_whose_timer_fires_early_ends_all_the_same() -> None:
    running, waiting = a_job(P.RUNNING), a_job(created_at=at(-1))
    schedule = a_schedule(running, waiting)
    moved(schedule, running, phase=P.PENDING, not_before=at(60), failed_code=FailedCode.RATE_LIMITED)
    assert schedule.end_pause(MOCK, at(59.5)) == [AllocateLater(MOCK, 0.5)]
    assert schedule.end_pause(MOCK, at(60)) == [Reconcile(waiting.id)]


def test_a_shorter_pause_does_not_replace_a_longer_one() -> None:
    schedule = a_schedule(slots=3)
    longer = a_job(not_before=at(60), failed_code=FailedCode.OVERLOADED)
    shorter = a_job(not_before=at(20), failed_code=FailedCode.OVERLOADED)
    assert schedule.observe(longer, NOON) == [AllocateLater(MOCK, 60), ReconcileLater(longer.id, 60)]
    assert schedule.observe(shorter, NOON) == [ReconcileLater(shorter.id, 20)]
    assert schedule.ensure_queued(shorter, at(20)) == []
    assert schedule.allocate([MOCK], at(60)) == [Reconcile(shorter.id)]


# Deleted jobs


def test_a_deleted_waiting_job_leaves_the_queue() -> None:
    running, waiting = a_job(P.RUNNING), a_job()
    schedule = a_schedule(running, waiting)
    assert schedule.observe_deletion(waiting, NOON) == [CancelTimer(waiting.id)]
    assert moved(schedule, running, phase=P.SUCCEEDED) == [CancelTimer(running.id)]


def test_a_deleted_running_job_holds_its_slot_until_it_is_finished() -> None:
    running, waiting = a_job(P.RUNNING), a_job()
    schedule = a_schedule(running, waiting)
    assert schedule.observe_deletion(running, NOON) == [Reconcile(running.id)]
    assert schedule.job(running.id) is None
    assert schedule.abandoned(running.id) == running
    assert not schedule.holds_slot(waiting)
    assert schedule.finish_abandoned(running, NOON) == [CancelTimer(running.id), Reconcile(waiting.id)]
    assert schedule.abandoned(running.id) is None


def test_a_deletion_of_an_earlier_job_with_the_same_id_changes_nothing() -> None:
    running = a_job(P.RUNNING)
    schedule = a_schedule(running)
    assert schedule.observe_deletion(replaced(running), NOON) == []
    assert schedule.job(running.id) == running


def test_a_job_with_the_id_of_a_deleted_one_becomes_live_when_that_is_finished() -> None:
    running = a_job(P.RUNNING)
    schedule, successor = a_schedule(running), replaced(running)
    schedule.observe_deletion(running, NOON)
    assert schedule.observe(successor, NOON) == []
    assert (schedule.job(running.id), schedule.successor(running.id)) == (None, successor)
    assert schedule.finish_abandoned(running, NOON) == [CancelTimer(running.id), Reconcile(running.id)]
    assert (schedule.job(running.id), schedule.successor(running.id)) == (without_large_fields(successor), None)


def test_a_deleted_successor_never_becomes_live() -> None:
    running = a_job(P.RUNNING)
    schedule, successor = a_schedule(running), replaced(running)
    schedule.observe_deletion(running, NOON)
    schedule.observe(successor, NOON)
    assert schedule.observe_deletion(successor, NOON) == []
    assert schedule.finish_abandoned(running, NOON) == [CancelTimer(running.id)]
    assert schedule.job(running.id) is None


# Moves by another writer


def test_a_running_job_that_another_writer_requeues_holds_its_slot_until_it_is_finished() -> None:
    running, waiting = a_job(P.RUNNING), a_job()
    schedule = a_schedule(running, waiting)
    requeued = updated(running, phase=P.PENDING)
    assert schedule.observe(requeued, NOON) == [Reconcile(running.id)]
    assert (schedule.abandoned(running.id), schedule.successor(running.id)) == (running, requeued)
    assert not schedule.holds_slot(waiting)


def test_a_running_job_that_another_writer_gives_another_attempt_abandons_its_own() -> None:
    running = a_job(P.RUNNING)
    schedule = a_schedule(running)
    schedule.observe(started(running, attempt=2), NOON)
    assert schedule.abandoned(running.id) == running


def test_a_cancel_request_abandons_no_attempt() -> None:
    running = a_job(P.RUNNING)
    schedule = a_schedule(running)
    cancelled = updated(running, cancel_requested_at=at(5))
    assert schedule.observe(cancelled, at(5)) == [Reconcile(running.id)]
    assert schedule.job(running.id) == cancelled


def test_a_move_of_the_engine_abandons_no_attempt_and_one_after_it_does() -> None:
    running = a_job(P.RUNNING)
    schedule = a_schedule(running)
    moved(schedule, running, phase=P.PENDING)
    assert schedule.abandoned(running.id) is None
    again = started(updated(running), attempt=2)
    schedule.observe(again, NOON)
    schedule.observe(updated(again, phase=P.PENDING), NOON)
    assert schedule.abandoned(running.id) == again


# New jobs, before they are stored


def stored(job: Job) -> Job:
    """Return a placed job as the watch reports it once it is stored: started."""
    return replace(job, status=replace(job.status, phase=P.RUNNING, attempts=1, started_at=NOON, slot="mock"))


def test_a_new_job_holds_a_free_slot_before_it_is_stored() -> None:
    schedule, new, next_one = a_schedule(slots=1), a_job(), a_job()
    assert schedule.place_new(new, NOON)
    assert schedule.observe(next_one, NOON) == []
    assert schedule.observe(stored(new), NOON) == [Reconcile(new.id)]
    assert schedule.is_waiting(next_one)


def test_a_new_job_without_a_free_slot_waits() -> None:
    schedule, new = a_schedule(a_job(P.RUNNING), slots=1), a_job()
    assert not schedule.place_new(new, NOON)
    assert schedule.observe(new, NOON) == []
    assert schedule.is_waiting(new)


def test_a_new_job_waits_while_an_older_one_is_stored_that_has_to_wait() -> None:
    schedule = a_schedule(a_job(P.RUNNING), slots=1)
    older, newer = a_job(), a_job()
    assert not schedule.place_new(older, NOON)
    schedule.observe_ai_models([an_ai_model(slots=3)], NOON)
    assert not schedule.place_new(newer, NOON)
    schedule.observe(older, NOON)
    schedule.observe(newer, NOON)
    assert schedule.holds_slot(older)


def test_a_job_of_another_model_does_not_make_a_new_one_wait() -> None:
    schedule = a_schedule(a_job(P.RUNNING), slots=1)
    schedule.observe(a_job(), NOON)
    schedule.place_new(a_job(), NOON)
    assert schedule.place_new(a_job(spec=a_spec(config={"model": "other"})), NOON)


def test_a_new_job_waits_while_its_model_pauses_and_behind_the_jobs_that_waited_for_the_end() -> None:
    schedule, limited, during, after = a_schedule(slots=2), a_job(P.RUNNING), a_job(), a_job()
    schedule.observe(limited, NOON)
    moved(schedule, limited, phase=P.PENDING, not_before=at(30), failed_code=FailedCode.RATE_LIMITED)
    assert not schedule.place_new(during, NOON)
    schedule.observe(during, NOON)
    assert not schedule.place_new(after, at(31)), "the timer of the pause has not fired yet"
    assert schedule.end_pause(MOCK, at(31)) == [Reconcile(during.id)]


def test_a_new_job_waits_until_all_jobs_are_known() -> None:
    schedule = JobSchedule(default_slots=1, aging_seconds=600)
    assert not schedule.place_new(a_job(), NOON)


def test_a_new_job_with_a_concurrency_key_waits() -> None:
    spec = a_spec(concurrency=Concurrency(key="k", on_new=OnNew.QUEUE))
    assert not a_schedule().place_new(a_job(spec=spec), NOON)


def test_a_new_job_that_was_deleted_before_it_was_observed_makes_no_other_wait() -> None:
    schedule, deleted = JobSchedule(default_slots=1, aging_seconds=600), a_job()
    assert not schedule.place_new(deleted, NOON)  # not all jobs are known yet
    schedule.observe_synced(NOON)
    schedule.observe_deletion(deleted, NOON)
    assert schedule.place_new(a_job(), NOON)


def test_deletion_of_a_former_job_of_its_name_takes_no_slot_from_a_new_job() -> None:
    schedule, former = a_schedule(slots=1), a_job()
    assert schedule.place_new(a_job(job_id=former.id), NOON)
    assert schedule.observe_deletion(former, NOON) == []
    assert not schedule.place_new(a_job(), NOON)


def test_a_job_that_could_not_be_stored_releases_its_slot_to_the_next() -> None:
    schedule, new, queued = a_schedule(slots=1), a_job(), a_job()
    schedule.place_new(new, NOON)
    schedule.observe(queued, NOON)
    assert schedule.forget_new(new, NOON) == [Reconcile(queued.id)]
    assert schedule.forget_new(new, NOON) == []


def test_a_placed_job_that_is_deleted_before_it_is_observed_releases_its_slot() -> None:
    schedule, new, queued = a_schedule(slots=1), a_job(), a_job()
    schedule.place_new(new, NOON)
    schedule.observe(queued, NOON)
    assert schedule.observe_deletion(stored(new), NOON) == [Reconcile(queued.id)]


def test_the_deletion_of_an_ended_job_of_the_same_id_leaves_a_placed_job_its_slot() -> None:
    schedule, new = a_schedule(slots=1), a_job()
    schedule.place_new(new, NOON)
    assert schedule.observe_deletion(a_job(P.SUCCEEDED, job_id=new.id), NOON) == []
    assert schedule.holds_slot(new)


def test_a_new_job_with_the_id_of_a_live_one_takes_no_slot_from_it() -> None:
    live = a_job(P.RUNNING)
    schedule, placed = a_schedule(live, slots=2), a_job()
    assert schedule.place_new(placed, NOON)
    for taken in (live, placed):
        assert not schedule.place_new(a_job(job_id=taken.id), NOON)
        assert schedule.holds_slot(taken)


def test_a_job_that_had_to_wait_and_could_not_be_stored_makes_no_other_wait() -> None:
    running = a_job(P.RUNNING)
    schedule, refused = a_schedule(running, slots=1), a_job()
    assert not schedule.place_new(refused, NOON)
    assert schedule.forget_new(refused, NOON) == []
    moved(schedule, running, phase=P.SUCCEEDED)
    assert schedule.place_new(a_job(), NOON)


def test_a_second_creation_of_the_same_id_that_fails_releases_no_slot() -> None:
    schedule, new = a_schedule(slots=1), a_job()
    again = replace(new)
    assert schedule.place_new(new, NOON)
    assert not schedule.place_new(again, NOON)
    assert schedule.forget_new(again, NOON) == []
    assert schedule.holds_slot(new)


# Large jobs


def test_large_waiting_jobs_take_little_memory() -> None:
    """A caller can submit very many. Decoded, a list of empty lists takes twenty times as much memory as its JSON."""
    schedule = a_schedule(slots=0)
    tracemalloc.start()
    try:
        for number in range(20):
            lists: list[list[str]] = [[] for _ in range(20_000)]
            metadata, schema = {"a": lists}, {"examples": lists}
            job = a_job(job_id=f"ir-{number:08x}", spec=a_spec(metadata=metadata, result_schema=schema))
            schedule.observe(job, NOON)
            del lists, metadata, schema, job
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 2**20


@pytest.mark.parametrize("spec", [a_spec(), an_applied_spec()], ids=["submitted", "applied"])
def test_large_waiting_job_keeps_its_place_in_the_queue(spec: JobSpec) -> None:
    large = a_job(spec=replace(spec, metadata={"text": "x" * 20_000}, concurrency=Concurrency(key="k"), priority=-1))
    schedule = a_schedule(large)
    known = schedule.job(large.id)
    assert known
    assert known.spec.metadata == {}
    assert (known.is_resolved, group_of(known), rank_of(known, 600), known.spec.concurrency) == (
        large.is_resolved, group_of(large), rank_of(large, 600), large.spec.concurrency,
    )  # fmt: skip
    schedule.observe(started(large), NOON)
    assert schedule.job(large.id) == started(large)


# The pause of the engine


def test_pause_of_the_engine_allocates_no_slot_until_it_ends() -> None:
    first, second = a_job(job_id="ir-1"), a_job(job_id="ir-2")
    schedule = a_schedule(slots=1)
    schedule.observe_pause(True, NOON)

    assert Reconcile("ir-1") not in schedule.observe(first, NOON)
    assert not schedule.place_new(second, NOON)
    assert not schedule.holds_slot(first)
    assert schedule.observe_pause(True, NOON) == []
    assert schedule.observe_pause(False, NOON) == [Reconcile("ir-1")]


def test_pause_of_the_engine_takes_slots_only_from_jobs_without_an_attempt() -> None:
    running, about_to_start = started(a_job(job_id="ir-1")), a_job(job_id="ir-2")
    schedule = a_schedule(running, about_to_start, slots=2)

    schedule.observe_pause(True, NOON)

    assert schedule.holds_slot(running)
    assert not schedule.holds_slot(about_to_start)
    assert Reconcile("ir-2") in schedule.observe_pause(False, NOON)
