"""What has become of a job so far, as conditions. Pure."""

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
"""Why a job is not accepted: it makes no sense."""


def conditions_of(job: Job, now: datetime) -> tuple[Condition, ...]:
    """What has happened to `job`; what has not yet has no condition. They follow from its status, and are kept nowhere.

    now: when the job was put back, where it was; its status does not say so.
    """
    each = (_accepted(job), _started(job, now), _finished(job), _succeeded(job))
    return tuple(condition for condition in each if condition)


def camel_case(code: FailedCode) -> str:
    """`image_pull` as `ImagePull`: what Kubernetes calls a reason."""
    return "".join(word.capitalize() for word in code.split("_"))


def _accepted(job: Job) -> Condition:
    if job.status.failed_code is FailedCode.INVALID:
        since = job.status.finished_at or job.created_at
        return _condition(ACCEPTED, INVALID, job.status.failed_reason or "", since, holds=False)
    return _condition(ACCEPTED, "Accepted", "the engine has taken the job", job.created_at)


def _started(job: Job, now: datetime) -> Condition | None:
    status = job.status
    if status.started_at is None:
        return None
    if job.phase is not Phase.PENDING:
        message = f"attempt {status.attempts} was given a slot of {status.slot}"
        return _condition(STARTED, "Admitted", message, status.started_at)
    if status.failed_code is None:
        return _condition(STARTED, "Retried", f"attempt {status.attempts + 1} waits for a slot", now, holds=False)
    message = f"attempt {status.attempts} failed ({status.failed_code}): {status.failed_reason}; another one follows"
    return _condition(STARTED, "PutBack", message, now, holds=False)


def _finished(job: Job) -> Condition | None:
    status = job.status
    if status.finished_at is None:
        return None
    if job.phase is Phase.SUCCEEDED:
        return _condition(FINISHED, "Succeeded", "the agent has answered", status.finished_at)
    if job.phase is Phase.CANCELLED:
        return _condition(FINISHED, "Cancelled", "somebody cancelled the job", status.finished_at)
    reason = camel_case(status.failed_code or FailedCode.INTERNAL)
    return _condition(FINISHED, reason, status.failed_reason or "", status.finished_at)


def _succeeded(job: Job) -> Condition | None:
    """Beside `Finished`, so that `kubectl wait --for=condition=Succeeded` tells success from failure."""
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
