"""Every entry of the table of moves."""

from itertools import product

import pytest

from labrats.model.errors import IllegalMove
from labrats.model.job import Job, advance
from labrats.model.phases import API_STATUS, ENDED, MOVES, JobEvent, Phase, next_phase
from tests.support.builders import a_job

P, E = Phase, JobEvent
DONE = {
    E.START: "started",
    E.SUCCEED: "completed",
    E.FAIL: "failed",
    E.LOSE: "lost",
    E.REQUEUE: "requeued",
    E.CANCEL: "cancelled",
    E.RETRY: "retried",
}
EXPECTED = {
    P.PENDING: {E.START: P.RUNNING, E.CANCEL: P.CANCELLED, E.FAIL: P.FAILED},
    P.RUNNING: {
        E.SUCCEED: P.SUCCEEDED,
        E.FAIL: P.FAILED,
        E.LOSE: P.FAILED,
        E.REQUEUE: P.PENDING,
        E.CANCEL: P.CANCELLED,
    },
    P.SUCCEEDED: {},
    P.FAILED: {E.RETRY: P.PENDING},
    P.CANCELLED: {},
}
EVERY_PAIR = list(product(Phase, JobEvent))


@pytest.mark.parametrize(("phase", "event"), EVERY_PAIR)
def test_each_event_leads_to_its_phase_or_is_refused(phase: Phase, event: JobEvent) -> None:
    following = EXPECTED[phase].get(event)
    if following is not None:
        assert next_phase(phase, event) is following
        return
    with pytest.raises(IllegalMove) as refusal:
        next_phase(phase, event)
    assert API_STATUS[phase] in str(refusal.value)
    assert f"cannot be {DONE[event]}" in str(refusal.value)


def test_only_a_retry_leaves_a_terminal_phase() -> None:
    assert {(phase, event) for phase, event in MOVES if phase in ENDED} == {(P.FAILED, E.RETRY)}


def test_every_phase_has_a_status_in_the_api() -> None:
    assert API_STATUS == {
        P.PENDING: "waiting",
        P.RUNNING: "active",
        P.SUCCEEDED: "completed",
        P.FAILED: "failed",
        P.CANCELLED: "cancelled",
    }


@pytest.mark.parametrize("phase", Phase)
def test_a_job_has_ended_in_a_terminal_phase(phase: Phase) -> None:
    assert a_job(phase).ended is (phase not in (P.PENDING, P.RUNNING))


def test_advance_changes_the_phase_and_the_given_fields_only() -> None:
    job = a_job(P.PENDING)
    started = advance(job, E.START, attempts=1, slot="mock")
    assert (started.phase, started.status.attempts, started.status.slot) == (P.RUNNING, 1, "mock")
    assert (started.metadata, started.spec) == (job.metadata, job.spec)
    assert job.phase is P.PENDING


@pytest.mark.parametrize(("phase", "event"), [pair for pair in EVERY_PAIR if pair not in MOVES])
def test_a_refused_move_raises(phase: Phase, event: JobEvent) -> None:
    job: Job = a_job(phase)
    with pytest.raises(IllegalMove):
        advance(job, event)
