"""Callback messages of a job, and the delays between tries."""

import json
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.callback_messages import (
    LONGEST_WAIT_SECONDS,
    WAITS_SECONDS,
    CallbackDelivered,
    CallbackFailed,
    CallbackRefused,
    Verdict,
    judge_answer,
    next_message,
    settled,
    wait_after,
)
from labrats.model.job import Job
from labrats.model.phases import Phase
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_spec

P = Phase
URL = "https://ci.example.com/hook"


def a_job_with_callback(phase: Phase, **status: Any) -> Job:
    return a_job(phase, job_id="ir-00000001", spec=a_spec(callback_url=URL, metadata={"repo": "a/b"}), **status)


def after_message(job: Job, verdict: Verdict | None = None) -> Job:
    """Return the job after its next message is delivered, or gets another verdict."""
    message = next_message(job)
    assert message
    return replace(job, status=replace(job.status, callback=settled(message, verdict or CallbackDelivered(), NOON)))


def moved(job: Job, **status: Any) -> Job:
    return replace(job, status=replace(job.status, **status))


def due_bodies(job: Job) -> list[dict[str, Any]]:
    """Return the bodies of all messages that are due for the job."""
    bodies = []
    while message := next_message(job):
        bodies.append(json.loads(message.body))
        job = after_message(job)
    return bodies


IN_PROGRESS = {"jobId": "ir-00000001", "phase": "in_progress", "metadata": {"repo": "a/b"}}


@pytest.mark.parametrize(
    ("job", "ending"),
    [
        (a_job_with_callback(P.SUCCEEDED), {"phase": "completed"}),
        (a_job_with_callback(P.FAILED, failed_reason="it broke"), {"phase": "failed", "details": "it broke"}),
        (a_job_with_callback(P.CANCELLED), {"phase": "failed", "details": "cancelled"}),
        (
            a_job_with_callback(P.CANCELLED, superseded_by="ir-2"),
            {"phase": "failed", "details": "cancelled: superseded by ir-2"},
        ),
    ],
    ids=["succeeded", "failed", "cancelled", "superseded"],
)
def test_a_job_has_messages_for_its_start_and_its_end(job: Job, ending: dict[str, Any]) -> None:
    last = {"jobId": "ir-00000001", "metadata": {"repo": "a/b"}} | ending
    assert due_bodies(job) == [IN_PROGRESS, last]


def test_a_waiting_job_has_no_message() -> None:
    assert due_bodies(a_job_with_callback(P.PENDING)) == []


def test_a_job_that_never_ran_has_only_a_message_for_its_end() -> None:
    cancelled = a_job_with_callback(P.CANCELLED, attempts=0, started_at=None)
    assert [body["phase"] for body in due_bodies(cancelled)] == ["failed"]


def test_a_job_without_a_callback_url_has_no_message() -> None:
    assert next_message(a_job(P.SUCCEEDED)) is None


def test_further_attempts_of_a_run_have_no_message() -> None:
    running = after_message(a_job_with_callback(P.RUNNING))
    assert next_message(moved(running, attempts=2)) is None
    assert next_message(moved(running, phase=P.PENDING)) is None


def test_a_job_retried_on_request_has_messages_for_its_new_run() -> None:
    failed = after_message(after_message(a_job_with_callback(P.FAILED)))
    waiting = moved(failed, phase=P.PENDING, finished_at=None)
    assert due_bodies(waiting) == []
    running = moved(waiting, phase=P.RUNNING, attempts=2)
    assert due_bodies(running) == [IN_PROGRESS]
    succeeded = moved(after_message(running), phase=P.SUCCEEDED, finished_at=NOON + timedelta(hours=1))
    assert [body["phase"] for body in due_bodies(succeeded)] == ["completed"]


def test_a_retried_job_that_is_cancelled_while_it_waits_has_a_message_for_its_end() -> None:
    failed = after_message(after_message(a_job_with_callback(P.FAILED)))
    cancelled = moved(failed, phase=P.CANCELLED, finished_at=NOON + timedelta(hours=1))
    assert [body["phase"] for body in due_bodies(cancelled)] == ["failed"]


def test_the_end_before_a_retry_has_no_message() -> None:
    failed = after_message(a_job_with_callback(P.FAILED))
    assert next_message(moved(failed, phase=P.RUNNING, attempts=2, finished_at=None)) is None


def test_each_message_has_a_unique_and_stable_id() -> None:
    running = a_job_with_callback(P.RUNNING)
    failed = moved(after_message(running), phase=P.FAILED, finished_at=NOON)
    again = moved(after_message(failed), phase=P.RUNNING, attempts=2, finished_at=None)
    failed_again = moved(after_message(again), phase=P.FAILED, finished_at=NOON + timedelta(hours=1))
    messages = [next_message(job) for job in (running, failed, again, failed_again)]
    assert len({message.id for message in messages if message}) == 4
    assert next_message(moved(running, attempts=2))
    assert messages[0]
    assert next_message(moved(running, attempts=2)).id == messages[0].id  # type: ignore[union-attr]
    assert not any("." in message.id for message in messages if message)


def test_no_message_follows_an_answer_410() -> None:
    running = after_message(a_job_with_callback(P.RUNNING), judge_answer(410, {}, NOON))
    assert running.status.callback
    assert running.status.callback.problem == "the receiver answered 410"
    assert next_message(moved(running, phase=P.SUCCEEDED, finished_at=NOON)) is None


def test_a_refused_message_does_not_block_the_next_one() -> None:
    running = after_message(a_job_with_callback(P.RUNNING), judge_answer(404, {}, NOON))
    assert [body["phase"] for body in due_bodies(moved(running, phase=P.SUCCEEDED, finished_at=NOON))] == ["completed"]


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [(CallbackDelivered, [200, 204]), (CallbackRefused, [302, 400, 404, 410]), (CallbackFailed, [429, 500, 503])],
)
def test_only_transient_answers_are_failures_and_other_errors_are_refusals(verdict: type, statuses: list[int]) -> None:
    assert all(isinstance(judge_answer(status, {}, NOON), verdict) for status in statuses)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("90", 90),
        ("9" * 30, LONGEST_WAIT_SECONDS),
        ("soon", 0),
        (None, 0),
    ],
)
def test_retry_after_sets_the_delay(retry_after: str | None, seconds: float) -> None:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    assert judge_answer(503, headers, NOON) == CallbackFailed("the receiver answered 503", seconds)


def test_delays_grow_and_end_after_three_days() -> None:
    message = next_message(a_job_with_callback(P.RUNNING))
    assert message
    waits = [wait_after(CallbackFailed("no"), message, tries, NOON) for tries in range(1, len(WAITS_SECONDS) + 2)]
    assert waits.pop() is None
    assert waits == sorted(waits, key=lambda wait: wait or 0)
    total = sum(wait for wait in waits if wait)
    assert 0.8 * 75 * 3600 < total < 1.2 * 76 * 3600
    assert all(0.8 * usual <= (wait or 0) <= 1.2 * usual for wait, usual in zip(waits, WAITS_SECONDS, strict=True))


def test_the_delays_of_different_jobs_are_spread() -> None:
    messages = [next_message(replace(a_job_with_callback(P.RUNNING), metadata=each.metadata)) for each in some_jobs()]
    assert len({wait_after(CallbackFailed("no"), message, 1, NOON) for message in messages if message}) > 1


def some_jobs() -> list[Job]:
    jobs = [a_job() for _ in range(10)]
    return [replace(job, metadata=replace(job.metadata, uid=job.id)) for job in jobs]


def test_a_message_about_an_old_event_is_not_tried_again() -> None:
    message = next_message(a_job_with_callback(P.RUNNING))
    assert message
    assert wait_after(CallbackFailed("no"), message, 1, NOON + timedelta(hours=97)) is None
