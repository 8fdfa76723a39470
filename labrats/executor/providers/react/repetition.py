"""Notices that a model goes round in circles."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_SAME_ANSWERS: Final = 2
_REFUSALS: Final = 4

REMINDER: Final = (
    "This call was not made: it has given the very same answer before, and would again. Do something else, or finish "
    "with what you know."
)


@dataclass
class RepetitionDetector:
    """Remembers what each call answered, until something changes: then the same call is a new question."""

    _seen: set[tuple[str, str]] = field(default_factory=set)
    _counts: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    _settled: set[str] = field(default_factory=set)
    _refusals: int = 0

    def is_pointless(self, call: str) -> bool:
        """Whether `call` has given one and the same answer often enough. It is then not to be made."""
        pointless = call in self._settled
        self._refusals += pointless
        return pointless

    @property
    def is_hopeless(self) -> bool:
        """Whether the model goes on all the same."""
        return self._refusals >= _REFUSALS

    def note(self, call: str, answer: str, *, may_change: bool) -> None:
        """Remember what `call` answered. may_change: it is one that can change what others answer. One that answers
        as it has done before is not taken to have changed anything.
        """
        if may_change and (call, answer) not in self._seen:
            self._counts.clear()
            self._settled.clear()
            self._refusals = 0
        self._seen.add((call, answer))
        self._counts[call, answer] += 1
        if self._counts[call, answer] >= _SAME_ANSWERS:
            self._settled.add(call)
