"""Log a text while it arrives."""

import time
from typing import Final

from labrats.executor.event_writer import EventWriter
from labrats.model.redaction import WORD_END

REASONING_PREFIX: Final = "[thinking] "
"""Start of a line of the model's reasoning."""

_LONG_CHARACTERS: Final = 200
_SLOW_SECONDS: Final = 3.0
"""Length and age from which an incomplete line is logged in parts."""


class LineLogger:
    """Receives a text in pieces and logs it line by line; a long or slow line is logged in parts of whole words.

    A line is not split inside a secret, since the redactor only recognises complete secrets. prefix: starts each line.
    """

    def __init__(self, events: EventWriter, prefix: str = "") -> None:
        self._events = events
        self._prefix = prefix
        self._line = ""
        self._length_tried = 0  # each try takes a time that grows with the length
        self._since = time.monotonic()

    def add(self, piece: str) -> None:
        *lines, self._line = (self._line + piece).split("\n")
        for line in lines:
            self._log(line)
        is_slow = time.monotonic() - self._since > _SLOW_SECONDS
        has_grown = len(self._line) > self._length_tried * 5 // 4
        if has_grown and (len(self._line) > _LONG_CHARACTERS or is_slow):
            self._log_part()

    def end(self) -> None:
        """Log the rest."""
        if self._line:
            self._log(self._line)
        self._line = ""

    def _log_part(self) -> None:
        """Log as many whole words of the incomplete line as possible without splitting a secret."""
        self._length_tried = len(self._line)
        text = self._line[: self._events.safe_length(self._line)]
        end = max((match.end() for match in WORD_END.finditer(text)), default=0)
        if text[:end].strip():
            self._line = self._line[end:]
            self._log(text[:end].rstrip())

    def _log(self, text: str) -> None:
        self._since, self._length_tried = time.monotonic(), 0
        self._events.log(self._prefix + text, "agent")
