"""Detect a model that repeats the same text without end."""

from typing import Final

_LOOPS: Final = ((4096, 256), (16_384, 2048))
"""Pairs of a length and a period, in characters: a text of that length with at most that period is a loop.

The text then occurs at least 16 or 8 times.
"""

_LONGEST: Final = max(length for length, _ in _LOOPS)
_STEP: Final = 512
"""Number of new characters after which the text is checked again."""


class EndlessOutputDetector:
    """Reads a text in pieces. loop: the text that is repeated without end, once it is detected."""

    def __init__(self) -> None:
        self.loop: str | None = None
        self._tail = ""
        self._unchecked = 0

    def add(self, piece: str) -> None:
        self._tail = (self._tail + piece)[-_LONGEST:]
        self._unchecked += len(piece)
        if self._unchecked >= _STEP:
            self._unchecked = 0
            self.loop = self.loop or _find_loop(self._tail)


def _find_loop(text: str) -> str | None:
    for length, longest_period in _LOOPS:
        tail = text[-length:]
        if len(tail) == length and (period := _find_period(tail, longest_period)):
            return tail[:period]
    return None


def _find_period(text: str, longest: int) -> int | None:
    """Return the number of characters, at most `longest`, after which the whole text repeats."""
    period = text.find(text[: len(text) - longest], 1)
    return period if 0 < period <= longest and text[period:] == text[:-period] else None
