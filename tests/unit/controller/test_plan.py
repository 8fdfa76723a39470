"""The plan of a job, as a table of states and actions."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from labrats.controller.plan import (
    MAX_BACKOFF_SECONDS,
    MAX_REQUESTED_SECONDS,
    MOST_LOGIN_RENEWALS,
    Action,
    Admit,
    Delays,
    Kill,
    Move,
    ReconcileAt,
    Resolve,
    Start,
    Stop,
    backoff_after,
    move_after,
    plan_job,
)
from labrats.model.agent import ChainCondition, ChainLink, FailurePolicy
from labrats.model.job import PAUSING, PERMANENT, STATUS_RESULT_BYTES, AgentSession, Chain, FailedCode, Outputs, Usage
from labrats.model.phases import ENDED, JobEvent, Phase
from labrats.model.result_schema import DATA_BYTES
from labrats.ports import Alive, AttemptState, Gone, NotStarted, OutputTail
from tests.fakes.clock import NOON
from tests.support.builders import a_config, a_job, a_result, a_session, a_spec, an_applied_spec, an_error, gone_with

P, E = Phase, JobEvent
DELAYS = Delays(grace=timedelta(seconds=10), backoff=timedelta(seconds=1), pause=timedelta(seconds=30))
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)

ALIVE, NOT_STARTED, SUCCEEDED = Alive(), NotStarted(), gone_with(a_result())

NOW = NOON + timedelta(hours=1)
DEADLINE_AHEAD = {"deadline_at": NOW + MINUTE}
DEADLINE_NOW = {"deadline_at": NOW}
DEADLINE_LONG_AGO = {"deadline_at": NOW - MINUTE}
CANCELLED_NOW = {"cancel_requested_at": NOW}
CANCELLED_LONG_AGO = {"cancel_requested_at": NOW - MINUTE}
GRACE_ENDS = NOW + DELAYS.grace


@pytest.mark.parametrize("attempt", [NOT_STARTED, ALIVE, SUCCEEDED])
@pytest.mark.parametrize(("has_slot", "actions"), [(True, [Admit()]), (False, [])])
def test_a_waiting_job_is_admitted_when_it_has_a_slot(
    attempt: AttemptState, has_slot: bool, actions: list[Action]
) -> None:
    assert plan_job(a_job(P.PENDING), attempt, has_slot=has_slot, now=NOW, delays=DELAYS) == actions


@pytest.mark.parametrize("has_slot", [True, False])
def test_an_applied_job_is_resolved_before_it_is_queued(has_slot: bool) -> None:
    job = a_job(spec=an_applied_spec())
    assert plan_job(job, NOT_STARTED, has_slot=has_slot, now=NOW, delays=DELAYS) == [Resolve()]
    resolved = replace(job, status=replace(job.status, resolved=a_config()))
    assert plan_job(resolved, NOT_STARTED, has_slot=False, now=NOW, delays=DELAYS) == []


@pytest.mark.parametrize("phase", sorted(ENDED))
@pytest.mark.parametrize(("attempt", "actions"), [(NOT_STARTED, []), (ALIVE, [Kill()]), (SUCCEEDED, [])])
def test_an_ended_job_leaves_nothing_running(phase: Phase, attempt: AttemptState, actions: list[Action]) -> None:
    assert plan_job(a_job(phase), attempt, has_slot=False, now=NOW, delays=DELAYS) == actions


@pytest.mark.parametrize(
    ("status", "attempt", "actions"),
    [
        ({}, NOT_STARTED, [Start()]),
        (DEADLINE_AHEAD, NOT_STARTED, [Start()]),
        (DEADLINE_NOW, NOT_STARTED, [Kill()]),
        (DEADLINE_LONG_AGO, NOT_STARTED, [Kill()]),
        (CANCELLED_NOW, NOT_STARTED, [Kill()]),
        (CANCELLED_LONG_AGO | DEADLINE_AHEAD, NOT_STARTED, [Kill()]),
        ({}, ALIVE, []),
        (DEADLINE_AHEAD, ALIVE, [ReconcileAt(NOW + MINUTE)]),
        (DEADLINE_NOW, ALIVE, [Stop(), ReconcileAt(GRACE_ENDS)]),
        (CANCELLED_NOW, ALIVE, [Stop(), ReconcileAt(GRACE_ENDS)]),
        (CANCELLED_NOW | DEADLINE_AHEAD, ALIVE, [Stop(), ReconcileAt(GRACE_ENDS)]),
        (DEADLINE_LONG_AGO, ALIVE, [Kill()]),
        (CANCELLED_LONG_AGO, ALIVE, [Kill()]),
        (CANCELLED_NOW | DEADLINE_LONG_AGO, ALIVE, [Kill()]),
        (CANCELLED_LONG_AGO | DEADLINE_NOW, ALIVE, [Kill()]),
        ({"cancel_requested_at": NOW - DELAYS.grace}, ALIVE, [Kill()]),
        ({"cancel_requested_at": NOW - DELAYS.grace + SECOND}, ALIVE, [Stop(), ReconcileAt(NOW + SECOND)]),
    ],
)
@pytest.mark.parametrize("has_slot", [True, False])
def test_a_running_job_is_started_stopped_or_killed_by_its_deadline_and_cancel(
    status: dict[str, Any], attempt: AttemptState, actions: list[Action], has_slot: bool
) -> None:
    assert plan_job(a_job(P.RUNNING, **status), attempt, has_slot=has_slot, now=NOW, delays=DELAYS) == actions


@pytest.mark.parametrize(
    ("status", "attempt", "event"),
    [
        ({}, SUCCEEDED, E.SUCCEED),
        (DEADLINE_LONG_AGO, SUCCEEDED, E.SUCCEED),
        (CANCELLED_NOW, SUCCEEDED, E.CANCEL),
        ({}, gone_with(an_error()), E.FAIL),
        ({}, Gone(), E.LOSE),
        (DEADLINE_LONG_AGO, Gone(), E.FAIL),
        (CANCELLED_NOW, Gone(), E.CANCEL),
    ],
)
def test_the_end_of_an_attempt_moves_its_running_job(status: dict[str, Any], attempt: Gone, event: JobEvent) -> None:
    (action,) = plan_job(a_job(P.RUNNING, **status), attempt, has_slot=True, now=NOW, delays=DELAYS)
    assert isinstance(action, Move)
    assert action.event is event


# The end of an attempt


def recorded(gone: Gone, **status: Any) -> Move:
    return move_after(a_job(P.RUNNING, **status), gone, NOW, DELAYS)


def test_a_success_is_recorded_with_its_result_usage_logs_and_outputs() -> None:
    tail = OutputTail(("almost", "done"), Usage(input_tokens=5), Outputs(branch="fix"))
    assert recorded(Gone(a_result({"n": 1}, data={"m": 2}), tail=tail), usage=Usage(input_tokens=2, turns=1)) == Move(
        E.SUCCEED,
        {
            "finished_at": NOW,
            "usage": Usage(input_tokens=7, turns=1, seconds=3600),
            "outputs": Outputs(branch="fix"),
            "logs": ("almost", "done"),
            "session": None,
            "result": {"n": 1},
            "result_cut": False,
            "result_data": {"m": 2},
        },
    )


@pytest.mark.parametrize(
    ("result", "cut"),
    [
        (a_result("x" * (STATUS_RESULT_BYTES - 4)), False),
        (a_result("x" * (STATUS_RESULT_BYTES - 3)), True),
        (a_result("ß" * (STATUS_RESULT_BYTES // 2)), True),
        (a_result(None, file="result.json"), True),
        (a_result(None), False),
    ],
)
def test_a_large_result_stays_in_the_output_of_the_attempt(result: Any, cut: bool) -> None:
    changes = recorded(gone_with(result)).changes
    assert changes["result_cut"] is cut
    assert changes["result"] == (None if cut else result.result)


@pytest.mark.parametrize(("size", "is_stored"), [(DATA_BYTES, True), (DATA_BYTES + 1, False)])
def test_data_larger_than_an_executor_allows_is_not_stored(size: int, is_stored: bool) -> None:
    data = "x" * (size - 2)
    changes = recorded(gone_with(a_result("text", data=data))).changes
    assert changes["result_data"] == (data if is_stored else None)


@pytest.mark.parametrize("code", sorted(set(FailedCode) - PAUSING))
def test_a_failure_is_recorded_with_its_code_and_reason(code: FailedCode) -> None:
    record = recorded(gone_with(an_error(code, "because")))
    assert record.event is (E.LOSE if code is FailedCode.LOST else E.FAIL)
    assert (record.changes["failed_code"], record.changes["failed_reason"]) == (code, "because")
    assert record.changes["finished_at"] == NOW


def test_an_end_without_an_outcome_is_recorded_with_the_code_of_the_backend() -> None:
    record = recorded(Gone(None, FailedCode.EXECUTOR_DIED, "the executor exited with code 3 without an outcome"))
    assert record.event is E.FAIL
    assert record.changes["failed_code"] is FailedCode.EXECUTOR_DIED
    assert record.changes["failed_reason"] == "the executor exited with code 3 without an outcome"


@pytest.mark.parametrize(
    "gone", [SUCCEEDED, gone_with(an_error()), gone_with(None), Gone(None, FailedCode.OUT_OF_MEMORY)]
)
@pytest.mark.parametrize("max_attempts", [1, 5])
def test_an_accepted_cancel_ends_in_cancelled_whatever_the_outcome(gone: Gone, max_attempts: int) -> None:
    spec = a_spec(config={"max_attempts": max_attempts})
    record = recorded(gone, spec=spec, cancel_requested_at=NOW)
    assert record.event is E.CANCEL
    assert not record.changes.keys() & {"result", "failed_code", "failed_reason", "not_before"}


@pytest.mark.parametrize(
    ("said_at", "code"),
    [
        (NOW - SECOND, FailedCode.AGENT_ERROR),
        (NOW, FailedCode.TIMEOUT),
        (NOW + SECOND, FailedCode.TIMEOUT),
    ],
)
def test_a_failure_from_the_deadline_on_is_a_timeout(said_at: Any, code: FailedCode) -> None:
    failure = gone_with(an_error(FailedCode.AGENT_ERROR, "stopped on request", at=said_at))
    changes = move_after(a_job(P.RUNNING, deadline_at=NOW), failure, NOW + MINUTE, DELAYS).changes
    assert changes["failed_code"] is code


@pytest.mark.parametrize("code", [FailedCode.IMAGE_PULL, FailedCode.UNSCHEDULABLE, FailedCode.START_TIMEOUT])
def test_an_attempt_that_never_started_fails_with_the_cause_instead_of_the_timeout(code: FailedCode) -> None:
    changes = recorded(Gone(None, code, "no node can take the pod"), deadline_at=NOW).changes
    assert (changes["failed_code"], changes["failed_reason"]) == (code, "no node can take the pod")


def test_a_timeout_states_its_length() -> None:
    record = recorded(gone_with(None), spec=a_spec(config={"timeout_ms": 90_500}), deadline_at=NOW)
    assert record.changes["failed_reason"] == "the job exceeded its timeout of 90.5 s"


def test_a_success_after_the_deadline_is_a_success() -> None:
    late = gone_with(a_result(at=NOW + MINUTE))
    assert recorded(late, **DEADLINE_NOW).event is E.SUCCEED


# Further attempts


@pytest.mark.parametrize("code", sorted(set(FailedCode) - PERMANENT - PAUSING))
@pytest.mark.parametrize(
    ("attempts", "max_attempts", "event"),
    [(1, 1, None), (1, 2, E.REQUEUE), (2, 2, None), (2, 3, E.REQUEUE), (3, 2, None)],
)
def test_a_transient_failure_is_requeued_while_attempts_remain(
    code: FailedCode, attempts: int, max_attempts: int, event: JobEvent | None
) -> None:
    job = a_job(P.RUNNING, spec=a_spec(config={"max_attempts": max_attempts}), attempts=attempts)
    record = move_after(job, gone_with(an_error(code)), NOW, DELAYS)
    assert record.event is (event or (E.LOSE if code is FailedCode.LOST else E.FAIL))


@pytest.mark.parametrize("code", sorted(PERMANENT))
def test_a_permanent_failure_is_not_requeued(code: FailedCode) -> None:
    record = recorded(gone_with(an_error(code)), spec=a_spec(config={"max_attempts": 9}))
    assert record.event is E.FAIL


@pytest.mark.parametrize("code", [FailedCode.AGENT_ERROR, FailedCode.TIMEOUT, FailedCode.AUTH])
@pytest.mark.parametrize(
    ("attempts", "policy", "condition", "event"),
    [
        (1, FailurePolicy.RETRY, ChainCondition.ON_SUCCESS, E.REQUEUE),
        (2, FailurePolicy.RETRY, ChainCondition.ON_SUCCESS, E.FAIL),
        (1, FailurePolicy.STOP, ChainCondition.ON_SUCCESS, E.FAIL),
        (1, FailurePolicy.CONTINUE, ChainCondition.ON_SUCCESS, E.FAIL),
        (1, FailurePolicy.RETRY, ChainCondition.ON_FAILURE, E.FAIL),
    ],
)
def test_a_chain_that_retries_allows_one_more_attempt_after_any_failure(
    attempts: int, policy: FailurePolicy, condition: ChainCondition, event: JobEvent, code: FailedCode
) -> None:
    link = ChainLink(agent_trigger_name="next", failure_policy=policy, condition=condition)
    spec = a_spec(chain=Chain(id="chain-1", path=("first",), next=link))
    record = recorded(gone_with(an_error(code)), spec=spec, attempts=attempts)
    assert record.event is event


def test_a_requeued_job_waits_and_keeps_its_usage() -> None:
    gone = gone_with(an_error(FailedCode.EXECUTOR_DIED, "it died"), usage=Usage(cost_usd=0.5))
    job = a_job(P.RUNNING, spec=a_spec(config={"max_attempts": 2}), usage=Usage(cost_usd=0.25))
    changes = move_after(job, gone, NOW, DELAYS).changes
    assert changes["not_before"] == NOW + backoff_after(job, DELAYS)
    assert changes["finished_at"] is None
    assert changes["usage"] == Usage(cost_usd=0.75, seconds=3600)
    assert changes["failed_code"] is FailedCode.EXECUTOR_DIED
    assert changes["deadline_at"] is None  # the next attempt has the full timeout


def test_known_cost_of_an_attempt_is_stored_although_that_of_another_is_unknown() -> None:
    """An agent whose program does not report the cost would otherwise have its whole limit again after a pause."""
    unknown = gone_with(an_error(FailedCode.EXECUTOR_DIED), usage=Usage(input_tokens=1))
    known = gone_with(an_error(FailedCode.EXECUTOR_DIED), usage=Usage(input_tokens=1, cost_usd=0.25))
    job = a_job(P.RUNNING, usage=Usage(input_tokens=1, cost_usd=0.5))
    changes = move_after(job, unknown, NOW, DELAYS).changes
    assert (changes["usage"].cost_usd, changes["known_cost_usd"]) == (None, 0.5)
    assert "known_cost_usd" not in move_after(job, known, NOW, DELAYS).changes, "older custom resources lack the field"
    job = a_job(P.RUNNING, usage=Usage(input_tokens=1), known_cost_usd=0.5)
    assert move_after(job, known, NOW, DELAYS).changes["known_cost_usd"] == 0.75


# Sessions


def session_after(gone: Gone, **status: Any) -> AgentSession | None:
    session: AgentSession | None = recorded(gone, **DEADLINE_AHEAD | status).changes["session"]
    return session


@pytest.mark.parametrize("code", sorted(set(FailedCode) - {FailedCode.CONTEXT_TOO_LONG, FailedCode.RESULT_INVALID}))
def test_the_session_of_a_failed_attempt_is_stored(code: FailedCode) -> None:
    assert session_after(gone_with(an_error(code), session=a_session())) == a_session()


def test_an_invalid_result_ends_the_session_so_that_a_retry_starts_over() -> None:
    assert session_after(gone_with(an_error(FailedCode.RESULT_INVALID), session=a_session())) is None


@pytest.mark.parametrize("gone", [gone_with(a_result(), session=a_session()), gone_with(None, session=a_session())])
def test_the_session_is_stored_however_the_attempt_ended(gone: Gone) -> None:
    assert session_after(gone) == a_session()
    assert session_after(gone, **CANCELLED_NOW) == a_session()


def test_an_attempt_without_a_session_keeps_the_earlier_one() -> None:
    assert session_after(gone_with(None)) is None
    assert session_after(gone_with(None), attempts=2, session=a_session()) == a_session()


def test_a_session_that_is_too_long_is_dropped() -> None:
    too_long = gone_with(an_error(FailedCode.CONTEXT_TOO_LONG), usage=Usage(input_tokens=9), session=a_session())
    assert session_after(too_long) is None


@pytest.mark.parametrize(
    ("code", "usage", "kept"),
    [
        (FailedCode.AGENT_ERROR, Usage(), False),
        (FailedCode.AGENT_ERROR, Usage(input_tokens=9), True),
        (FailedCode.RATE_LIMITED, Usage(), True),
        (FailedCode.AUTH, Usage(), True),
    ],
)
def test_a_session_that_could_not_be_resumed_is_dropped(code: FailedCode, usage: Usage, kept: bool) -> None:
    gone = gone_with(an_error(code), usage=usage, session=a_session())
    assert (session_after(gone, attempts=2, session=a_session()) is not None) is kept


@pytest.mark.parametrize(("session", "kept"), [(a_session(1), True), (a_session(2), False), (None, False)])
def test_the_pull_request_of_a_resumed_session_is_kept(session: AgentSession | None, kept: bool) -> None:
    url = "https://git.example/r/pull/1"
    tail = OutputTail(outputs=Outputs(files_changed=2), session=session)
    record = recorded(Gone(a_result(), tail=tail), attempts=2, outputs=Outputs(pull_request_url=url, files_changed=1))
    assert record.changes["outputs"] == Outputs(pull_request_url=url if kept else None, files_changed=2)


@pytest.mark.parametrize(
    ("earlier", "reported", "known"),
    [("a", "a", "a"), ("a", None, "a"), ("a", "b", None), (None, "b", None), (None, None, None)],
)
def test_base_of_a_resumed_session_is_known_if_its_attempts_had_the_same(
    earlier: str | None, reported: str | None, known: str | None
) -> None:
    """The agent may have seen the commit of either attempt, and its verdict must be about one."""
    tail = OutputTail(outputs=Outputs(base_commit=reported), session=a_session(1))
    record = recorded(Gone(a_result(), tail=tail), attempts=2, outputs=Outputs(base_commit=earlier))
    assert record.changes["outputs"] == Outputs(base_commit=known)


def test_base_of_an_attempt_that_ended_before_its_session_is_not_that_of_the_session() -> None:
    tail = OutputTail(outputs=Outputs(base_commit="b"))
    kept = Outputs(base_commit="a")
    record = recorded(Gone(a_result(), tail=tail), attempts=2, outputs=kept, session=a_session(1))
    assert record.changes["outputs"] == Outputs()


@pytest.mark.parametrize("session", [a_session(provider="codex"), a_session(0), a_session(3)])
def test_an_impossible_session_is_dropped(session: AgentSession) -> None:
    """A hijacked agent can report anything."""
    assert session_after(gone_with(None, session=session), attempts=2, session=a_session()) is None


# Pauses


def paused(retry_after: float | None = None, code: FailedCode = FailedCode.RATE_LIMITED, **status: Any) -> Move:
    failure = an_error(code, "slow down", retry_after_seconds=retry_after)
    return recorded(gone_with(failure), **DEADLINE_AHEAD | status)


@pytest.mark.parametrize("code", sorted(PAUSING))
def test_a_rate_limit_or_overload_requeues_the_job_without_using_up_an_attempt(code: FailedCode) -> None:
    record = paused(20, code)
    assert record.event is E.REQUEUE
    assert record.changes["failed_code"] is code
    assert record.changes["failed_reason"] == "slow down"
    assert record.changes["pauses"] == 1
    assert record.changes["finished_at"] is None
    assert "deadline_at" not in record.changes  # the deadline stays


@pytest.mark.parametrize(("asked", "seconds"), [(20, 20), (0, 1), (-5, 1), (None, 30)])
def test_a_pause_lasts_as_long_as_the_provider_asks(asked: float | None, seconds: float) -> None:
    assert paused(asked).changes["not_before"] == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(("pauses", "seconds"), [(0, 30), (1, 60), (3, 240), (4, 300), (10_000, 300)])
def test_a_pause_without_a_requested_length_doubles_each_time(pauses: int, seconds: float) -> None:
    record = paused(deadline_at=NOW + 10 * MINUTE, pauses=pauses, attempts=pauses + 1)
    assert record.changes["not_before"] == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("asked", "event"), [(59, E.REQUEUE), (60, E.FAIL), (3600, E.FAIL), (1.7e12, E.FAIL), (1e300, E.FAIL)]
)
def test_a_job_whose_deadline_is_before_the_end_of_the_pause_fails_at_once(asked: float, event: JobEvent) -> None:
    record = paused(asked)
    assert record.event is event
    assert record.changes["failed_code"] is FailedCode.RATE_LIMITED


def test_a_pause_that_no_date_can_express_is_long() -> None:
    assert paused(1e300, deadline_at=None).changes["not_before"] == NOW + timedelta(seconds=MAX_REQUESTED_SECONDS)


def test_pauses_use_up_no_attempts() -> None:
    job = a_job(P.RUNNING, spec=a_spec(config={"max_attempts": 2}), attempts=4, pauses=3)
    assert move_after(job, gone_with(an_error()), NOW, DELAYS).event is E.REQUEUE


@pytest.mark.parametrize(
    ("pauses", "again"), [(0, True), (MOST_LOGIN_RENEWALS - 1, True), (MOST_LOGIN_RENEWALS, False)]
)
def test_a_job_that_lost_its_login_is_requeued_a_few_times(pauses: int, again: bool) -> None:
    job = a_job(P.RUNNING, attempts=pauses + 1, pauses=pauses)
    lost = an_error(FailedCode.AUTH, retry_after_seconds=1.0)
    assert move_after(job, gone_with(lost), NOW, DELAYS).event is (E.REQUEUE if again else E.FAIL)
    assert move_after(job, gone_with(an_error(FailedCode.AUTH)), NOW, DELAYS).event is E.FAIL


@pytest.mark.parametrize("has_slot", [True, False])
def test_a_requeued_job_fails_at_its_deadline_with_the_failure_of_its_last_attempt(has_slot: bool) -> None:
    job = a_job(P.PENDING, attempts=1, failed_code=FailedCode.OVERLOADED, deadline_at=NOW)
    (action,) = plan_job(job, NOT_STARTED, has_slot=has_slot, now=NOW, delays=DELAYS)
    assert action == Move(E.FAIL, {"finished_at": NOW, "not_before": None})


@given(attempts=st.integers(1, 10**9), name=st.text("0123456789abcdef", min_size=8, max_size=8))
def test_the_backoff_doubles_within_limits(attempts: int, name: str) -> None:
    wait = backoff_after(a_job(P.RUNNING, job_id=f"ir-{name}", attempts=attempts), DELAYS).total_seconds()
    doubled = min(2.0 ** min(attempts - 1, 100), MAX_BACKOFF_SECONDS)
    assert 0.5 * doubled <= wait <= doubled


def test_the_backoffs_of_different_jobs_are_spread() -> None:
    waits = {backoff_after(a_job(P.RUNNING, attempts=1), DELAYS) for _ in range(50)}
    assert len(waits) > 40


def test_equal_inputs_give_equal_plans() -> None:
    job = a_job(P.RUNNING, spec=a_spec(config={"max_attempts": 2}))
    plans = [plan_job(job, gone_with(an_error()), has_slot=True, now=NOW, delays=DELAYS) for _ in range(2)]
    assert plans[0] == plans[1]
