"""The limit on how long a model may say nothing while it is waited for: one for all providers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from labrats.executor.context import RunContext
from labrats.executor.failure_advice import silence_advice
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

_FIRST_REMINDER_SECONDS: Final = 60.0
_EARLIEST_REMINDER: Final = 0.25
"""Share of the limit after which a reminder is logged at the latest. Each further one comes after twice the time."""


class SilenceTimer:
    """The time since a model was last heard. Reminders in the log announce the limit."""

    def __init__(self, context: RunContext) -> None:
        self.timeout = asyncio.timeout(None)
        self.last_note = "it says nothing"
        self._context = context
        self._limit = context.task.idle_seconds
        self._loop = asyncio.get_running_loop()
        self._is_waiting = True
        self._since = self._loop.time()
        self._reminder = self._first_reminder
        self._timer = self._loop.call_later(self._reminder, self._look)

    def heard(self, *, waits_for_model: bool = True) -> None:
        """Begin to wait anew. waits_for_model: False while a tool is at work, for which there is no limit."""
        self._is_waiting = waits_for_model
        self._since = self._loop.time()
        self._reminder = self._first_reminder

    def note(self, trouble: str) -> None:
        """Keep what the program or the server says of its trouble, which is no progress."""
        self.last_note = trouble

    def end(self) -> None:
        self._timer.cancel()

    @property
    def _first_reminder(self) -> float:
        return min(_FIRST_REMINDER_SECONDS, self._limit * _EARLIEST_REMINDER)

    def _look(self) -> None:
        silent = self._loop.time() - self._since if self._is_waiting else 0.0
        if silent >= self._limit:
            self.timeout.reschedule(self._loop.time())
            return
        if silent >= self._reminder:
            self._reminder *= 2
            end = f"the run ends after {self._limit:g} s of silence"
            with suppress(GiveUp):  # at the bound of the output: whatever the run writes next will end it
                self._context.events.log(f"[the model's server has said nothing for {silent:.0f} s: {end}]")
        self._timer = self._loop.call_later(min(self._reminder, self._limit) - silent, self._look)


@asynccontextmanager
async def limit_silence(context: RunContext, program: str) -> AsyncIterator[SilenceTimer]:
    """Limit the silence of the model that `program` waits for. Raises GiveUp at the limit."""
    silence = SilenceTimer(context)
    try:
        async with silence.timeout:
            yield silence
    except TimeoutError as error:
        if not silence.timeout.expired():
            raise
        reason = (
            f"{program} waited more than {context.task.idle_seconds:g} seconds for the model's server: "
            f"{silence.last_note} ({silence_advice(context.task)})"
        )
        raise GiveUp(FailedCode.AGENT_ERROR, reason) from error
    finally:
        silence.end()
