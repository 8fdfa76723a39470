"""The conversation with the model, and the part of it that fits the model's window."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from labrats.executor.providers.react.observations import Observation

ELIDED: Final = "[omitted: this result is old. Call the tool again if you need it.]"


@dataclass(frozen=True)
class ToolCall:
    """A tool call. arguments: any JSON value, or the text if it was not valid JSON."""

    id: str
    name: str
    arguments: Any


@dataclass(frozen=True)
class Turn:
    """The model's text and calls, the result of each call, and an optional remark of the loop."""

    text: str = ""
    calls: Sequence[ToolCall] = ()
    observations: Sequence[Observation] = ()
    remark: str = ""

    def elided(self) -> "Turn":
        """Return the turn with long results omitted."""
        brief = [each if len(each.text) <= len(ELIDED) else replace(each, text=ELIDED) for each in self.observations]
        return replace(self, observations=brief)


@dataclass(frozen=True)
class Transcript:
    """The conversation, oldest turn first.

    elided:  the number of oldest turns whose results are omitted.
    dropped: the number of oldest turns that are omitted entirely.
    """

    instructions: str
    prompt: str
    turns: tuple[Turn, ...] = ()
    elided: int = 0
    dropped: int = 0

    @property
    def shown(self) -> list[Turn]:
        """The turns that the model is shown."""
        old = [each.elided() for each in self.turns[self.dropped : self.elided]]
        return [*old, *self.turns[max(self.dropped, self.elided) :]]

    def with_turn(self, turn: Turn) -> "Transcript":
        return replace(self, turns=(*self.turns, turn))

    def shrunk(self, size: Callable[["Transcript"], int], limit: int) -> "Transcript":
        """Return the transcript with as few omissions as needed for a `size` of at most `limit`.

        The oldest results are omitted first, then the oldest turns, but never the latest turn. The size exceeds the
        limit if that is not enough.
        """
        most = max(len(self.turns) - 1, 0)
        steps = [replace(self, elided=count) for count in range(self.elided, most + 1)]
        steps += [replace(self, elided=most, dropped=count) for count in range(self.dropped + 1, most + 1)]
        if not steps:
            return self
        fitting = bisect_left(steps, True, key=lambda step: size(step) <= limit)
        return steps[min(fitting, len(steps) - 1)]


def characters_in(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the approximate number of characters that the model reads in these messages."""
    return sum(len(str(message)) for message in messages)
