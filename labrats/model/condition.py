"""Conditions of resources, as Kubernetes defines them."""

from collections.abc import Callable, Sequence
from datetime import datetime

from msgspec.structs import replace

from labrats.model.record import Record


class Condition(Record):
    """One condition of a resource.

    type, reason: in CamelCase, for programs. status: `True`, `False` or `Unknown`. message: for people.
    last_transition_time: the time of the last change of the status.
    """

    type: str
    status: str
    reason: str
    last_transition_time: datetime
    message: str = ""
    observed_generation: int | None = None


ConditionFactory = Callable[[str, bool, str, str], Condition]
"""A function that creates a condition from a type, whether it is true, a reason and a message."""


def condition_factory(now: datetime) -> ConditionFactory:
    """Return a function that creates conditions with `now` as their transition time."""

    def create(kind: str, holds: bool, reason: str, message: str) -> Condition:
        status = "True" if holds else "False"
        return Condition(type=kind, status=status, reason=reason, message=message, last_transition_time=now)

    return create


def with_condition(conditions: Sequence[Condition], condition: Condition) -> tuple[Condition, ...]:
    """Replace or add a condition. It retains the transition time of its predecessor while the status is the same."""
    known = next((each for each in conditions if each.type == condition.type), None)
    if known and known.status == condition.status:
        condition = replace(condition, last_transition_time=known.last_transition_time)
    others = [each for each in conditions if each.type != condition.type]
    return (*others, condition)
