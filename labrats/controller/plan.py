"""What brings a job closer to its end. Pure: the same world gives the same actions, and each is safe to repeat."""

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
from labrats.ports import Alive, AttemptState, Gone, NotStarted

MAX_BACKOFF_SECONDS: Final = 300.0
MAX_PAUSE_SECONDS: Final = 300.0
"""Where the model's provider does not say how long it wants to be left alone."""

NEVER_BEGUN: Final = frozenset({FailedCode.IMAGE_PULL, FailedCode.START_TIMEOUT, FailedCode.UNSCHEDULABLE})
"""What kept an attempt from beginning until its time was over: that is to be mended, not the time."""


@dataclass(frozen=True)
class Limits:
    """grace: from the request to end until the kill. backoff: before the second attempt, doubled for each further.

    pause: how long a model is left alone whose provider does not say; doubled while it lasts.
    """

    grace: timedelta
    backoff: timedelta
    pause: timedelta


@dataclass(frozen=True)
class Resolve:
    """Find the settings and texts of a job that a person wrote: until then nobody knows where it queues."""


@dataclass(frozen=True)
class Admit:
    """Record the next attempt: the job leaves the queue for its slot."""


@dataclass(frozen=True)
class Start:
    """Have the runner start the recorded attempt."""


@dataclass(frozen=True)
class Stop:
    """Ask the attempt to end."""


@dataclass(frozen=True)
class Kill:
    """End the attempt and everything it started."""


@dataclass(frozen=True)
class LookAgain:
    """Nothing to do before `at`."""

    at: datetime


@dataclass(frozen=True)
class Record:
    """Move the job by `event`, with these changes to its status."""

    event: JobEvent
    changes: dict[str, Any] = field(default_factory=dict)


Action = Resolve | Admit | Start | Stop | Kill | LookAgain | Record


def plan_job(job: Job, attempt: AttemptState, *, has_slot: bool, now: datetime, limits: Limits) -> list[Action]:
    """What to do for `job` now, given how its latest attempt stands and whether a slot was given to it."""
    if job.phase is Phase.PENDING:
        if is_overdue(job, now):  # it says already what kept it from running
            return [Record(JobEvent.FAIL, {"finished_at": now, "not_before": None})]
        if not job.is_resolved:
            return [Resolve()]
        return [Admit()] if has_slot else []
    if job.phase is not Phase.RUNNING:
        return [Kill()] if isinstance(attempt, Alive) else []
    stop_since = _stop_since(job, now)
    match attempt:
        case Gone():
            return [record_outcome(job, attempt, now, limits)]
        case NotStarted():
            # A cancelled attempt is killed before it starts, so that a start already under way loses.
            return [Start()] if stop_since is None else [Kill()]
        case Alive() if stop_since is None:
            return [LookAgain(job.status.deadline_at)] if job.status.deadline_at else []
        case Alive():
            kill_at = stop_since + limits.grace
            return [Kill()] if now >= kill_at else [Stop(), LookAgain(kill_at)]


def is_overdue(job: Job, now: datetime) -> bool:
    """Whether its time is over. That of a waiting job runs only after a pause of its model."""
    return job.status.deadline_at is not None and now >= job.status.deadline_at


def _stop_since(job: Job, now: datetime) -> datetime | None:
    """Since when the running attempt should be ending; None while it may go on."""
    cancelled, deadline = job.status.cancel_requested_at, job.status.deadline_at
    reasons = [at for at in (cancelled, deadline if is_overdue(job, now) else None) if at]
    return min(reasons, default=None)


def record_outcome(job: Job, gone: Gone, now: datetime, limits: Limits) -> Record:
    """What the end of its attempt makes of a running job."""
    ending: dict[str, Any] = {
        "finished_at": now,
        "usage": job.status.usage + replace(gone.tail.usage.within_reason(), seconds=_seconds_of_attempt(job, now)),
        "outputs": _outputs(job, gone),
        "logs": gone.tail.logs,
        "session": _session(job, gone),
    }
    if job.status.cancel_requested_at:  # an accepted cancel always ends in Cancelled, whatever the attempt still said
        return Record(JobEvent.CANCEL, ending)
    if isinstance(gone.outcome, ResultEvent):
        return Record(JobEvent.SUCCEED, ending | _bounded_result(gone.outcome))
    code, reason = _failure(job, gone, now)
    ending |= {"failed_code": code, "failed_reason": reason}
    if _is_spent(job, gone, code):
        ending["session"] = None
    if code in PAUSING and (pause := _pause(job, gone, now, limits)):
        return Record(JobEvent.REQUEUE, ending | pause)
    if job.status.attempts - job.status.pauses < _attempts_allowed(job, code):
        again = {"finished_at": None, "deadline_at": None, "not_before": now + backoff_after(job, limits)}
        return Record(JobEvent.REQUEUE, ending | again)
    return Record(JobEvent.LOSE if code is FailedCode.LOST else JobEvent.FAIL, ending)


def _session(job: Job, gone: Gone) -> AgentSession | None:
    """With which another attempt goes on: the one that this attempt had, or was to go on with and never reached."""
    told = gone.tail.session
    if told and not (told.provider == job.resolved.provider and 0 < told.attempt <= job.status.attempts):
        return None  # no executor of ours says such a thing
    return told or job.status.session


def _went_on(job: Job, gone: Gone) -> bool:
    """Whether its attempt went on with the session of an earlier one."""
    return gone.tail.session is not None and gone.tail.session.attempt < job.status.attempts


def _outputs(job: Job, gone: Gone) -> Outputs:
    """What the job has made by now. A pull request is told of when it is opened, which an earlier attempt may have done
    in the same session; all else is told by every attempt.
    """
    made, earlier = gone.tail.outputs, job.status.outputs.pull_request_url
    return replace(made, pull_request_url=made.pull_request_url or earlier) if _went_on(job, gone) else made


def _is_spent(job: Job, gone: Gone, code: FailedCode) -> bool:
    """Whether going on with its session would only fail again: it has become too long, or this attempt was itself to go
    on with one, and got nowhere for a reason that need not pass.
    """
    got_nowhere = _went_on(job, gone) and code is FailedCode.AGENT_ERROR and not gone.tail.usage.tokens
    return code is FailedCode.CONTEXT_TOO_LONG or got_nowhere


def _seconds_of_attempt(job: Job, now: datetime) -> float:
    return max(0.0, (now - job.status.started_at).total_seconds()) if job.status.started_at else 0.0


def _attempts_allowed(job: Job, code: FailedCode) -> int:
    """How many attempts it may make by itself after such a failure: one more, whatever it was, if its chain retries."""
    link = job.spec.chain.next if job.spec.chain else None
    retries = link and link.condition is ChainCondition.ON_SUCCESS and link.failure_policy is FailurePolicy.RETRY
    return (1 if code in PERMANENT else job.resolved.max_attempts) + (1 if retries else 0)


def _failure(job: Job, gone: Gone, now: datetime) -> tuple[FailedCode, str]:
    ended_at = gone.outcome.at if gone.outcome else now
    if job.status.deadline_at and ended_at >= job.status.deadline_at and gone.code not in NEVER_BEGUN:
        return FailedCode.TIMEOUT, f"the job ran into its timeout of {job.resolved.timeout_seconds:g} s"
    if isinstance(gone.outcome, ErrorEvent):
        return gone.outcome.code, gone.outcome.message
    return gone.code, gone.reason


def _pause(job: Job, gone: Gone, now: datetime, limits: Limits) -> dict[str, Any] | None:
    """How a job waits while its model is left alone; None when its time is over before that is."""
    until = now + pause_after(job, gone, limits)
    if job.status.deadline_at and until >= job.status.deadline_at:
        return None
    return {"finished_at": None, "not_before": until, "pauses": job.status.pauses + 1}


def pause_after(job: Job, gone: Gone, limits: Limits) -> timedelta:
    """For how long to leave the model alone: as long as its provider says, or longer each time where it does not."""
    if isinstance(gone.outcome, ErrorEvent) and (asked := gone.outcome.retry_after_seconds) is not None:
        return timedelta(seconds=max(1.0, asked))
    seconds = limits.pause.total_seconds() * 2 ** min(job.status.pauses, 16)
    return timedelta(seconds=min(seconds, MAX_PAUSE_SECONDS))


def _bounded_result(event: ResultEvent) -> dict[str, Any]:
    """The result as the status holds it: whole when small, else left in the attempt's output."""
    if event.file is None and len(encode([event.result])) <= STATUS_RESULT_BYTES:
        return {"result": event.result, "result_cut": False}
    return {"result": None, "result_cut": True}


def backoff_after(job: Job, limits: Limits) -> timedelta:
    """The wait after the failed attempt: doubled each time, bounded, and spread so that failures do not march in step.

    The spread comes from the job's name, which keeps the plan pure.
    """
    seconds = limits.backoff.total_seconds() * 2 ** (job.status.attempts - 1)
    spread = 0.5 + crc32(str(job.attempt_name).encode()) / 2**33
    return timedelta(seconds=min(seconds, MAX_BACKOFF_SECONDS) * spread)
