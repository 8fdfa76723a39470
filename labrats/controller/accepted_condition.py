"""What a resource that a person wrote is told of itself: the condition `Accepted`."""

from collections.abc import Sequence
from datetime import datetime

from labrats.model.condition import Condition, with_condition
from labrats.model.job_conditions import ACCEPTED, INVALID


def reviewed(conditions: Sequence[Condition], problem: str, now: datetime) -> tuple[Condition, ...] | None:
    """`conditions` with what is to be told now; None where it is told already, or there was never anything to tell.

    problem: what makes no sense; empty where all of it does.
    """
    if problem == _told(conditions):
        return None
    condition = Condition(
        type=ACCEPTED,
        status="False" if problem else "True",
        reason=INVALID if problem else ACCEPTED,
        message=problem,
        last_transition_time=now,
    )
    return with_condition(conditions, condition)


def _told(conditions: Sequence[Condition]) -> str:
    """The problem that it has been told of; empty where it has none."""
    refused = (each for each in conditions if each.type == ACCEPTED and each.status == "False")
    return next((each.message for each in refused), "")
