"""Measure an attempt while its processes stand still.

What moves can be missed: an agent could rename folders all the time, so that none is found under the name that was
listed, or let its memory belong to one short process after the other.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from typing import Final, TypeVar

from labrats.processes import descendants, is_stopped, is_traced, send_signal

T = TypeVar("T")

_SECONDS_TO_STOP: Final = 1.0
_SECONDS_FOR_EACH: Final = 0.02
"""Time for all processes to stop, and for each of them. One that waits for a disk stops later."""

_LONGEST_SECONDS: Final = 30.0
_SECONDS_TO_NOTICE: Final = 0.1
_PAUSE: Final = 0.0002
_QUIET_SCANS: Final = 20
"""Scans in a row without a running process. Each may miss the child of a process that ends meanwhile."""

_REST_SECONDS: Final = 5.0
_REST_FACTOR: Final = 50.0
"""Shortest time between two standstills, and its least ratio to the time of one: the work goes on meanwhile."""


_one_at_a_time: Final = threading.Lock()


class Standstill:
    """Stops the descendants of this process for measurements of one kind, and rarely."""

    def __init__(self) -> None:
        self._next = 0.0

    def measured(self, measure: Callable[[], T]) -> T | None:
        """Return what `measure` returns while the processes stand still; None if they cannot do so at the moment.

        That is so if they did so a short time ago, or do so for another measurement, or if no thread can be started.
        They go on after half a minute, even if `measure` has not returned: it may wait for one of them, such as the
        server of a file system.
        """
        if time.monotonic() < self._next or not _one_at_a_time.acquire(blocking=False):
            return None
        try:
            return self._measured(measure)
        finally:
            _one_at_a_time.release()

    def _measured(self, measure: Callable[[], T]) -> T | None:
        started, stopped = time.monotonic(), dict[int, None]()
        longest = threading.Timer(_LONGEST_SECONDS, _continue, [stopped])
        try:
            longest.start()
        except RuntimeError:  # other programs have taken all threads
            return None
        try:
            _stop(stopped)
            return measure()
        finally:
            longest.cancel()
            _continue(stopped)
            ended = time.monotonic()
            self._next = ended + max(_REST_SECONDS, (ended - started) * _REST_FACTOR)
            # Programs such as `script` stop themselves when they learn, only now, that a child was stopped.
            time.sleep(_SECONDS_TO_NOTICE)
            _continue([pid for pid in stopped if is_stopped(pid)])


def _continue(stopped: Collection[int]) -> None:
    """Let processes go on, children first, so that none of their parents finds one stopped."""
    for pid in reversed(list(stopped)):
        send_signal(pid, signal.SIGCONT)


def _stop(stopped: dict[int, None]) -> None:
    """Stop all descendants, as far as time allows, and add those that ran, parents before children.

    Each is stopped before its children are: a shell that noticed a stopped child would take the terminal back, and `su`
    would stop itself. A debugger notices all signals of the program that it traces, which is left out.
    """
    end, quiet = time.monotonic() + _SECONDS_TO_STOP, 0
    while quiet < _QUIET_SCANS and time.monotonic() < end:
        running = [pid for pid in descendants(os.getpid()) if not (is_stopped(pid) or is_traced(pid))]
        quiet = 0 if running else quiet + 1
        for pid in running:
            if send_signal(pid, signal.SIGSTOP):
                stopped[pid] = None
                _wait_until_stopped(pid)


def _wait_until_stopped(pid: int) -> None:
    end = time.monotonic() + _SECONDS_FOR_EACH
    while not is_stopped(pid) and time.monotonic() < end:
        time.sleep(_PAUSE)
