"""Logs a text while it comes in."""

from labrats.executor.emit import Emitter


class LogLines:
    """Takes a text in pieces and logs it line by line: a secret in it must be whole to be seen."""

    def __init__(self, emit: Emitter) -> None:
        self._emit = emit
        self._started: list[str] = []

    def add(self, piece: str) -> None:
        first, *rest = piece.split("\n")
        self._started.append(first)
        for beginning in rest:
            self._emit.log("".join(self._started))
            self._started = [beginning]

    def end(self) -> None:
        """Log what is left."""
        if rest := "".join(self._started):
            self._emit.log(rest)
        self._started = []
