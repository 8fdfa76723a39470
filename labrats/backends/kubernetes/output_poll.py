"""Wakes the readers of an attempt's output on the shared volume, where no kernel reports what another node writes.

One look serves all readers of an attempt, however many there are.
"""

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from labrats.backends.kubernetes.files import AttemptFiles

LOOK_SECONDS: Final = 0.2
"""The pause between two looks. On a network volume a look is a question to its server."""


class OutputPoll:
    """Looks at the attempts that are followed at this time."""

    def __init__(self) -> None:
        self._readers: dict[AttemptFiles, set[asyncio.Event]] = {}
        self._looking: dict[AttemptFiles, asyncio.Task[None]] = {}

    @contextmanager
    def changes_in(self, files: AttemptFiles) -> Iterator[asyncio.Event]:
        """Follow an attempt. The event is set whenever its output has grown or it has ended; the reader clears it."""
        changed = asyncio.Event()
        readers = self._readers.setdefault(files, set())
        readers.add(changed)
        if files not in self._looking:
            self._looking[files] = asyncio.create_task(self._look(files, readers), name="output-poll")
        try:
            yield changed
        finally:
            readers.discard(changed)
            if not readers:
                del self._readers[files]
                self._looking.pop(files).cancel()

    async def _look(self, files: AttemptFiles, readers: set[asyncio.Event]) -> None:
        known = None
        while True:
            try:
                state = _state_of(files)
            except OSError:  # the readers meet it too, and say so
                state = None
            if state is None or state != known:
                known = state
                for changed in readers:
                    changed.set()
            await asyncio.sleep(LOOK_SECONDS)


def _state_of(files: AttemptFiles) -> Hashable:
    size = None
    with suppress(FileNotFoundError):
        size = files.output.stat().st_size
    return size, files.has_ended
