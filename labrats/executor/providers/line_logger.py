"""Logs a text while it comes in."""

import time
from typing import Final

from labrats.executor.event_writer import EventWriter
from labrats.model.redaction import WORD_END

_LONG_CHARACTERS: Final = 200
_SLOW_SECONDS: Final = 3.0
"""A line that has become so long, or waits for its end for so long, is shown in parts."""


class LineLogger:
    """Takes a text in pieces and logs it line by line; a long or slow line in parts, each of whole words.

    A part ends only where no secret spans it: a secret must be whole to be seen. prefix: of each line.
    """

    def __init__(self, events: EventWriter, prefix: str = "") -> None:
        self._events = events
        self._prefix = prefix
        self._started = ""
        self._since = time.monotonic()

    def add(self, piece: str) -> None:
        *lines, self._started = (self._started + piece).split("\n")
        for line in lines:
            self._log(line)
        is_slow = time.monotonic() - self._since > _SLOW_SECONDS
        if len(self._started) > _LONG_CHARACTERS or (self._started and is_slow):
            self._log_part()

    def end(self) -> None:
        """Log what is left."""
        if self._started:
            self._log(self._started)
        self._started = ""

    def _log_part(self) -> None:
        """Log whole words of the line that has begun, if a cut after them parts no secret."""
        text = self._started[: self._events.safe_length(self._started)]
        end = max((mark.end() for mark in WORD_END.finditer(text)), default=0)
        if text[:end].strip():
            self._started = self._started[end:]
            self._log(text[:end].rstrip())

    def _log(self, text: str) -> None:
        self._since = time.monotonic()
        self._events.log(self._prefix + text)
