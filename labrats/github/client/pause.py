"""The pause that GitHub asks for."""

from datetime import datetime, timedelta
from typing import Final

from labrats.model.errors import RetryLater
from labrats.ports import Clock

_LONGEST: Final = timedelta(hours=1)


class LimitReached(RetryLater):
    """A limit of GitHub is used up: it wants no request before the delay is over."""


class HostPause:
    """The pause that GitHub has asked for with `Retry-After`. All requests of this process keep it.

    A limit that is used up without that header is one of an installation alone.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: datetime | None = None

    def begin(self, seconds: float) -> None:
        """Refuse requests from now on, for a time."""
        until = self._clock.now() + min(timedelta(seconds=seconds), _LONGEST)
        self._until = max(until, self._until or until)

    def check(self) -> None:
        """Raise LimitReached while the pause lasts."""
        if self._until and (left := (self._until - self._clock.now()).total_seconds()) > 0:
            raise LimitReached("GitHub has asked for a pause", delay_seconds=left)
