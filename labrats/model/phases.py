"""The phases of a job, and the table of allowed moves."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from labrats.model.errors import IllegalMove


class Phase(StrEnum):
    """Phase of a job, as stored in the InferenceRequest."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class JobEvent(StrEnum):
    """An event that moves a job to another phase."""

    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    LOSE = "lose"
    REQUEUE = "requeue"
    CANCEL = "cancel"
    RETRY = "retry"


P, E = Phase, JobEvent

MOVES: Final[Mapping[tuple[Phase, JobEvent], Phase]] = {  # a pair that is not listed is refused
    (P.PENDING, E.START): P.RUNNING,
    (P.PENDING, E.CANCEL): P.CANCELLED,
    (P.PENDING, E.FAIL): P.FAILED,  # for example, its prompt or the credentials of its model are missing
    (P.RUNNING, E.SUCCEED): P.SUCCEEDED,
    (P.RUNNING, E.FAIL): P.FAILED,
    # The executor vanished. It may have had effects, so only `maxAttempts` or a person starts another attempt.
    (P.RUNNING, E.LOSE): P.FAILED,
    (P.RUNNING, E.REQUEUE): P.PENDING,  # the attempt failed, and another one is allowed; or the model pauses
    (P.RUNNING, E.CANCEL): P.CANCELLED,
    (P.FAILED, E.RETRY): P.PENDING,
}

ENDED: Final = frozenset({P.SUCCEEDED, P.FAILED, P.CANCELLED})

API_STATUS: Final[Mapping[Phase, str]] = {
    P.PENDING: "waiting",
    P.RUNNING: "active",
    P.SUCCEEDED: "completed",
    P.FAILED: "failed",
    P.CANCELLED: "cancelled",
}

_DONE: Final[Mapping[JobEvent, str]] = {
    E.START: "started",
    E.SUCCEED: "completed",
    E.FAIL: "failed",
    E.LOSE: "lost",
    E.REQUEUE: "requeued",
    E.CANCEL: "cancelled",
    E.RETRY: "retried",
}


def next_phase(phase: Phase, event: JobEvent) -> Phase:
    """Return the phase after an event. Raises IllegalMove, naming both, if the table has no such move."""
    if (following := MOVES.get((phase, event))) is None:
        raise IllegalMove(f"a job that is {API_STATUS[phase]} cannot be {_DONE[event]}")
    return following
