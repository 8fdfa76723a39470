"""The limit on how long a model may send nothing while a provider waits for it, shared by all providers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from labrats.executor.context import RunContext
from labrats.executor.failure_advice import silence_advice
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

_FIRST_REMINDER_SECONDS: Final = 60.0
_FIRST_REMINDER_SHARE: Final = 0.25
"""Share of the limit after which the first reminder is logged at the latest. Each further interval is doubled."""


class SilenceTimer:
    """The time since the model last sent something. Reminders in the log announce the limit.

    timeout: expires at the limit. last_problem: the last problem that the program or the server has reported.
    """

    def __init__(self, context: RunContext) -> None:
        self.timeout = asyncio.timeout(None)
        self.last_problem = "it sent nothing"
        self._context, self._activity = context, context.server_activity
        self._limit = context.task.idle_seconds
        self._loop = asyncio.get_running_loop()
        self._is_waiting = True
        self._since = time.monotonic()
        self._reminder = self._first_reminder
        self._timer = self._loop.call_later(self._reminder, self._check)

    def reset(self, *, waits_for_model: bool = True) -> None:
        """Restart the timer. waits_for_model: False while a tool is running, for which there is no limit."""
        self._is_waiting = waits_for_model
        self._since = time.monotonic()
        self._reminder = self._first_reminder

    def note_problem(self, problem: str) -> None:
        """Record a problem that the program or the server reports. The timer keeps running."""
        self.last_problem = problem

    def cancel(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    @property
    def _first_reminder(self) -> float:
        return min(_FIRST_REMINDER_SECONDS, self._limit * _FIRST_REMINDER_SHARE)

    def _check(self) -> None:
        if (heard_at := self._activity.last_at) > self._since:  # also parts of which the program says nothing
            self.reset(waits_for_model=self._is_waiting)
            self._since = heard_at
        silent = time.monotonic() - self._since if self._is_waiting else 0.0
        if silent >= self._limit:
            self.timeout.reschedule(self._loop.time())
            return
        if silent >= self._reminder:
            self._reminder *= 2
            end = f"the run ends after {self._limit:g} s of silence"
            with suppress(GiveUp):  # the output has reached its limit
                self._context.events.log(f"[the model's server has sent nothing for {silent:.0f} s: {end}]")
        self._timer = self._loop.call_later(min(self._reminder, self._limit) - silent, self._check)


@asynccontextmanager
async def limit_silence(context: RunContext, program: str) -> AsyncIterator[SilenceTimer]:
    """Limit the silence of the model for which `program` waits. Raises GiveUp at the limit."""
    timer = SilenceTimer(context)
    try:
        async with timer.timeout:
            yield timer
    except TimeoutError as error:
        if not timer.timeout.expired():
            raise
        reason = (
            f"{program} waited more than {context.task.idle_seconds:g} seconds for the model's server: "
            f"{timer.last_problem} ({silence_advice(context.task)})"
        )
        raise GiveUp(FailedCode.AGENT_ERROR, reason) from error
    finally:
        timer.cancel()
