"""Verdicts on the triggers of an agent for one event: which trigger starts the agent, and why the others do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from labrats.intake.events import IncomingEvent, Mismatch, failed_filter, mismatch_of, values_at
from labrats.model.agent import AiAgent, Trigger

MOST_VALUES: Final = 10
"""Values of a payload that are shown for one filter."""


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
    found: list[Verdict] = []
    for trigger in agent.spec.event_triggers:
        mismatch = mismatch_of(trigger, event)
        if mismatch is None and not agent.spec.enabled:
            mismatch = Mismatch.AGENT_DISABLED
        elif mismatch is None and any(earlier.mismatch is None for earlier in found):
            mismatch = Mismatch.EARLIER_TRIGGER
        found.append(Verdict(mismatch, _failed_filter(trigger, event) if mismatch == Mismatch.FILTER else None))
    return found


def _failed_filter(trigger: Trigger, event: IncomingEvent) -> FailedFilter | None:
    if (path := failed_filter(trigger, event)) is None:
        return None
    return FailedFilter(path, trigger.filters[path], list(islice(values_at(event.payload, path), MOST_VALUES)))
