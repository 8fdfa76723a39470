"""The checker of the kill test: it accepts a clean history, and finds each planted fault."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from labrats.model.phases import P, Phase
from tests.torture.history import (
    DECISION_SECONDS,
    Accepted,
    Command,
    Followed,
    History,
    JobVersion,
    Line,
    ReportedEnd,
    Run,
    UnexpectedAnswer,
    Violation,
    violations,
)

LONG_AGO = 0.0
LINES = (Line(1, 3, "tick 1"), Line(1, 4, "tick 2"))
LINES_OF_THE_RETRY = (Line(2, 3, "tick 1"),)

CLEAN = History(
    accepted=[Accepted("plain", "a"), Accepted("retried", "b"), Accepted("cancelled", "c"), Accepted("unstarted", "d")],
    commands=[
        Command("retry", "retried", succeeded=True),
        Command("cancel", "cancelled", succeeded=True),
        Command("cancel", "cancelled", succeeded=False),
        Command("cancel", "unstarted", succeeded=None),
        Command("cancel", "plain", succeeded=None),
    ],
    reported=[ReportedEnd("plain", P.SUCCEEDED, 1, at=14), ReportedEnd("retried", P.FAILED, 1, at=20)],
    followed=[
        Followed("plain", LINES, ended=P.SUCCEEDED),
        Followed("plain", LINES[:1], ended=None),
        Followed("retried", LINES, ended=P.FAILED),
        Followed("retried", LINES + LINES_OF_THE_RETRY, ended=P.SUCCEEDED),
        Followed("unstarted", (), ended=P.CANCELLED),
    ],
    written=[
        JobVersion(10.0, "plain", P.PENDING, 0, "a", "m"),
        JobVersion(10.1, "plain", P.RUNNING, 1, "a", "m"),
        JobVersion(10.2, "retried", P.PENDING, 0, "b", "m"),
        JobVersion(13.9, "plain", P.SUCCEEDED, 1, "a", "m"),
        JobVersion(14.0, "retried", P.RUNNING, 1, "b", "m"),
        JobVersion(14.1, "cancelled", P.PENDING, 0, "c", "m", priority=9),
        JobVersion(19.0, "retried", P.FAILED, 1, "b", "m"),
        JobVersion(20.5, "retried", P.PENDING, 1, "b", "m"),
        JobVersion(21.0, "retried", P.RUNNING, 2, "b", "m"),
        JobVersion(24.0, "retried", P.SUCCEEDED, 2, "b", "m"),
        JobVersion(24.1, "cancelled", P.RUNNING, 1, "c", "m", priority=9),
        JobVersion(24.2, "unstarted", P.PENDING, 0, "d", "m"),
        JobVersion(24.3, "cancelled", P.RUNNING, 1, "c", "m", priority=9),
        JobVersion(25.0, "unstarted", P.CANCELLED, 0, "d", "m"),
        JobVersion(26.0, "cancelled", P.CANCELLED, 1, "c", "m", priority=9),
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
    stuck = [
        JobVersion(30, "stuck", P.PENDING, 0, "e", "m"),
        JobVersion(31, "stuck", phase, phase is P.RUNNING, "e", "m"),
    ]
    assert found(with_written(stuck)) == {("lost", "stuck")}


def test_a_submission_that_became_two_jobs_is_a_duplicate() -> None:
    again = [JobVersion(30, "again", P.PENDING, 0, "a", "m"), JobVersion(31, "again", P.CANCELLED, 0, "a", "m")]
    commands = [*CLEAN.commands, Command("cancel", "again", succeeded=True)]
    assert found(replace(with_written(again), commands=commands)) == {("duplicate", "a")}


def test_a_move_that_is_not_in_the_table_is_found() -> None:
    resurrected = [JobVersion(30, "plain", P.RUNNING, 1, "a", "m"), JobVersion(31, "plain", P.SUCCEEDED, 1, "a", "m")]
    assert found(with_written(resurrected)) == {("moves", "plain")}


def test_a_job_may_be_created_as_started() -> None:
    assert found(without_pending(CLEAN, "plain")) == set()


@pytest.mark.parametrize(("phase", "attempts"), [(P.PENDING, 1), (P.RUNNING, 0), (P.SUCCEEDED, 1)])
def test_a_job_that_is_created_in_another_phase_is_found(phase: Phase, attempts: int) -> None:
    first, *others = CLEAN.written
    assert ("moves", "plain") in found(
        replace(CLEAN, written=[replace(first, phase=phase, attempts=attempts), *others])
    )


def test_an_attempt_that_was_not_counted_is_found() -> None:
    uncounted = [replace(version, attempts=0) if version.job_id == "plain" else version for version in CLEAN.written]
    assert ("moves", "plain") in found(replace(CLEAN, written=uncounted))


@pytest.mark.parametrize("second", [P.SUCCEEDED, P.FAILED])
def test_a_second_outcome_is_found(second: Phase) -> None:
    assert ("second end", "plain") in found(with_written([JobVersion(30, "plain", second, 1, "a", "m")]))


def test_more_attempts_than_allowed_are_found() -> None:
    assert ("attempts", "retried") in found(replace(CLEAN, commands=CLEAN.commands[1:]))


def test_a_retry_whose_answer_was_lost_allows_an_attempt() -> None:
    unanswered = [Command("retry", "retried", succeeded=None), *CLEAN.commands[1:]]
    assert found(replace(CLEAN, commands=unanswered)) == set()


@pytest.mark.parametrize("call", ["retry", "cancel"])
def test_a_move_without_a_request_is_found(call: str) -> None:
    unrequested = found(replace(CLEAN, commands=[command for command in CLEAN.commands if command.call != call]))
    assert ("unrequested", {"retry": "retried", "cancel": "cancelled"}[call]) in unrequested


def test_a_lost_cancel_is_found() -> None:
    assert found(replace(CLEAN, commands=[*CLEAN.commands, Command("cancel", "plain", succeeded=True)])) == {
        ("cancel", "plain")
    }


@pytest.mark.parametrize(
    "report", [ReportedEnd("plain", P.FAILED, 1, at=14), ReportedEnd("plain", P.SUCCEEDED, 2, at=14)]
)
def test_a_reported_end_that_is_not_in_the_store_is_found(report: ReportedEnd) -> None:
    assert found(replace(CLEAN, reported=[report])) == {("false report", "plain")}


def test_a_refused_valid_call_is_found() -> None:
    assert found(replace(CLEAN, unexpected_answers=[UnexpectedAnswer("GET /api/jobs", 401)])) == {
        ("unexpected answer", "GET /api/jobs")
    }


@pytest.mark.parametrize("outcome", ["error", None])
def test_a_success_without_a_result_is_found(outcome: str | None) -> None:
    assert found(with_run("plain", 1, outcome=outcome)) == {("outcome", "plain")}


def test_a_failure_in_spite_of_a_result_is_found() -> None:
    assert found(with_run("retried", 1, outcome="result")) == {("outcome", "retried")}


def test_an_attempt_that_starts_before_the_end_of_the_last_one_is_found() -> None:
    overlapping = replace(with_run("retried", 1, last=22.5), reported=[], slots={})
    assert found(overlapping) == {("overlap", "retried")}


def test_a_process_after_the_reported_end_of_its_job_is_found() -> None:
    assert found(replace(with_run("plain", 1, last=14.5), slots={})) == {("run after the end", "plain")}


def test_more_concurrent_runs_than_slots_are_found() -> None:
    assert found(replace(with_run("plain", 1, last=16), reported=[])) == {("slots", "m")}


def test_more_running_jobs_than_slots_are_found() -> None:
    early = replace(CLEAN.written[4], at=13)
    written = [early if version is CLEAN.written[4] else version for version in CLEAN.written]
    written.sort(key=lambda version: version.at)
    assert found(replace(CLEAN, written=written)) == {("slots", "m")}


def test_a_passed_over_job_of_better_priority_is_found() -> None:
    assert found(with_waiting(priority=8, since=24.0 - DECISION_SECONDS)) == {("priority", "waiting")}


def test_a_passed_over_older_job_of_the_same_priority_is_found() -> None:
    assert found(with_waiting(priority=9, created_at=LONG_AGO - 1)) == {("priority", "waiting")}


def test_a_job_that_waits_while_a_new_one_of_its_rank_starts_is_found() -> None:
    history = with_waiting(priority=9, created_at=LONG_AGO - 1)
    assert found(without_pending(history, "cancelled")) == {("priority", "waiting")}


def test_a_passed_over_job_that_has_gained_priority_by_waiting_is_found() -> None:
    assert found(with_waiting(priority=10, created_at=LONG_AGO - 601)) == {("priority", "waiting")}


def test_a_job_of_worse_rank_is_not_passed_over() -> None:
    assert found(with_waiting(priority=9, created_at=LONG_AGO + 1)) == set()


def test_a_job_that_came_after_the_allocation_of_the_slot_is_not_passed_over() -> None:
    assert found(with_waiting(priority=0, since=20.9)) == set()


def test_a_job_that_came_just_before_the_start_is_not_passed_over() -> None:
    assert found(with_waiting(priority=0, since=24.05 - DECISION_SECONDS + 0.1)) == set()


def test_a_requeued_job_is_not_passed_over_before_its_time() -> None:
    assert found(with_waiting(priority=0, not_before=23.0)) == set()


@pytest.mark.parametrize("seqs", [(1, 2, 4, 5), (1, 2, 2, 3), (2, 1, 3), (2, 3)])
def test_a_missing_or_repeated_event_is_found(seqs: tuple[int, ...]) -> None:
    assert found(with_run("plain", 1, seqs=seqs)) == {("output", "plain")}


@pytest.mark.parametrize(
    "lines",
    [LINES[1:], (*LINES, LINES[1]), (LINES[0], LINES[0], LINES[1]), LINES[::-1], (LINES[0], Line(1, 4, "tick 3"))],
    ids=["lost", "repeated at the end", "repeated", "disordered", "changed"],
)
def test_a_stream_that_differs_from_the_written_lines_is_found(lines: tuple[Line, ...]) -> None:
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
def test_a_stream_with_an_end_that_the_job_did_not_have_is_found(followed: Followed) -> None:
    assert found(replace(CLEAN, followed=[followed])) == {("stream", followed.job_id)}


def test_a_leftover_process_is_found() -> None:
    assert found(replace(CLEAN, leftovers=["sleep 300"])) == {("leftover", "sleep 300")}


def test_a_violation_describes_the_fault() -> None:
    [violation] = violations(replace(with_run("retried", 1, last=22.5), reported=[], slots={}))
    what = "attempt 2 started 0.500 s before the end of attempt 1"
    assert violation == Violation("overlap", "retried", what)


def found(history: History) -> set[tuple[str, str]]:
    return {(violation.promise, violation.about) for violation in violations(history)}


def with_written(more: Sequence[JobVersion]) -> History:
    return replace(CLEAN, written=[*CLEAN.written, *more], slots={})


def with_run(job_id: str, attempt: int, **changes: object) -> History:
    """Return the clean history with one run changed."""
    runs = [
        replace(run, **changes) if (run.job_id, run.attempt) == (job_id, attempt) else run  # type: ignore[arg-type]
        for run in CLEAN.runs
    ]
    return replace(CLEAN, runs=runs)


def with_waiting(priority: int, since: float = 21.5, created_at: float = LONG_AGO, not_before: float = 0) -> History:
    """Return the clean history with one more job.

    It comes while `retried` holds the slot, and still waits when `cancelled`, of priority 9, starts at 24.1.
    """
    pending = JobVersion(
        since, "waiting", P.PENDING, 0, "e", "m", priority, created_at=created_at, not_before=not_before
    )
    later = [
        replace(pending, at=40, phase=P.RUNNING, attempts=1),
        replace(pending, at=41, phase=P.FAILED, attempts=1),
    ]
    position = next(n for n, version in enumerate(CLEAN.written) if version.at > since)
    written = [*CLEAN.written[:position], pending, *CLEAN.written[position:], *later]
    return replace(CLEAN, written=written)


def without_pending(history: History, job_id: str) -> History:
    """Return the history of a job that was stored as started."""
    written = [version for version in history.written if (version.job_id, version.phase) != (job_id, P.PENDING)]
    return replace(history, written=written)
