"""Measure an attempt while its processes stand still.

What moves can be missed: an agent could rename folders all the time, so that none is found under the name that was
listed, or let its memory belong to one short process after the other.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from labrats.processes import descendants, is_stopped, send_signal

T = TypeVar("T")

_SECONDS_TO_STOP: Final = 0.5
"""Time for the processes to stop. One that waits for a disk stops later."""

_PAUSE: Final = 0.0005
_QUIET_SCANS: Final = 2
"""Scans in a row without a running process. A single one may miss the child of a process that ends meanwhile."""

_REST_SECONDS: Final = 5.0
_REST_FACTOR: Final = 50.0
"""Shortest time between two standstills, and its least ratio to the time of one: the work goes on meanwhile."""


class Standstill:
    """Stops the descendants of this process for measurements, and rarely. Several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0

    def measured(self, measure: Callable[[], T]) -> T | None:
        """Return what `measure` returns while the processes stand still; None if they did so a short time ago."""
        with self._lock:
            if (started := time.monotonic()) < self._next:
                return None
            stopped: dict[int, None] = {}
            try:
                _stop(stopped)
                return measure()
            finally:
                for pid in reversed(stopped):  # children first, so that no shell sees one that is stopped
                    send_signal(pid, signal.SIGCONT)
                ended = time.monotonic()
                self._next = ended + max(_REST_SECONDS, (ended - started) * _REST_FACTOR)


def _stop(stopped: dict[int, None]) -> None:
    """Stop all descendants, as far as time allows, and add those that ran, parents before children."""
    end, quiet = time.monotonic() + _SECONDS_TO_STOP, 0
    while quiet < _QUIET_SCANS and time.monotonic() < end:
        running = [pid for pid in descendants(os.getpid()) if not is_stopped(pid)]
        quiet = 0 if running else quiet + 1
        for pid in running:
            if send_signal(pid, signal.SIGSTOP):
                stopped[pid] = None
        if running:
            time.sleep(_PAUSE)
