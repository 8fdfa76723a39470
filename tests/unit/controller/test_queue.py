"""The queue of jobs, and the holders of slots."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from labrats.controller.queue import JobQueue, SlotHolders
from labrats.model.job import Job
from labrats.model.queue_order import Group, group_of, rank_of
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_spec

AGING_SECONDS = 600.0
MOCK: Group = ("mock", "mock")
OPUS: Group = ("claude", "opus")


def a_waiting(priority: float = 2, *, after_seconds: float = 0, job_id: str | None = None) -> Job:
    created_at = NOON + timedelta(seconds=after_seconds)
    return a_job(job_id=job_id, spec=a_spec(priority=priority), created_at=created_at)


def queue_of(*jobs: Job) -> JobQueue:
    queue = JobQueue()
    for job in jobs:
        put(queue, job)
    return queue


def put(queue: JobQueue, job: Job) -> None:
    queue.put(job.id, group_of(job), rank_of(job, AGING_SECONDS))


def test_cancelled_jobs_of_a_queue_that_stands_still_are_forgotten() -> None:
    queue, kept = JobQueue(), a_waiting()
    put(queue, kept)
    for number in range(2000):
        put(queue, job := a_waiting(after_seconds=number))
        queue.discard(job.id)
    assert sum(map(len, queue._heaps.values())) < 200
    assert popped(queue) == [kept.id]


def popped(queue: JobQueue, group: Group = MOCK) -> list[str]:
    """Pop all jobs of the group, in order."""
    ids = []
    while (job_id := queue.pop(group)) is not None:
        ids.append(job_id)
    return ids


def test_jobs_compete_by_provider_and_model() -> None:
    assert group_of(a_job(spec=a_spec(config={"provider": "claude", "model": "opus"}))) == OPUS
    assert group_of(a_job()) == MOCK


def test_jobs_are_ordered_by_priority_then_by_age() -> None:
    later, urgent, earlier = a_waiting(after_seconds=9), a_waiting(1, after_seconds=5), a_waiting(after_seconds=1)
    assert popped(queue_of(later, urgent, earlier)) == [urgent.id, earlier.id, later.id]


def test_jobs_of_the_same_time_are_ordered_by_id() -> None:
    first, second = a_waiting(job_id="ir-00000001"), a_waiting(job_id="ir-00000002")
    assert popped(queue_of(second, first)) == popped(queue_of(first, second)) == [first.id, second.id]


def test_a_job_gains_a_level_of_priority_after_the_aging_time() -> None:
    old = a_waiting(3)
    almost, just = a_waiting(2, after_seconds=AGING_SECONDS - 1), a_waiting(2, after_seconds=AGING_SECONDS + 1)
    assert popped(queue_of(old, almost, just)) == [almost.id, old.id, just.id]


def test_fractional_priorities_count() -> None:
    half_better, plain = a_waiting(1.5, after_seconds=AGING_SECONDS / 2 - 1), a_waiting(2)
    assert popped(queue_of(plain, half_better)) == [half_better.id, plain.id]


def test_groups_have_separate_queues() -> None:
    queue = queue_of(a_waiting(job_id="ir-00000001"))
    queue.put("ir-00000002", OPUS, (0.0, 0.0, "ir-00000002"))
    assert sorted(queue.groups()) == [OPUS, MOCK]
    assert popped(queue, OPUS) == ["ir-00000002"]
    assert popped(queue) == ["ir-00000001"]
    assert popped(queue, ("codex", "o3")) == []


def test_a_discarded_job_is_skipped_and_a_job_put_twice_is_popped_once() -> None:
    left, twice, other = a_waiting(1), a_waiting(), a_waiting(3)
    queue = queue_of(left, twice, other, twice)
    queue.discard(left.id)
    queue.discard("ir-unknown")
    assert len(queue) == 2
    assert left.id not in queue
    assert popped(queue) == [twice.id, other.id]
    assert len(queue) == 0


def test_a_job_put_again_has_the_place_of_its_new_rank() -> None:
    moved, other = a_waiting(1), a_waiting(2)
    queue = queue_of(moved, other)
    queue.put(moved.id, MOCK, rank_of(a_waiting(3, job_id=moved.id), AGING_SECONDS))
    assert popped(queue) == [other.id, moved.id]


LEAVE, GO = "leave", "go"
waiting_jobs = st.builds(a_waiting, st.integers(0, 4), after_seconds=st.integers(0, 3600), job_id=st.uuids().map(str))


@given(st.lists(waiting_jobs | st.sampled_from([LEAVE, GO]), max_size=60))
def test_no_job_is_popped_before_an_older_one_of_equal_or_better_priority(moves: list[Job | str]) -> None:
    """R12, over any sequence of jobs that are put, discarded and popped."""
    queue, waiting = JobQueue(), dict[str, Job]()
    for move in moves:
        if isinstance(move, Job):
            put(queue, move)
            waiting[move.id] = move
        elif move == LEAVE and waiting:
            queue.discard(waiting.popitem()[0])
        elif move == GO and (job_id := queue.pop(MOCK)):
            gone = waiting.pop(job_id)
            assert not [other for other in waiting.values() if goes_before(other, gone)]
        assert len(queue) == len(waiting)
    assert sorted(popped(queue)) == sorted(waiting)


def goes_before(job: Job, other: Job) -> bool:
    return job.spec.priority <= other.spec.priority and job.created_at < other.created_at


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_stream_of_better_jobs_starves_no_job(worse: int, better: int) -> None:
    """A job that comes after the time of `worse - better` levels starts later than the waiting one."""
    waiting = a_waiting(worse)
    patience = max(0, worse - better) * AGING_SECONDS
    newcomer = a_waiting(better, after_seconds=patience + 1)
    assert popped(queue_of(newcomer, waiting)) == [waiting.id, newcomer.id]


# Slots


def test_repeated_allocation_to_a_job_counts_as_one_slot() -> None:
    slots = SlotHolders()
    slots.allocate("ir-1", MOCK)
    slots.allocate("ir-1", MOCK)
    slots.allocate("ir-2", OPUS)
    assert (slots.used(MOCK), slots.used(OPUS)) == (1, 1)
    assert "ir-1" in slots


def test_a_release_returns_the_group_of_a_held_slot_once() -> None:
    slots = SlotHolders()
    slots.allocate("ir-1", MOCK)
    assert slots.release("ir-1") == MOCK
    assert slots.release("ir-1") is None
    assert slots.used(MOCK) == 0
    assert "ir-1" not in slots


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcd"))))
def test_used_slots_equal_the_number_of_holders(moves: list[tuple[bool, str]]) -> None:
    slots, holders = SlotHolders(), set[str]()
    for takes, name in moves:
        if takes:
            slots.allocate(name, MOCK)
            holders.add(name)
        else:
            assert slots.release(name) == (MOCK if name in holders else None)
            holders.discard(name)
        assert slots.used(MOCK) == len(holders)
