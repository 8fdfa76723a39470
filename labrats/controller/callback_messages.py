"""Callback messages of a job: which one is due, and when it is sent again. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from zlib import crc32

from labrats.model.job import CallbackPhase, CallbackStatus, Job
from labrats.model.phases import Phase
from labrats.model.record import encode
from labrats.net.retry_after import retry_after_seconds

WAITS_SECONDS: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Delays between the tries of a message, as Standard Webhooks proposes. The last try follows after about 75 hours."""

OUTDATED_AFTER: Final = timedelta(hours=96)
"""Age from which a message is not sent again, however often the engine was restarted."""

LONGEST_WAIT_SECONDS: Final = 86_400.0
"""Longest delay that a receiver can ask for by Retry-After."""

_ENDINGS: Final = {
    Phase.SUCCEEDED: CallbackPhase.COMPLETED,
    Phase.FAILED: CallbackPhase.FAILED,
    Phase.CANCELLED: CallbackPhase.FAILED,
}


@dataclass(frozen=True)
class CallbackMessage:
    """One message. id: the same for every try. since: time of the reported event."""

    id: str
    phase: CallbackPhase
    since: datetime
    attempts: int
    finished_at: datetime | None
    body: bytes


@dataclass(frozen=True)
class CallbackDelivered:
    """The receiver accepted the message."""


@dataclass(frozen=True)
class CallbackRefused:
    """Sending the message again is pointless. is_final: so is any other message of the job."""

    problem: str
    is_final: bool = False


@dataclass(frozen=True)
class CallbackFailed:
    """A later try may succeed. wait_seconds: shortest delay before it, as the receiver asks."""

    problem: str
    wait_seconds: float = 0.0


Verdict = CallbackDelivered | CallbackRefused | CallbackFailed


def next_message(job: Job) -> CallbackMessage | None:
    """Return the next message for the caller of the job; None if there is none.

    A run starts with the first attempt, and with each retry on request. Its caller gets a message that the run is in
    progress, and one about its end. After a retry no message about the earlier end is sent.
    """
    last = job.status.callback
    if job.spec.callback_url is None or (last and last.is_unwanted):
        return None
    if _is_new_run(job, last):
        return _message(job, CallbackPhase.IN_PROGRESS)
    if job.ended and (last is None or last.finished_at != job.status.finished_at):
        return _message(job, _ENDINGS[job.phase])
    return None


def _is_new_run(job: Job, last: CallbackStatus | None) -> bool:
    """Return whether an attempt was started in a run that no message has reported yet."""
    if last is None:
        return job.status.attempts > 0
    return last.phase is not CallbackPhase.IN_PROGRESS and job.status.attempts > last.attempts


def _message(job: Job, phase: CallbackPhase) -> CallbackMessage:
    status = job.status
    body: dict[str, Any] = {"jobId": job.id, "phase": phase.value}
    if phase is CallbackPhase.FAILED:
        body["details"] = _details(job)
    body["metadata"] = job.spec.metadata
    is_ending = phase is not CallbackPhase.IN_PROGRESS
    return CallbackMessage(
        id=_id_of(job, phase),
        phase=phase,
        since=(status.finished_at if is_ending else status.started_at) or job.created_at,
        attempts=status.attempts,
        finished_at=status.finished_at if is_ending else None,
        body=encode(body),
    )


def _details(job: Job) -> str:
    if job.phase is not Phase.CANCELLED:
        return job.status.failed_reason or "the job failed"
    return f"cancelled: superseded by {job.status.superseded_by}" if job.status.superseded_by else "cancelled"


def _id_of(job: Job, phase: CallbackPhase) -> str:
    """Return an id that is unique among the messages of all jobs, and the same for each try."""
    if phase is CallbackPhase.IN_PROGRESS:
        number = job.status.callback.attempts + 1 if job.status.callback else 1  # the first attempt of its run
    else:
        number = int(job.status.finished_at.timestamp() * 1000) if job.status.finished_at else 0
    return f"msg_{job.metadata.uid}_{phase}_{number}"


def judge_answer(status: int, headers: Mapping[str, str], now: datetime) -> Verdict:
    """Return the verdict on an answer. A redirect counts as a refusal: only the given address was checked."""
    problem = f"the receiver answered {status}"
    if 200 <= status < 300:
        return CallbackDelivered()
    if status == 429 or status >= 500:
        delay = retry_after_seconds(headers.get("retry-after"), now) or 0.0
        return CallbackFailed(problem, min(delay, LONGEST_WAIT_SECONDS))
    return CallbackRefused(problem, is_final=status == 410)


def wait_after(verdict: Verdict, message: CallbackMessage, tries: int, now: datetime) -> float | None:
    """Return the delay in seconds before the next try; None if the message is given up.

    Jitter, derived from the message and the try, keeps the messages of many jobs apart.
    """
    if not isinstance(verdict, CallbackFailed) or tries > len(WAITS_SECONDS) or now - message.since > OUTDATED_AFTER:
        return None
    jitter = 0.8 + 0.4 * crc32(f"{message.id} {tries}".encode()) / 2**32
    return max(WAITS_SECONDS[tries - 1] * jitter, verdict.wait_seconds)


def settled(message: CallbackMessage, verdict: Verdict, now: datetime) -> CallbackStatus:
    """Return the record of a message that was delivered or given up."""
    return CallbackStatus(
        phase=message.phase,
        attempts=message.attempts,
        finished_at=message.finished_at,
        settled_at=now,
        problem=None if isinstance(verdict, CallbackDelivered) else verdict.problem,
        is_unwanted=isinstance(verdict, CallbackRefused) and verdict.is_final,
    )
