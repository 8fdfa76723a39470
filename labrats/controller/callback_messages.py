"""What a job's caller is told, and when it is told again. Pure: the job says what it still owes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final
from zlib import crc32

from labrats.model.job import CallbackPhase, CallbackStatus, Job
from labrats.model.phases import Phase
from labrats.model.record import encode

WAITS_SECONDS: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Between two tries of one message, as Standard Webhooks proposes: the last one is made after some 75 hours."""

OUTDATED_AFTER: Final = timedelta(hours=96)
"""What happened longer ago is not told any more, however often the engine was restarted in between."""

LONGEST_WAIT_SECONDS: Final = 86_400.0
"""However long a receiver asks to be left alone."""

_ENDINGS: Final = {
    Phase.SUCCEEDED: CallbackPhase.COMPLETED,
    Phase.FAILED: CallbackPhase.FAILED,
    Phase.CANCELLED: CallbackPhase.FAILED,
}


@dataclass(frozen=True)
class CallbackMessage:
    """One thing to tell. id: the same however often it is sent. since: when what it says has happened."""

    id: str
    phase: CallbackPhase
    since: datetime
    attempts: int
    finished_at: datetime | None
    body: bytes


@dataclass(frozen=True)
class CallbackDelivered:
    """The receiver has it."""


@dataclass(frozen=True)
class CallbackRefused:
    """There is no point in sending it again. is_final: nor in sending any other message of the job."""

    problem: str
    is_final: bool = False


@dataclass(frozen=True)
class CallbackFailed:
    """It may go better later. wait_seconds: not before that, where the receiver says so."""

    problem: str
    wait_seconds: float = 0.0


Verdict = CallbackDelivered | CallbackRefused | CallbackFailed


def next_message(job: Job) -> CallbackMessage | None:
    """What the caller of `job` has to be told next; None while there is nothing.

    A run begins with the first attempt, or with a retry by hand. Its caller is told that it goes on, and how it ended;
    what a retry has overtaken is not told.
    """
    told = job.status.callback
    if job.spec.callback_url is None or (told and told.is_unwanted):
        return None
    if _is_new_run(job, told):
        return _message(job, CallbackPhase.IN_PROGRESS)
    if job.ended and (told is None or told.finished_at != job.status.finished_at):
        return _message(job, _ENDINGS[job.phase])
    return None


def _is_new_run(job: Job, told: CallbackStatus | None) -> bool:
    """Whether an attempt was started in a run of which the caller knows nothing yet."""
    if told is None:
        return job.status.attempts > 0
    return told.phase is not CallbackPhase.IN_PROGRESS and job.status.attempts > told.attempts


def _message(job: Job, phase: CallbackPhase) -> CallbackMessage:
    status = job.status
    body: dict[str, Any] = {"jobId": job.id, "phase": phase.value}
    if phase is CallbackPhase.FAILED:
        body["details"] = "cancelled" if job.phase is Phase.CANCELLED else status.failed_reason or "the job failed"
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


def _id_of(job: Job, phase: CallbackPhase) -> str:
    """Different for each message of all jobs, and the same for one message whenever it is made."""
    if phase is CallbackPhase.IN_PROGRESS:
        number = job.status.callback.attempts + 1 if job.status.callback else 1  # the first attempt of its run
    else:
        number = int(job.status.finished_at.timestamp() * 1000) if job.status.finished_at else 0
    return f"msg_{job.metadata.uid}_{phase}_{number}"


def judge_answer(status: int, headers: Mapping[str, str], now: datetime) -> Verdict:
    """What the answer to a message means. Redirects are not followed: the address is the one that was judged."""
    problem = f"the receiver answered {status}"
    if 200 <= status < 300:
        return CallbackDelivered()
    if status == 429 or status >= 500:
        return CallbackFailed(problem, _asked_wait_seconds(headers.get("retry-after", ""), now))
    return CallbackRefused(problem, is_final=status == 410)


def _asked_wait_seconds(retry_after: str, now: datetime) -> float:
    """What a Retry-After header asks for, in either of its forms; 0 for one that is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), LONGEST_WAIT_SECONDS)
    try:
        seconds = (parsedate_to_datetime(retry_after) - now).total_seconds()
    except (ValueError, TypeError):  # no date; or one without a zone, which the header may not have
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


def wait_after(verdict: Verdict, message: CallbackMessage, tries: int, now: datetime) -> float | None:
    """Seconds until the next try after `tries` of them; None where there is to be no other.

    The spread comes from the message and the try, so that receivers are not met by all jobs at once.
    """
    if not isinstance(verdict, CallbackFailed) or tries > len(WAITS_SECONDS) or now - message.since > OUTDATED_AFTER:
        return None
    spread = 0.8 + 0.4 * crc32(f"{message.id} {tries}".encode()) / 2**32
    return max(WAITS_SECONDS[tries - 1] * spread, verdict.wait_seconds)


def settled(message: CallbackMessage, verdict: Verdict, now: datetime) -> CallbackStatus:
    """What the job keeps of a message that is done with."""
    return CallbackStatus(
        phase=message.phase,
        attempts=message.attempts,
        finished_at=message.finished_at,
        settled_at=now,
        problem=None if isinstance(verdict, CallbackDelivered) else verdict.problem,
        is_unwanted=isinstance(verdict, CallbackRefused) and verdict.is_final,
    )
