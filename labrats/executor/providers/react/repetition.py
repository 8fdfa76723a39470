"""Detect a model that repeats calls without making progress."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_SAME_RESULTS: Final = 2
_REFUSALS: Final = 4

REMINDER: Final = (
    "This call was not executed: it has returned the same result before, and nothing has changed since. Do something "
    "else, or finish with what you know."
)


@dataclass
class RepetitionDetector:
    """Counts the results of each call. When something has changed, all counts start again."""

    _seen: set[tuple[str, str]] = field(default_factory=set)
    _counts: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    _repeated: set[str] = field(default_factory=set)
    _refusals: int = 0

    def refuses(self, call: str) -> bool:
        """Return whether `call` must not be executed, since it has returned the same result twice. Count refusals."""
        refused = call in self._repeated
        self._refusals += refused
        return refused

    @property
    def is_stuck(self) -> bool:
        """True once the model has insisted on refused calls several times."""
        return self._refusals >= _REFUSALS

    def add(self, call: str, result: str, *, may_change: bool) -> None:
        """Count the result of a call.

        may_change: True if the call can change the results of other calls. A call with a result that it has returned
        before is assumed to have changed nothing.
        """
        if may_change and (call, result) not in self._seen:
            self._counts.clear()
            self._repeated.clear()
            self._refusals = 0
        self._seen.add((call, result))
        self._counts[call, result] += 1
        if self._counts[call, result] >= _SAME_RESULTS:
            self._repeated.add(call)
