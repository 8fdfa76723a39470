"""The condition `Accepted` of resources that were applied with kubectl."""

from collections.abc import Sequence
from datetime import datetime

from labrats.model.condition import Condition, with_condition
from labrats.model.job_conditions import ACCEPTED, INVALID


def reviewed(conditions: Sequence[Condition], problem: str, now: datetime) -> tuple[Condition, ...] | None:
    """Return the conditions with `Accepted` as of now; None if it is up to date, or was never needed.

    problem: what is invalid in the resource; empty if nothing is.
    """
    if problem == _reported_problem(conditions):
        return None
    condition = Condition(
        type=ACCEPTED,
        status="False" if problem else "True",
        reason=INVALID if problem else ACCEPTED,
        message=problem,
        last_transition_time=now,
    )
    return with_condition(conditions, condition)


def _reported_problem(conditions: Sequence[Condition]) -> str:
    """Return the problem that `Accepted` reports; empty if it reports none."""
    refused = (each for each in conditions if each.type == ACCEPTED and each.status == "False")
    return next((each.message for each in refused), "")
