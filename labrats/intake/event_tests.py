"""Tests of events: which triggers match, why others do not, and the jobs that the event would start."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, Final

from labrats.intake.events import IncomingEvent, holds, values_at
from labrats.model.agent import AiAgent, Trigger

MOST_VALUES: Final = 10
"""Values of a payload that are shown for one filter."""


class Mismatch(StrEnum):
    """The first reason why a trigger does not match an event."""

    SOURCE = "source"
    EVENT = "event"
    TRIGGER_DISABLED = "trigger_disabled"
    AGENT_DISABLED = "agent_disabled"
    FILTER = "filter"
    EARLIER_TRIGGER = "earlier_trigger"


@dataclass(frozen=True)
class FailedFilter:
    """A filter that does not hold. found: the values at its path, at most MOST_VALUES; empty if there is none."""

    path: str
    wanted: Any
    found: Sequence[Any]


@dataclass(frozen=True)
class Verdict:
    """The result of comparing one trigger with an event. mismatch: None if the trigger starts its agent."""

    mismatch: Mismatch | None
    failed_filter: FailedFilter | None = None


def verdicts(agent: AiAgent, event: IncomingEvent) -> Sequence[Verdict]:
    """Return the verdict on each trigger of an agent. Of several triggers that match, the first starts the agent."""
    return list(_verdicts(agent, event))


def _verdicts(agent: AiAgent, event: IncomingEvent) -> Iterator[Verdict]:
    has_started = False
    for trigger in agent.spec.event_triggers:
        verdict = _verdict(agent, trigger, event)
        if verdict.mismatch is None and has_started:
            verdict = Verdict(Mismatch.EARLIER_TRIGGER)
        has_started = has_started or verdict.mismatch is None
        yield verdict


def _verdict(agent: AiAgent, trigger: Trigger, event: IncomingEvent) -> Verdict:
    if trigger.source != event.source:
        return Verdict(Mismatch.SOURCE)
    if not any(fnmatchcase(event.name, pattern) for pattern in trigger.events):
        return Verdict(Mismatch.EVENT)
    for path, wanted in trigger.filters.items():
        if not holds(wanted, path, event):
            found = list(islice(values_at(event.payload, path.split(".")), MOST_VALUES))
            return Verdict(Mismatch.FILTER, FailedFilter(path, wanted, found))
    if not trigger.enabled:
        return Verdict(Mismatch.TRIGGER_DISABLED)
    return Verdict(None if agent.spec.enabled else Mismatch.AGENT_DISABLED)
