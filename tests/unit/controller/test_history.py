"""The checker of histories: it finds each broken promise, and none in a clean history."""

import re
from collections.abc import Callable
from dataclasses import replace as changed
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.model.attempt_name import AttemptName
from labrats.model.job import FailedCode, Job, JobSpec
from labrats.model.phases import Phase
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_spec, an_ai_model
from tests.unit.controller.history import History, Run, violations

P = Phase
LAG = timedelta(seconds=10)
Edit = Callable[[History], History]


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def written(seconds: float, job_id: str, phase: Phase, attempts: int, **fields: Any) -> tuple[datetime, Job]:
    """Return a write of a job. fields: of JobStatus, and `spec` and `created_at`."""
    usual: dict[str, Any] = {"spec": a_spec(config={"max_attempts": 2}), "deadline_at": at(3600)}
    return at(seconds), a_job(phase, job_id=job_id, attempts=attempts, **usual | fields)


def clean() -> History:
    """Job `a` fails once and then succeeds. Job `b` waits for the only slot, and is cancelled while it runs."""
    first, second = {"created_at": at(0)}, {"created_at": at(1)}
    return History(
        jobs=[
            written(0, "a", P.PENDING, 0, **first),
            written(1, "b", P.PENDING, 0, **second),
            written(2, "a", P.RUNNING, 1, **first),
            written(50, "a", P.PENDING, 1, not_before=at(150), **first),
            written(51, "b", P.RUNNING, 1, **second),
            written(120, "b", P.RUNNING, 1, cancel_requested_at=at(120), **second),
            written(130, "b", P.CANCELLED, 1, cancel_requested_at=at(120), finished_at=at(130), **second),
            written(150, "a", P.RUNNING, 2, **first),
            written(200, "a", P.SUCCEEDED, 2, finished_at=at(200), **first),
        ],
        ai_models=[(at(0), an_ai_model(slots=1))],
        runs=[
            Run(AttemptName("a", 1), at(2), at(49)),
            Run(AttemptName("b", 1), at(51), at(129)),
            Run(AttemptName("a", 2), at(151), at(200)),
        ],
    )


def test_a_clean_history_breaks_no_promise() -> None:
    assert violations(clean(), LAG) == []


def without_write(index: int) -> Edit:
    return lambda history: changed(history, jobs=history.jobs[:index] + history.jobs[index + 1 :])


def with_status(index: int, **status: Any) -> Edit:
    def edit(history: History) -> History:
        time, job = history.jobs[index]
        history.jobs[index] = time, replace(job, status=replace(job.status, **status))
        return history

    return edit


def with_write(seconds: float, *write: Any, **fields: Any) -> Edit:
    def edit(history: History) -> History:
        jobs = [*history.jobs, written(seconds, *write, **fields)]
        return changed(history, jobs=sorted(jobs, key=lambda each: each[0]))

    return edit


def with_runs(*runs: Run) -> Edit:
    return lambda history: changed(history, runs=[*history.runs, *runs])


def with_run(index: int, **fields: Any) -> Edit:
    def edit(history: History) -> History:
        history.runs[index] = changed(history.runs[index], **fields)
        return history

    return edit


def with_slots(*slots: tuple[float, int]) -> Edit:
    return lambda history: changed(history, ai_models=[(at(when), an_ai_model(slots=count)) for when, count in slots])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (without_write(8), "a never ended"),
        (with_status(3, phase=P.CANCELLED), "a went from Cancelled to Running"),
        (with_write(300, "a", P.FAILED, 2), "a went from Succeeded to Failed"),
        (with_write(300, "a", P.SUCCEEDED, 2), "a was written while Succeeded"),
        (with_status(7, attempts=3), "from 1 attempts to 3"),
        (with_status(6, phase=P.SUCCEEDED), "b was cancelled on request"),
        (with_status(8, phase=P.PENDING), "a was requeued after its last attempt"),
        (with_status(8, phase=P.FAILED, failed_code=FailedCode.TIMEOUT), "a timed out before its deadline"),
        (with_status(8, phase=P.FAILED, failed_reason="stopped on request"), "a was stopped with no reason"),
        (with_runs(Run(AttemptName("a", 1), at(40), at(45))), "overlap"),
        (with_runs(Run(AttemptName("a", 3), at(300), at(301))), "lived outside"),
        (with_run(0, ended_at=None), "lived outside"),
        (with_run(0, ended_at=at(60)), "lived outside"),
        (with_run(1, started_at=at(50.5)), "lived outside"),
        (with_run(2, started_at=at(1)), "overlap"),
        (with_slots((0, 1), (30, 0)), "b started at .* as number 1 on 0 slots"),
        (with_status(3, phase=P.RUNNING), "b started at .* as number 2 on 1 slots"),
        (with_write(-20, "c", P.PENDING, 0, created_at=at(-20)), "a started at .* before c"),
    ],
)
def test_a_broken_promise_is_found(edit: Edit, words: str) -> None:
    assert re.search(words, "\n".join(violations(edit(clean()), LAG)))


@pytest.mark.parametrize(
    "edit",
    [
        with_slots((0, 1), (50.5, 0), (60, 1)),  # the slot was removed during the start of the job
        with_slots((0, 0), (1, 1)),
    ],
)
def test_a_change_within_the_lag_breaks_no_promise(edit: Edit) -> None:
    assert violations(edit(clean()), LAG) == []


@pytest.mark.parametrize(
    "spec", [a_spec(priority=3), a_spec(config={"model": "other"})], ids=["of worse priority", "of another model"]
)
def test_a_waiting_job_of_worse_priority_or_another_model_is_not_overtaken(spec: JobSpec) -> None:
    history = with_write(-20, "c", P.PENDING, 0, created_at=at(-20), spec=spec)(clean())
    assert not re.search("before c", "\n".join(violations(history, LAG)))
