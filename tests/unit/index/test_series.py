"""The time series of jobs, and the steps of a series."""

from datetime import timedelta
from typing import Any

import apsw
import pytest

from labrats.index.job_table import open_table, put
from labrats.index.series import values_of
from labrats.model.job import Job, Usage
from labrats.model.phases import Phase
from labrats.model.series import Metric, Series, Steps, Value, series_of
from tests.fakes.clock import NOON
from tests.support.builders import a_job

P, M = Phase, Metric
SECOND = timedelta(seconds=1)
NOON_SECONDS = int(NOON.timestamp())
HOUR_STEPS = Steps.until(NOON, 3600, 3)


def series_with(*jobs: Job) -> apsw.Connection:
    """Return the tables of an index of the jobs."""
    table = open_table(None)
    for job in jobs:
        put(table, job)
    return table


def an_ended(phase: Phase = P.SUCCEEDED, *, ago: int = 60, waited: int = 5, ran: int = 30, **status: Any) -> Job:
    """A job that ended `ago` seconds before noon, after `waited` seconds in the queue and `ran` seconds of running."""
    finished = NOON - ago * SECOND
    started = finished - ran * SECOND
    times = {"started_at": started, "finished_at": finished}
    return a_job(phase, created_at=started - waited * SECOND, **times | status)


def values(table: apsw.Connection, metric: Metric, steps: Steps = HOUR_STEPS) -> list[tuple[str, int, float]]:
    """Return the metric as (label, seconds between the end of the step and noon, value)."""
    return sorted((each.label, NOON_SECONDS - each.end, each.value) for each in values_of(table, metric, steps))


def test_ended_jobs_are_counted_by_status_in_the_step_they_ended_in() -> None:
    series = series_with(an_ended(), an_ended(), an_ended(P.FAILED, ago=3600), a_job(P.RUNNING), a_job())

    assert values(series, M.JOBS) == [
        ("cancelled", 0, 0), ("cancelled", 3600, 0),
        ("completed", 0, 2), ("completed", 3600, 0),
        ("failed", 0, 0), ("failed", 3600, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("ago", "step_ends_ago"), [(0, 0), (3599, 0), (3600, 3600), (7199, 3600), (10799, 7200)])
def test_a_step_includes_its_end_and_excludes_its_begin(ago: int, step_ends_ago: int) -> None:
    assert ("", step_ends_ago, 30.0) in values(series_with(an_ended(ago=ago)), M.DURATION)


def test_the_steps_contain_a_job_that_ends_in_the_first_second_of_the_last_one() -> None:
    now = NOON + timedelta(milliseconds=500)
    table = series_with(an_ended(ago=0), a_job(P.SUCCEEDED, started_at=NOON, finished_at=now))

    assert values(table, M.DURATION, Steps.until(now, 3600, 2)) == [("", -3600, 0.5), ("", 0, 30.0)]


def test_a_job_that_ended_before_the_first_step_is_left_out() -> None:
    assert values(series_with(an_ended(ago=10800)), M.DURATION) == []


def test_durations_and_waits_are_means_over_the_jobs_of_a_step() -> None:
    series = series_with(an_ended(waited=2, ran=10), an_ended(waited=4, ran=30))

    assert values(series, M.QUEUE_WAIT) == [("", 0, 3.0)]
    assert values(series, M.DURATION) == [("", 0, 20.0)]


def test_a_wait_counts_once_the_job_runs() -> None:
    running = a_job(P.RUNNING, created_at=NOON - 50 * SECOND, started_at=NOON - 40 * SECOND)

    assert values(series_with(running), M.QUEUE_WAIT) == [("", 0, 10.0)]


def test_a_further_attempt_does_not_change_the_wait_of_a_job() -> None:
    first = a_job(P.RUNNING, job_id="ir-1", created_at=NOON - 50 * SECOND, started_at=NOON - 40 * SECOND)
    second = a_job(P.RUNNING, job_id="ir-1", created_at=NOON - 50 * SECOND, started_at=NOON - 10 * SECOND, attempts=2)

    assert values(series_with(first, second), M.QUEUE_WAIT) == [("", 0, 10.0)]
    assert values(series_with(second), M.QUEUE_WAIT) == [], "the start of the first attempt is unknown"


def test_a_job_cancelled_while_it_waited_has_not_run() -> None:
    never_started = an_ended(P.CANCELLED, started_at=None, slot=None, attempts=0)
    requeued_before = an_ended(P.CANCELLED, slot=None, attempts=1)
    series = series_with(never_started, requeued_before)

    assert values(series, M.DURATION) == []
    assert ("cancelled", 0, 2) in values(series, M.JOBS)


def test_tokens_and_costs_are_sums() -> None:
    usage = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=2, cost_usd=0.25)
    unknown = Usage(input_tokens=1)
    series = series_with(an_ended(usage=usage), an_ended(usage=usage), an_ended(usage=unknown))

    assert values(series, M.TOKENS) == [("cache_read", 0, 4), ("input", 0, 21), ("output", 0, 10)]
    assert values(series, M.COST) == [("", 0, 0.5)]


def test_a_requeued_or_removed_job_is_left_out() -> None:
    failed = an_ended(P.FAILED)
    series = series_with(failed, a_job(job_id=failed.id, attempts=1, started_at=NOON))
    assert values(series, M.JOBS) == []

    ended = an_ended()
    put(series, ended)
    series.execute("DELETE FROM jobs WHERE id = ?", (ended.id,))
    assert values(series, M.JOBS) == []


def test_steps_begin_at_multiples_of_their_length() -> None:
    steps = Steps.until(NOON + 10 * SECOND, 3600, 2)

    assert list(steps.ends) == [NOON_SECONDS, NOON_SECONDS + 3600]
    assert Steps.until(NOON, 3600, 2).end == NOON_SECONDS


def test_an_empty_step_has_a_sum_of_0_and_no_mean() -> None:
    begin, end = HOUR_STEPS.ends[0], HOUR_STEPS.end
    one = [Value("", end, 1.5)]

    assert series_of(M.COST, HOUR_STEPS, one) == [Series({}, [(begin, 0), (begin + 3600, 0), (end, 1.5)])]
    assert series_of(M.DURATION, HOUR_STEPS, one) == [Series({}, [(end, 1.5)])]


def test_a_metric_has_all_its_series_and_whole_counts() -> None:
    steps = Steps.until(NOON, 3600, 1)

    assert series_of(M.JOBS, steps, [Value("failed", NOON_SECONDS, 2.04)]) == [
        Series({"status": "completed"}, [(NOON_SECONDS, 0)]),
        Series({"status": "failed"}, [(NOON_SECONDS, 2)]),
        Series({"status": "cancelled"}, [(NOON_SECONDS, 0)]),
    ]
