"""Conditions of a job, derived from its status. Pure."""

from datetime import datetime
from typing import Final

from msgspec.structs import replace

from labrats.model.condition import Condition
from labrats.model.job import FailedCode, Job
from labrats.model.phases import Phase

ACCEPTED: Final = "Accepted"
STARTED: Final = "Started"
FINISHED: Final = "Finished"
SUCCEEDED: Final = "Succeeded"

INVALID: Final = "Invalid"
"""Reason of `Accepted=False`."""


def conditions_of(job: Job, now: datetime) -> tuple[Condition, ...]:
    """Return the conditions of the job. A step that it has not reached has none.

    now: time of the last transition of a requeued or retried job, which its status does not record.
    """
    steps = (_accepted(job), _started(job, now), _finished(job), _succeeded(job))
    return tuple(condition for condition in steps if condition)


def camel_case(code: FailedCode) -> str:
    """Return the code as a reason of Kubernetes: `ImagePull` for `image_pull`."""
    return "".join(word.capitalize() for word in code.split("_"))


def _accepted(job: Job) -> Condition:
    if job.status.failed_code is FailedCode.INVALID:
        since = job.status.finished_at or job.created_at
        return _condition(ACCEPTED, INVALID, job.status.failed_reason or "", since, holds=False)
    return _condition(ACCEPTED, "Accepted", "the engine accepted the job", job.created_at)


def _started(job: Job, now: datetime) -> Condition | None:
    status = job.status
    if status.started_at is None:
        return None
    if job.phase is not Phase.PENDING:
        message = f"attempt {status.attempts} got a slot of {status.slot}"
        return _condition(STARTED, "Admitted", message, status.started_at)
    if status.failed_code is None:
        return _condition(STARTED, "Retried", f"attempt {status.attempts + 1} is waiting for a slot", now, holds=False)
    failure = f"attempt {status.attempts} failed ({status.failed_code}): {status.failed_reason}"
    return _condition(STARTED, "Requeued", f"{failure}; another attempt follows", now, holds=False)


def _finished(job: Job) -> Condition | None:
    status = job.status
    if status.finished_at is None:
        return None
    if job.phase is Phase.SUCCEEDED:
        return _condition(FINISHED, "Succeeded", "the agent returned a result", status.finished_at)
    if job.phase is Phase.CANCELLED:
        newer = status.superseded_by
        message = f"the job was cancelled: {newer} supersedes it" if newer else "the job was cancelled"
        return _condition(FINISHED, "Superseded" if newer else "Cancelled", message, status.finished_at)
    reason = camel_case(status.failed_code or FailedCode.INTERNAL)
    return _condition(FINISHED, reason, status.failed_reason or "", status.finished_at)


def _succeeded(job: Job) -> Condition | None:
    """Return a condition that lets `kubectl wait --for=condition=Succeeded` distinguish success from failure."""
    if (finished := _finished(job)) is None:
        return None
    holds = job.phase is Phase.SUCCEEDED
    return replace(finished, type=SUCCEEDED, status="True" if holds else "False")


def _condition(kind: str, reason: str, message: str, since: datetime, *, holds: bool = True) -> Condition:
    return Condition(
        type=kind,
        status="True" if holds else "False",
        reason=reason,
        message=message,
        last_transition_time=since,
        observed_generation=1,  # a job's spec never changes
    )
