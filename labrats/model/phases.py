"""The life of a job as one table: which phase follows which event."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from labrats.model.errors import IllegalMove


class Phase(StrEnum):
    """Where a job stands, as the InferenceRequest resource says it."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class JobEvent(StrEnum):
    """What happens to a job."""

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
    (P.PENDING, E.FAIL): P.FAILED,  # it can never start: its prompt or its model's credentials are gone
    (P.RUNNING, E.SUCCEED): P.SUCCEEDED,
    (P.RUNNING, E.FAIL): P.FAILED,
    # Its executor vanished: it may have had effects, so only `maxAttempts` or a person starts another.
    (P.RUNNING, E.LOSE): P.FAILED,
    (P.RUNNING, E.REQUEUE): P.PENDING,  # this attempt failed, and `maxAttempts` allows another
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
    """The phase after `event`. Raises IllegalMove, naming both, when the table has no such move."""
    if (following := MOVES.get((phase, event))) is None:
        raise IllegalMove(f"a job that is {API_STATUS[phase]} cannot be {_DONE[event]}")
    return following
