"""Recognises a model that writes the same again and again, which it would do until something stops it."""

from typing import Final

_LOOPS: Final = ((4096, 256), (16_384, 2048))
"""So many characters, repeating themselves after at most so many, are a loop: 16 and 8 times over."""

_LONGEST: Final = max(length for length, _ in _LOOPS)
_STEP: Final = 512
"""A text is looked at once for so many new characters."""


class EndlessOutputDetector:
    """Takes in a text in pieces. loop: what it repeats without end, once that is seen."""

    def __init__(self) -> None:
        self.loop: str | None = None
        self._tail = ""
        self._unseen = 0

    def add(self, piece: str) -> None:
        self._tail = (self._tail + piece)[-_LONGEST:]
        self._unseen += len(piece)
        if self._unseen >= _STEP:
            self._unseen = 0
            self.loop = self.loop or _loop_in(self._tail)


def _loop_in(text: str) -> str | None:
    for length, longest_period in _LOOPS:
        tail = text[-length:]
        if len(tail) == length and (period := _period_of(tail, longest_period)):
            return tail[:period]
    return None


def _period_of(text: str, longest: int) -> int | None:
    """Return the number of characters, at most `longest`, after which all of `text` repeats itself."""
    period = text.find(text[: len(text) - longest], 1)
    return period if 0 < period <= longest and text[period:] == text[:-period] else None
