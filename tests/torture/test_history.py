"""The test of the kill test's judge: a clean history passes, and each fault planted in it is found."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from labrats.model.phases import P, Phase
from tests.torture.history import (
    DECISION_SECONDS,
    Accepted,
    Asked,
    Followed,
    History,
    Line,
    Refused,
    Run,
    ToldEnded,
    Violation,
    Written,
    violations,
)

LONG_AGO = 0.0
LINES = (Line(1, 3, "tick 1"), Line(1, 4, "tick 2"))
LINES_OF_THE_RETRY = (Line(2, 3, "tick 1"),)

CLEAN = History(
    accepted=[Accepted("plain", "a"), Accepted("retried", "b"), Accepted("cancelled", "c"), Accepted("unstarted", "d")],
    asked=[
        Asked("retry", "retried", agreed=True),
        Asked("cancel", "cancelled", agreed=True),
        Asked("cancel", "cancelled", agreed=False),
        Asked("cancel", "unstarted", agreed=None),
        Asked("cancel", "plain", agreed=None),
    ],
    told=[ToldEnded("plain", P.SUCCEEDED, 1, at=14), ToldEnded("retried", P.FAILED, 1, at=20)],
    followed=[
        Followed("plain", LINES, ended=P.SUCCEEDED),
        Followed("plain", LINES[:1], ended=None),
        Followed("retried", LINES, ended=P.FAILED),
        Followed("retried", LINES + LINES_OF_THE_RETRY, ended=P.SUCCEEDED),
        Followed("unstarted", (), ended=P.CANCELLED),
    ],
    written=[
        Written(10.0, "plain", P.PENDING, 0, "a", "m"),
        Written(10.1, "plain", P.RUNNING, 1, "a", "m"),
        Written(10.2, "retried", P.PENDING, 0, "b", "m"),
        Written(13.9, "plain", P.SUCCEEDED, 1, "a", "m"),
        Written(14.0, "retried", P.RUNNING, 1, "b", "m"),
        Written(14.1, "cancelled", P.PENDING, 0, "c", "m", priority=9),
        Written(19.0, "retried", P.FAILED, 1, "b", "m"),
        Written(20.5, "retried", P.PENDING, 1, "b", "m"),
        Written(21.0, "retried", P.RUNNING, 2, "b", "m"),
        Written(24.0, "retried", P.SUCCEEDED, 2, "b", "m"),
        Written(24.1, "cancelled", P.RUNNING, 1, "c", "m", priority=9),
        Written(24.2, "unstarted", P.PENDING, 0, "d", "m"),
        Written(24.3, "cancelled", P.RUNNING, 1, "c", "m", priority=9),
        Written(25.0, "unstarted", P.CANCELLED, 0, "d", "m"),
        Written(26.0, "cancelled", P.CANCELLED, 1, "c", "m", priority=9),
    ],
    runs=[
        Run("plain", 1, 11, 13, (1, 2, 3, 4, 5), LINES, "result"),
        Run("retried", 1, 15, 18, (1, 2, 3, 4), LINES, None),
        Run("retried", 2, 22, 23, (1, 2, 3, 4), LINES_OF_THE_RETRY, "result"),
        Run("cancelled", 1, 24.2, 25.9, (1, 2), (), None),
    ],
    slots={"m": 1},
)


def test_a_clean_history_shows_no_violation() -> None:
    assert violations(CLEAN) == []


def test_an_accepted_job_that_the_store_does_not_know_is_lost() -> None:
    assert found(replace(CLEAN, accepted=[*CLEAN.accepted, Accepted("gone", "e")])) == {("lost", "gone")}


def test_an_accepted_job_whose_name_became_another_job_is_lost() -> None:
    assert found(replace(CLEAN, accepted=[*CLEAN.accepted, Accepted("plain", "e")])) == {("lost", "plain")}


@pytest.mark.parametrize("phase", [P.PENDING, P.RUNNING])
def test_a_job_that_never_ends_is_lost(phase: Phase) -> None:
    stuck = [Written(30, "stuck", P.PENDING, 0, "e", "m"), Written(31, "stuck", phase, phase is P.RUNNING, "e", "m")]
    assert found(with_written(stuck)) == {("lost", "stuck")}


def test_one_submission_that_became_two_jobs() -> None:
    again = [Written(30, "again", P.PENDING, 0, "a", "m"), Written(31, "again", P.CANCELLED, 0, "a", "m")]
    asked = [*CLEAN.asked, Asked("cancel", "again", agreed=True)]
    assert found(replace(with_written(again), asked=asked)) == {("doubled", "a")}


def test_a_move_that_the_table_does_not_have() -> None:
    resurrected = [Written(30, "plain", P.RUNNING, 1, "a", "m"), Written(31, "plain", P.SUCCEEDED, 1, "a", "m")]
    assert found(with_written(resurrected)) == {("moves", "plain")}


def test_a_job_that_begins_in_the_middle() -> None:
    written = [version for version in CLEAN.written if (version.job_id, version.phase) != ("plain", P.PENDING)]
    assert found(replace(CLEAN, written=written)) == {("moves", "plain")}


def test_an_attempt_that_was_not_counted() -> None:
    uncounted = [replace(version, attempts=0) if version.job_id == "plain" else version for version in CLEAN.written]
    assert ("moves", "plain") in found(replace(CLEAN, written=uncounted))


@pytest.mark.parametrize("second", [P.SUCCEEDED, P.FAILED])
def test_a_second_terminal_phase(second: Phase) -> None:
    assert ("second end", "plain") in found(with_written([Written(30, "plain", second, 1, "a", "m")]))


def test_more_attempts_than_were_asked_for() -> None:
    assert ("attempts", "retried") in found(replace(CLEAN, asked=CLEAN.asked[1:]))


def test_a_retry_whose_answer_was_lost_may_have_counted() -> None:
    unanswered = [Asked("retry", "retried", agreed=None), *CLEAN.asked[1:]]
    assert found(replace(CLEAN, asked=unanswered)) == set()


@pytest.mark.parametrize("call", ["retry", "cancel"])
def test_a_move_that_nobody_asked_for(call: str) -> None:
    unasked = found(replace(CLEAN, asked=[asked for asked in CLEAN.asked if asked.call != call]))
    assert ("unasked", {"retry": "retried", "cancel": "cancelled"}[call]) in unasked


def test_a_cancel_that_was_agreed_to_and_lost() -> None:
    assert found(replace(CLEAN, asked=[*CLEAN.asked, Asked("cancel", "plain", agreed=True)])) == {("cancel", "plain")}


@pytest.mark.parametrize("told", [ToldEnded("plain", P.FAILED, 1, at=14), ToldEnded("plain", P.SUCCEEDED, 2, at=14)])
def test_an_end_that_was_told_and_never_stored(told: ToldEnded) -> None:
    assert found(replace(CLEAN, told=[told])) == {("untruth", "plain")}


def test_a_valid_call_that_was_refused() -> None:
    assert found(replace(CLEAN, refused=[Refused("GET /api/jobs", 401)])) == {("refused", "GET /api/jobs")}


@pytest.mark.parametrize("outcome", ["error", None])
def test_a_success_without_a_result(outcome: str | None) -> None:
    assert found(with_run("plain", 1, outcome=outcome)) == {("outcome", "plain")}


def test_a_result_that_was_thrown_away() -> None:
    assert found(with_run("retried", 1, outcome="result")) == {("outcome", "retried")}


def test_an_attempt_that_begins_before_the_last_one_is_gone() -> None:
    overlapping = replace(with_run("retried", 1, last=22.5), told=[], slots={})
    assert found(overlapping) == {("overlap", "retried")}


def test_a_process_of_a_job_that_was_already_called_ended() -> None:
    assert found(replace(with_run("plain", 1, last=14.5), slots={})) == {("outlived", "plain")}


def test_more_runs_at_once_than_slots() -> None:
    assert found(replace(with_run("plain", 1, last=16), told=[])) == {("slots", "m")}


def test_more_jobs_running_at_once_than_slots() -> None:
    early = replace(CLEAN.written[4], at=13)
    written = [early if version is CLEAN.written[4] else version for version in CLEAN.written]
    written.sort(key=lambda version: version.at)
    assert found(replace(CLEAN, written=written)) == {("slots", "m")}


def test_a_better_placed_job_that_is_passed_over() -> None:
    assert found(with_waiting(priority=8, since=24.0 - DECISION_SECONDS)) == {("priority", "waiting")}


def test_an_older_job_of_the_same_priority_that_is_passed_over() -> None:
    assert found(with_waiting(priority=9, created_at=LONG_AGO - 1)) == {("priority", "waiting")}


def test_a_job_that_has_waited_long_gains_on_the_others() -> None:
    assert found(with_waiting(priority=10, created_at=LONG_AGO - 601)) == {("priority", "waiting")}


def test_a_worse_placed_job_waits_rightly() -> None:
    assert found(with_waiting(priority=9, created_at=LONG_AGO + 1)) == set()


def test_a_job_that_came_when_a_slot_may_have_been_given_already_was_not_passed_over() -> None:
    assert found(with_waiting(priority=0, since=20.9)) == set()


def test_a_job_that_came_just_before_the_start_was_not_passed_over() -> None:
    assert found(with_waiting(priority=0, since=24.05 - DECISION_SECONDS + 0.1)) == set()


def test_a_job_put_back_is_not_passed_over_before_its_time() -> None:
    assert found(with_waiting(priority=0, not_before=23.0)) == set()


@pytest.mark.parametrize("seqs", [(1, 2, 4, 5), (1, 2, 2, 3), (2, 1, 3), (2, 3)])
def test_an_event_that_an_output_lacks_or_repeats(seqs: tuple[int, ...]) -> None:
    assert found(with_run("plain", 1, seqs=seqs)) == {("output", "plain")}


@pytest.mark.parametrize(
    "lines",
    [LINES[1:], (*LINES, LINES[1]), (LINES[0], LINES[0], LINES[1]), LINES[::-1], (LINES[0], Line(1, 4, "tick 3"))],
    ids=["lost", "repeated at the end", "repeated", "disordered", "changed"],
)
def test_a_stream_that_is_not_what_was_written(lines: tuple[Line, ...]) -> None:
    assert found(replace(CLEAN, followed=[Followed("plain", lines, ended=None)])) == {("stream", "plain")}


@pytest.mark.parametrize(
    "followed",
    [
        Followed("plain", LINES[:1], ended=P.SUCCEEDED),
        Followed("plain", LINES, ended=P.FAILED),
        Followed("retried", LINES, ended=P.SUCCEEDED),
        Followed("unknown", (), ended=P.SUCCEEDED),
    ],
    ids=["too early", "otherwise", "without the last attempt", "of no job"],
)
def test_a_stream_that_ends_as_the_job_did_not(followed: Followed) -> None:
    assert found(replace(CLEAN, followed=[followed])) == {("stream", followed.job_id)}


def test_a_process_left_over() -> None:
    assert found(replace(CLEAN, leftovers=["sleep 300"])) == {("left over", "sleep 300")}


def test_a_violation_says_what_happened() -> None:
    [violation] = violations(replace(with_run("retried", 1, last=22.5), told=[], slots={}))
    what = "attempt 2 began 0.500 s before attempt 1 was gone"
    assert violation == Violation("overlap", "retried", what)


def found(history: History) -> set[tuple[str, str]]:
    return {(violation.promise, violation.about) for violation in violations(history)}


def with_written(more: Sequence[Written]) -> History:
    return replace(CLEAN, written=[*CLEAN.written, *more], slots={})


def with_run(job_id: str, attempt: int, **changes: object) -> History:
    """The clean history, one run changed."""
    runs = [
        replace(run, **changes) if (run.job_id, run.attempt) == (job_id, attempt) else run  # type: ignore[arg-type]
        for run in CLEAN.runs
    ]
    return replace(CLEAN, runs=runs)


def with_waiting(priority: int, since: float = 21.5, created_at: float = LONG_AGO, not_before: float = 0) -> History:
    """The clean history, and in it a job that comes while `retried` has the slot, and waits while `cancelled`, of
    priority 9, is started at 24.1.
    """
    pending = Written(since, "waiting", P.PENDING, 0, "e", "m", priority, created_at=created_at, not_before=not_before)
    later = [
        replace(pending, at=40, phase=P.RUNNING, attempts=1),
        replace(pending, at=41, phase=P.FAILED, attempts=1),
    ]
    position = next(n for n, version in enumerate(CLEAN.written) if version.at > since)
    written = [*CLEAN.written[:position], pending, *CLEAN.written[position:], *later]
    return replace(CLEAN, written=written)
