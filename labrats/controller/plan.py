"""The plan of a job: the actions that bring it closer to its end. Pure. Each action is safe to repeat."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from zlib import crc32

from msgspec.structs import replace

from labrats.model.agent import ChainCondition, FailurePolicy
from labrats.model.job import PAUSING, PERMANENT, STATUS_RESULT_BYTES, AgentSession, FailedCode, Job, Outputs
from labrats.model.phases import JobEvent, Phase
from labrats.model.protocol import ErrorEvent, ResultEvent
from labrats.model.record import encode
from labrats.model.result_schema import DATA_BYTES
from labrats.ports import Alive, AttemptState, Gone, NotStarted

MAX_BACKOFF_SECONDS: Final = 300.0
MAX_PAUSE_SECONDS: Final = 300.0
"""Longest pause of a model whose provider reports no time to wait."""

MOST_LOGIN_RENEWALS: Final = 5
"""Most pauses of a job after which an attempt that lost its login is followed by another one."""

MAX_REQUESTED_SECONDS: Final = 366 * 86_400.0
"""Longest pause that a provider can ask for. Longer ones are mistakes, and dates cannot express all of them."""

NOT_STARTED_CODES: Final = frozenset({FailedCode.IMAGE_PULL, FailedCode.START_TIMEOUT, FailedCode.UNSCHEDULABLE})
"""Failures that keep an attempt from starting. After the deadline they are reported instead of the timeout."""


@dataclass(frozen=True)
class Delays:
    """Delays between actions, as configured.

    grace:   from stop to kill.
    backoff: before the second attempt; doubled before each further one.
    pause:   of a model whose provider reports a rate limit or an overload, but no time to wait; doubled each time.
    """

    grace: timedelta
    backoff: timedelta
    pause: timedelta


@dataclass(frozen=True)
class Resolve:
    """Resolve the settings of a job applied with kubectl, or of a delivery. Until then its queue is unknown."""


@dataclass(frozen=True)
class Admit:
    """Record the next attempt: the job leaves the queue for its slot."""


@dataclass(frozen=True)
class Start:
    """Start the recorded attempt."""


@dataclass(frozen=True)
class Stop:
    """Ask the attempt to end."""


@dataclass(frozen=True)
class Kill:
    """End the attempt and everything it started."""


@dataclass(frozen=True)
class Supersede:
    """Record that a running job is cancelled for a newer one of its concurrency key. by: the id of the newer one."""

    by: str


@dataclass(frozen=True)
class ReconcileAt:
    """Reconcile the job again at a given time."""

    at: datetime


@dataclass(frozen=True)
class Move:
    """Advance the job by an event, and change its status."""

    event: JobEvent
    changes: dict[str, Any] = field(default_factory=dict)


Action = Resolve | Admit | Start | Stop | Kill | Supersede | ReconcileAt | Move


def plan_job(
    job: Job,
    attempt: AttemptState,
    *,
    has_slot: bool,
    now: datetime,
    delays: Delays,
    superseded_by: str | None = None,
) -> list[Action]:
    """Return the actions that are due for a job.

    attempt: state of its latest attempt. has_slot: whether a slot is allocated to it.
    superseded_by: id of the newer job for which it must be cancelled.
    """
    if job.phase is Phase.PENDING:
        if is_overdue(job, now):  # its status has the failure of the attempt before the pause
            return [Move(JobEvent.FAIL, {"finished_at": now, "not_before": None})]
        if superseded_by:
            cancelled = {"finished_at": now, "cancel_requested_at": now, "superseded_by": superseded_by}
            return [Move(JobEvent.CANCEL, cancelled)]
        if not job.is_resolved:
            return [Resolve()]
        return [Admit()] if has_slot else []
    if job.phase is not Phase.RUNNING:
        return [Kill()] if isinstance(attempt, Alive) else []
    stop_since = _stop_since(job, now)
    match attempt:
        case Gone():
            return [move_after(job, attempt, now, delays)]
        case _ if superseded_by and job.status.cancel_requested_at is None:
            return [Supersede(superseded_by)]
        case NotStarted():
            # A cancelled attempt is killed before it starts, so that a start in progress has no effect.
            return [Start()] if stop_since is None else [Kill()]
        case Alive() if stop_since is None:
            return [ReconcileAt(job.status.deadline_at)] if job.status.deadline_at else []
        case Alive():
            kill_at = stop_since + delays.grace
            return [Kill()] if now >= kill_at else [Stop(), ReconcileAt(kill_at)]


def is_overdue(job: Job, now: datetime) -> bool:
    """Return whether the deadline of the job has passed. A Pending job has one only after a pause of its model."""
    return job.status.deadline_at is not None and now >= job.status.deadline_at


def _stop_since(job: Job, now: datetime) -> datetime | None:
    """Return the time from which the running attempt must stop; None while it may continue."""
    cancelled, deadline = job.status.cancel_requested_at, job.status.deadline_at
    reasons = [at for at in (cancelled, deadline if is_overdue(job, now) else None) if at]
    return min(reasons, default=None)


def move_after(job: Job, gone: Gone, now: datetime, delays: Delays) -> Move:
    """Return the move of a Running job whose attempt has ended."""
    usage = replace(gone.tail.usage.clamped(), seconds=_seconds_of_attempt(job, now))
    total, before = job.status.usage + usage, job.status.usage.known_cost_usd
    known_cost = (job.status.known_cost_usd if before is None else before) + (usage.cost_usd or 0.0)
    ending: dict[str, Any] = {
        "finished_at": now,
        "usage": total,
        "outputs": _outputs(job, gone),
        "logs": gone.tail.logs,
        "session": _session(job, gone),
    }
    if total.known_cost_usd is None and known_cost:  # a field that older custom resources lack
        ending["known_cost_usd"] = known_cost
    if job.status.cancel_requested_at:  # an accepted cancel always ends in Cancelled, even if the attempt succeeded
        return Move(JobEvent.CANCEL, ending)
    if isinstance(gone.outcome, ResultEvent):
        return Move(JobEvent.SUCCEED, ending | _bounded_result(gone.outcome))
    code, reason = _failure(job, gone, now)
    ending |= {"failed_code": code, "failed_reason": reason}
    if _is_unusable(job, gone, code):
        ending["session"] = None
    waits = code in PAUSING or _has_new_login(job, gone)
    if waits and (pause := _pause(job, gone, now, delays)):
        return Move(JobEvent.REQUEUE, ending | pause)
    if job.status.attempts - job.status.pauses < _attempts_allowed(job, code):
        again = {"finished_at": None, "deadline_at": None, "not_before": now + backoff_after(job, delays)}
        return Move(JobEvent.REQUEUE, ending | again)
    return Move(JobEvent.LOSE if code is FailedCode.LOST else JobEvent.FAIL, ending)


def _has_new_login(job: Job, gone: Gone) -> bool:
    """Return whether the attempt lost its login, which the engine renews before the next attempt.

    An agent can forge that, so the number of such attempts is limited.
    """
    error = gone.outcome
    is_lost = isinstance(error, ErrorEvent) and error.code is FailedCode.AUTH and error.retry_after_seconds is not None
    return is_lost and job.status.pauses < MOST_LOGIN_RENEWALS


def _session(job: Job, gone: Gone) -> AgentSession | None:
    """Return the session for the next attempt to resume: the one that this attempt used, or an earlier one."""
    reported = gone.tail.session
    if reported and not (reported.provider == job.resolved.provider and 0 < reported.attempt <= job.status.attempts):
        return None  # a forged report: no executor of the engine sends it
    return reported or job.status.session


def _has_resumed(job: Job, gone: Gone) -> bool:
    """Return whether the attempt resumed the session of an earlier one."""
    return gone.tail.session is not None and gone.tail.session.attempt < job.status.attempts


def _outputs(job: Job, gone: Gone) -> Outputs:
    """Return the outputs of the attempt.

    A pull request is reported only when it is opened, possibly by an earlier attempt in the same session. Every attempt
    reports all other outputs, but not the commit that it started from if it has resumed in the same workspace. Of
    attempts in one session that have cloned different commits, none is reported: the agent may have seen either.
    """
    outputs, earlier, session = gone.tail.outputs, job.status.outputs, _session(job, gone)
    if session is None or session.attempt == job.status.attempts:
        return outputs
    base = earlier.base_commit if outputs.base_commit in (None, earlier.base_commit) else None
    url = outputs.pull_request_url or earlier.pull_request_url
    return replace(outputs, pull_request_url=url, base_commit=base)


def _is_unusable(job: Job, gone: Gone, code: FailedCode) -> bool:
    """Return whether resuming the session would fail again.

    The session is too long, the agent has finished its work with an invalid result, or this attempt already resumed it
    and failed before the model answered.
    """
    has_answer = gone.tail.usage.tokens or gone.tail.usage.turns
    failed_to_resume = _has_resumed(job, gone) and code is FailedCode.AGENT_ERROR and not has_answer
    return code in (FailedCode.CONTEXT_TOO_LONG, FailedCode.RESULT_INVALID) or failed_to_resume


def _seconds_of_attempt(job: Job, now: datetime) -> float:
    return max(0.0, (now - job.status.started_at).total_seconds()) if job.status.started_at else 0.0


def _attempts_allowed(job: Job, code: FailedCode) -> int:
    """Return how many attempts the job may make by itself. A chain that retries allows one more, whatever failed."""
    link = job.spec.chain.next if job.spec.chain else None
    retries = link and link.condition is ChainCondition.ON_SUCCESS and link.failure_policy is FailurePolicy.RETRY
    return (1 if code in PERMANENT else job.resolved.max_attempts) + (1 if retries else 0)


def _failure(job: Job, gone: Gone, now: datetime) -> tuple[FailedCode, str]:
    ended_at = gone.outcome.at if gone.outcome else now
    if job.status.deadline_at and ended_at >= job.status.deadline_at and gone.code not in NOT_STARTED_CODES:
        return FailedCode.TIMEOUT, f"the job exceeded its timeout of {job.resolved.timeout_seconds:g} s"
    if isinstance(gone.outcome, ErrorEvent):
        return gone.outcome.code, gone.outcome.message
    return gone.code, gone.reason


def _pause(job: Job, gone: Gone, now: datetime, delays: Delays) -> dict[str, Any] | None:
    """Return the changes that make the job wait for a pause of its model; None if the pause outlasts its deadline."""
    until = now + pause_after(job, gone, delays)
    if job.status.deadline_at and until >= job.status.deadline_at:
        return None
    return {"finished_at": None, "not_before": until, "pauses": job.status.pauses + 1}


def pause_after(job: Job, gone: Gone, delays: Delays) -> timedelta:
    """Return the pause of the model: as its provider asks, or twice the last one."""
    if isinstance(gone.outcome, ErrorEvent) and (requested := gone.outcome.retry_after_seconds) is not None:
        return timedelta(seconds=min(max(1.0, requested), MAX_REQUESTED_SECONDS))
    seconds = delays.pause.total_seconds() * 2 ** min(job.status.pauses, 16)
    return timedelta(seconds=min(seconds, MAX_PAUSE_SECONDS))


def _bounded_result(event: ResultEvent) -> dict[str, Any]:
    """Return the changes for the result. A result that is too large for the status stays in the attempt's output.

    An executor checks the size of the data, but one in an image of the caller may report anything.
    """
    data = event.data if len(encode([event.data])) <= DATA_BYTES + len("[]") else None
    if event.file is None and len(encode([event.result])) <= STATUS_RESULT_BYTES:
        return {"result": event.result, "result_cut": False, "result_data": data}
    return {"result": None, "result_cut": True, "result_data": data}


def backoff_after(job: Job, delays: Delays) -> timedelta:
    """Return the delay after a failed attempt: doubled each time up to a limit, with jitter.

    The jitter is derived from the name of the attempt, which keeps the plan pure.
    """
    seconds = delays.backoff.total_seconds() * 2 ** min(job.status.attempts - 1, 16)
    jitter = 0.5 + crc32(str(job.attempt_name).encode()) / 2**33
    return timedelta(seconds=min(seconds, MAX_BACKOFF_SECONDS) * jitter)
