"""Wakes readers of output on the shared volume, where the kernel does not report what another node writes.

One poll serves all readers of an attempt.
"""

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from labrats.backends.kubernetes.files import AttemptFiles

POLL_SECONDS: Final = 0.2
"""Pause between two polls. On a network volume, each poll is a request to the file server."""


class OutputPoll:
    """The polls of the attempts whose output has readers."""

    def __init__(self) -> None:
        self._readers: dict[AttemptFiles, set[asyncio.Event]] = {}
        self._polls: dict[AttemptFiles, asyncio.Task[None]] = {}

    @contextmanager
    def changes_in(self, files: AttemptFiles) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever the output grew or the attempt ended. The reader clears the event."""
        changed = asyncio.Event()
        readers = self._readers.setdefault(files, set())
        readers.add(changed)
        if files not in self._polls:
            self._polls[files] = asyncio.create_task(self._poll(files, readers), name="output-poll")
        try:
            yield changed
        finally:
            readers.discard(changed)
            if not readers:
                del self._readers[files]
                self._polls.pop(files).cancel()

    async def _poll(self, files: AttemptFiles, readers: set[asyncio.Event]) -> None:
        known = None
        while True:
            try:
                state = _state_of(files)
            except OSError:  # the readers get the same error, and report it
                state = None
            if state is None or state != known:
                known = state
                for changed in readers:
                    changed.set()
            await asyncio.sleep(POLL_SECONDS)


def _state_of(files: AttemptFiles) -> Hashable:
    size = None
    with suppress(FileNotFoundError):
        size = files.output.stat().st_size
    return size, files.has_ended
