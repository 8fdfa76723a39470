"""What was said and done so far, and how much of it the model is still shown."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from labrats.executor.providers.react.observations import Observation

ELIDED: Final = "[left out: this is long ago. Call the tool again if you need it.]"


@dataclass(frozen=True)
class Call:
    """A tool call. arguments: any JSON, or a text that was to be JSON and is not."""

    id: str
    name: str
    arguments: Any


@dataclass(frozen=True)
class Turn:
    """What the model said and called, what each call answered, and a remark besides."""

    text: str = ""
    calls: Sequence[Call] = ()
    observed: Sequence[Observation] = ()
    remark: str = ""

    def elided(self) -> "Turn":
        """The same with short answers."""
        brief = [each if len(each.text) <= len(ELIDED) else replace(each, text=ELIDED) for each in self.observed]
        return replace(self, observed=brief)


@dataclass(frozen=True)
class Transcript:
    """The talk, oldest round first. elided: of how many rounds the answers are left out; dropped: how many wholly."""

    instructions: str
    prompt: str
    rounds: tuple[Turn, ...] = ()
    elided: int = 0
    dropped: int = 0

    @property
    def shown(self) -> list[Turn]:
        """The rounds that the model is shown."""
        old = [each.elided() for each in self.rounds[self.dropped : self.elided]]
        return [*old, *self.rounds[max(self.dropped, self.elided) :]]

    def and_then(self, latest: Turn) -> "Transcript":
        return replace(self, rounds=(*self.rounds, latest))

    def shrunk(self, size: Callable[["Transcript"], int], limit: int) -> "Transcript":
        """The same, showing so little that its `size` is at most `limit`: the oldest answers go first, then the oldest
        rounds, never the latest one. As little as can be where that is not enough.
        """
        spared = max(len(self.rounds) - 1, 0)
        steps = [replace(self, elided=count) for count in range(self.elided, spared + 1)]
        steps += [replace(self, elided=spared, dropped=count) for count in range(self.dropped + 1, spared + 1)]
        if not steps:
            return self
        fitting = bisect_left(steps, True, key=lambda step: size(step) <= limit)
        return steps[min(fitting, len(steps) - 1)]


def characters_in(messages: Sequence[Mapping[str, Any]]) -> int:
    """About how much a request with these messages gives the model to read."""
    return sum(len(str(message)) for message in messages)
