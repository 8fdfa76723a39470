"""What a caller is told of its job, and when it is told again."""

import json
from datetime import timedelta
from email.utils import format_datetime
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


def told(job: Job, verdict: Verdict | None = None) -> Job:
    """The job once its next message is done with."""
    message = next_message(job)
    assert message
    return replace(job, status=replace(job.status, callback=settled(message, verdict or CallbackDelivered(), NOON)))


def moved(job: Job, **status: Any) -> Job:
    return replace(job, status=replace(job.status, **status))


def told_in_turn(job: Job) -> list[dict[str, Any]]:
    """All the messages that the caller of `job` gets from now on."""
    bodies = []
    while message := next_message(job):
        bodies.append(json.loads(message.body))
        job = told(job)
    return bodies


IN_PROGRESS = {"jobId": "ir-00000001", "phase": "in_progress", "metadata": {"repo": "a/b"}}


@pytest.mark.parametrize(
    ("job", "ending"),
    [
        (a_job_with_callback(P.SUCCEEDED), {"phase": "completed"}),
        (a_job_with_callback(P.FAILED, failed_reason="it broke"), {"phase": "failed", "details": "it broke"}),
        (a_job_with_callback(P.CANCELLED), {"phase": "failed", "details": "cancelled"}),
    ],
    ids=["succeeded", "failed", "cancelled"],
)
def test_a_caller_is_told_that_a_job_runs_and_how_it_ended(job: Job, ending: dict[str, Any]) -> None:
    last = {"jobId": "ir-00000001", "metadata": {"repo": "a/b"}} | ending
    assert told_in_turn(job) == [IN_PROGRESS, last]


def test_of_a_waiting_job_there_is_nothing_to_tell() -> None:
    assert told_in_turn(a_job_with_callback(P.PENDING)) == []


def test_of_a_job_that_never_ran_only_the_end_is_told() -> None:
    cancelled = a_job_with_callback(P.CANCELLED, attempts=0, started_at=None)
    assert [body["phase"] for body in told_in_turn(cancelled)] == ["failed"]


def test_a_job_without_an_address_tells_nothing() -> None:
    assert next_message(a_job(P.SUCCEEDED)) is None


def test_further_attempts_of_a_run_are_not_told() -> None:
    running = told(a_job_with_callback(P.RUNNING))
    assert next_message(moved(running, attempts=2)) is None
    assert next_message(moved(running, phase=P.PENDING)) is None


def test_a_job_retried_by_hand_tells_of_its_new_run() -> None:
    failed = told(told(a_job_with_callback(P.FAILED)))
    waiting = moved(failed, phase=P.PENDING, finished_at=None)
    assert told_in_turn(waiting) == []
    running = moved(waiting, phase=P.RUNNING, attempts=2)
    assert told_in_turn(running) == [IN_PROGRESS]
    succeeded = moved(told(running), phase=P.SUCCEEDED, finished_at=NOON + timedelta(hours=1))
    assert [body["phase"] for body in told_in_turn(succeeded)] == ["completed"]


def test_a_retried_job_that_is_cancelled_while_it_waits_tells_so() -> None:
    failed = told(told(a_job_with_callback(P.FAILED)))
    cancelled = moved(failed, phase=P.CANCELLED, finished_at=NOON + timedelta(hours=1))
    assert [body["phase"] for body in told_in_turn(cancelled)] == ["failed"]


def test_an_end_that_a_retry_has_overtaken_is_not_told() -> None:
    failed = told(a_job_with_callback(P.FAILED))
    assert next_message(moved(failed, phase=P.RUNNING, attempts=2, finished_at=None)) is None


def test_each_message_has_an_id_of_its_own_and_keeps_it() -> None:
    running = a_job_with_callback(P.RUNNING)
    failed = moved(told(running), phase=P.FAILED, finished_at=NOON)
    again = moved(told(failed), phase=P.RUNNING, attempts=2, finished_at=None)
    failed_again = moved(told(again), phase=P.FAILED, finished_at=NOON + timedelta(hours=1))
    messages = [next_message(job) for job in (running, failed, again, failed_again)]
    assert len({message.id for message in messages if message}) == 4
    assert next_message(moved(running, attempts=2))
    assert messages[0]
    assert next_message(moved(running, attempts=2)).id == messages[0].id  # type: ignore[union-attr]
    assert not any("." in message.id for message in messages if message)


def test_a_receiver_that_is_gone_is_told_nothing_more() -> None:
    running = told(a_job_with_callback(P.RUNNING), judge_answer(410, {}, NOON))
    assert running.status.callback
    assert running.status.callback.problem == "the receiver answered 410"
    assert next_message(moved(running, phase=P.SUCCEEDED, finished_at=NOON)) is None


def test_a_message_that_was_refused_does_not_keep_the_next_one_back() -> None:
    running = told(a_job_with_callback(P.RUNNING), judge_answer(404, {}, NOON))
    assert [body["phase"] for body in told_in_turn(moved(running, phase=P.SUCCEEDED, finished_at=NOON))] == [
        "completed"
    ]


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [(CallbackDelivered, [200, 204]), (CallbackRefused, [302, 400, 404, 410]), (CallbackFailed, [429, 500, 503])],
)
def test_only_what_may_pass_is_tried_again(verdict: type, statuses: list[int]) -> None:
    assert all(isinstance(judge_answer(status, {}, NOON), verdict) for status in statuses)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("90", 90),
        (format_datetime(NOON + timedelta(minutes=2), usegmt=True), 120),
        (format_datetime(NOON - timedelta(minutes=2), usegmt=True), 0),
        ("9" * 30, LONGEST_WAIT_SECONDS),
        ("soon", 0),
        ("-5", 0),
        ("²", 0),
        ("Thu, 01 Jan 2026 12:02:00", 0),
        ("", 0),
    ],
)
def test_a_receiver_may_say_when(retry_after: str, seconds: float) -> None:
    assert judge_answer(503, {"retry-after": retry_after}, NOON) == CallbackFailed("the receiver answered 503", seconds)


def test_the_waits_get_longer_and_end_after_three_days() -> None:
    message = next_message(a_job_with_callback(P.RUNNING))
    assert message
    waits = [wait_after(CallbackFailed("no"), message, tries, NOON) for tries in range(1, len(WAITS_SECONDS) + 2)]
    assert waits.pop() is None
    assert waits == sorted(waits, key=lambda wait: wait or 0)
    total = sum(wait for wait in waits if wait)
    assert 0.8 * 75 * 3600 < total < 1.2 * 76 * 3600
    assert all(0.8 * usual <= (wait or 0) <= 1.2 * usual for wait, usual in zip(waits, WAITS_SECONDS, strict=True))


def test_the_waits_of_different_jobs_are_spread() -> None:
    messages = [next_message(replace(a_job_with_callback(P.RUNNING), metadata=each.metadata)) for each in some_jobs()]
    assert len({wait_after(CallbackFailed("no"), message, 1, NOON) for message in messages if message}) > 1


def some_jobs() -> list[Job]:
    jobs = [a_job() for _ in range(10)]
    return [replace(job, metadata=replace(job.metadata, uid=job.id)) for job in jobs]


def test_what_happened_long_ago_is_not_tried_again() -> None:
    message = next_message(a_job_with_callback(P.RUNNING))
    assert message
    assert wait_after(CallbackFailed("no"), message, 1, NOON + timedelta(hours=97)) is None
