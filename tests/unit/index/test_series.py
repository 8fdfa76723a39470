"""What became of jobs over time, and the steps by which it is told."""

from datetime import timedelta
from typing import Any

import pytest

from labrats.index.series import History
from labrats.model.job import Job, Usage
from labrats.model.phases import Phase
from labrats.model.series import Metric, Series, Steps, Value, series_of
from tests.fakes.clock import NOON
from tests.support.builders import a_job

P, M = Phase, Metric
SECOND = timedelta(seconds=1)
NOON_SECONDS = int(NOON.timestamp())
HOUR_STEPS = Steps.until(NOON, 3600, 3)


def history_of(*jobs: Job) -> History:
    history = History()
    for job in jobs:
        history.put(job)
    return history


def an_ended(phase: Phase = P.SUCCEEDED, *, ago: int = 60, waited: int = 5, ran: int = 30, **status: Any) -> Job:
    """A job that ended `ago` seconds before noon, having waited and run so many."""
    finished = NOON - ago * SECOND
    started = finished - ran * SECOND
    times = {"started_at": started, "finished_at": finished}
    return a_job(phase, created_at=started - waited * SECOND, **times | status)


def told(history: History, metric: Metric, steps: Steps = HOUR_STEPS) -> list[tuple[str, int, float]]:
    """The values, each with how many seconds before noon its step ends."""
    return sorted((each.label, NOON_SECONDS - each.end, each.value) for each in history.values(metric, steps))


def test_ended_jobs_are_counted_by_status_in_the_step_they_ended_in() -> None:
    history = history_of(an_ended(), an_ended(), an_ended(P.FAILED, ago=3600), a_job(P.RUNNING), a_job())

    assert told(history, M.JOBS) == [
        ("cancelled", 0, 0), ("cancelled", 3600, 0),
        ("completed", 0, 2), ("completed", 3600, 0),
        ("failed", 0, 0), ("failed", 3600, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("ago", "step_ends_ago"), [(0, 0), (3599, 0), (3600, 3600), (7199, 3600), (10799, 7200)])
def test_a_step_holds_the_moment_it_ends_at_and_not_the_one_it_begins_at(ago: int, step_ends_ago: int) -> None:
    assert ("", step_ends_ago, 30.0) in told(history_of(an_ended(ago=ago)), M.DURATION)


def test_what_ended_before_the_first_step_is_not_told() -> None:
    assert told(history_of(an_ended(ago=10800)), M.DURATION) == []


def test_times_are_means_of_the_jobs_in_a_step() -> None:
    history = history_of(an_ended(waited=2, ran=10), an_ended(waited=4, ran=30))

    assert told(history, M.QUEUE_WAIT) == [("", 0, 3.0)]
    assert told(history, M.DURATION) == [("", 0, 20.0)]


def test_a_job_has_waited_once_it_runs() -> None:
    running = a_job(P.RUNNING, created_at=NOON - 50 * SECOND, started_at=NOON - 40 * SECOND)

    assert told(history_of(running), M.QUEUE_WAIT) == [("", 0, 10.0)]


def test_a_further_attempt_does_not_change_how_long_a_job_waited() -> None:
    first = a_job(P.RUNNING, job_id="ir-1", created_at=NOON - 50 * SECOND, started_at=NOON - 40 * SECOND)
    second = a_job(P.RUNNING, job_id="ir-1", created_at=NOON - 50 * SECOND, started_at=NOON - 10 * SECOND, attempts=2)

    assert told(history_of(first, second), M.QUEUE_WAIT) == [("", 0, 10.0)]
    assert told(history_of(second), M.QUEUE_WAIT) == [], "nobody knows when it was started first"


def test_a_job_cancelled_while_it_waited_has_not_run() -> None:
    never_started = an_ended(P.CANCELLED, started_at=None, slot=None, attempts=0)
    put_back_before = an_ended(P.CANCELLED, slot=None, attempts=1)
    history = history_of(never_started, put_back_before)

    assert told(history, M.DURATION) == []
    assert ("cancelled", 0, 2) in told(history, M.JOBS)


def test_tokens_and_cost_are_added_up() -> None:
    usage = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=2, cost_usd=0.25)
    unknown = Usage(input_tokens=1)
    history = history_of(an_ended(usage=usage), an_ended(usage=usage), an_ended(usage=unknown))

    assert told(history, M.TOKENS) == [("cache_read", 0, 4), ("input", 0, 21), ("output", 0, 10)]
    assert told(history, M.COST) == [("", 0, 0.5)]


def test_a_job_that_is_put_back_or_forgotten_is_not_told_of() -> None:
    failed = an_ended(P.FAILED)
    history = history_of(failed, a_job(job_id=failed.id, attempts=1, started_at=NOON))
    assert told(history, M.JOBS) == []

    ended = an_ended()
    history.put(ended)
    history.drop(ended.id)
    assert told(history, M.JOBS) == []


def test_steps_begin_at_multiples_of_their_length() -> None:
    steps = Steps.until(NOON + 10 * SECOND, 3600, 2)

    assert list(steps.ends) == [NOON_SECONDS, NOON_SECONDS + 3600]
    assert Steps.until(NOON, 3600, 2).end == NOON_SECONDS


def test_a_sum_of_nothing_is_0_and_a_mean_of_nothing_is_not_told() -> None:
    begin, end = HOUR_STEPS.ends[0], HOUR_STEPS.end
    one = [Value("", end, 1.5)]

    assert series_of(M.COST, HOUR_STEPS, one) == [Series({}, [(begin, 0), (begin + 3600, 0), (end, 1.5)])]
    assert series_of(M.DURATION, HOUR_STEPS, one) == [Series({}, [(end, 1.5)])]


def test_a_metric_has_all_its_series_and_counts_in_whole_numbers() -> None:
    steps = Steps.until(NOON, 3600, 1)

    assert series_of(M.JOBS, steps, [Value("failed", NOON_SECONDS, 2.04)]) == [
        Series({"status": "completed"}, [(NOON_SECONDS, 0)]),
        Series({"status": "failed"}, [(NOON_SECONDS, 2)]),
        Series({"status": "cancelled"}, [(NOON_SECONDS, 0)]),
    ]
