"""How a resource stands in one respect, in the words of Kubernetes."""

from collections.abc import Callable, Sequence
from datetime import datetime

from msgspec.structs import replace

from labrats.model.record import Record


class Condition(Record):
    """One respect. type, reason: in CamelCase, for programs. status: `True`, `False` or `Unknown`. message: for people.

    last_transition_time: since when the status is this.
    """

    type: str
    status: str
    reason: str
    last_transition_time: datetime
    message: str = ""
    observed_generation: int | None = None


Told = Callable[[str, bool, str, str], Condition]
"""Makes a condition of its type, whether it holds, a reason and a sentence."""


def teller(now: datetime) -> Told:
    """What makes conditions that are so since `now`."""

    def told(kind: str, holds: bool, reason: str, message: str) -> Condition:
        status = "True" if holds else "False"
        return Condition(type=kind, status=status, reason=reason, message=message, last_transition_time=now)

    return told


def with_condition(conditions: Sequence[Condition], condition: Condition) -> tuple[Condition, ...]:
    """`conditions` with `condition` in the place of the one of its type, whose time stays while its status does."""
    known = next((each for each in conditions if each.type == condition.type), None)
    if known and known.status == condition.status:
        condition = replace(condition, last_transition_time=known.last_transition_time)
    others = [each for each in conditions if each.type != condition.type]
    return (*others, condition)
