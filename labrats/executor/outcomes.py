"""The end of an attempt, or of a step before it: with a result, a failure, a timeout or a signal."""

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from labrats.executor.context import RunContext
from labrats.executor.event_writer import EventWriter
from labrats.executor.stop_signals import stopped_by_signals
from labrats.model.config import ResolvedConfig
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import STOPPED

T = TypeVar("T")


@dataclass(frozen=True)
class Succeeded:
    """The outcome of work that has returned a result."""

    result: Any


async def run_step(step: Callable[[], Awaitable[None]], events: EventWriter) -> int:
    """Run a step before an attempt, and return its exit status. If it fails, print why as the attempt's last event."""
    with stopped_by_signals():
        outcome = await outcome_of(step, events)
    if isinstance(outcome, Succeeded):
        return 0
    events.error(FailedCode(outcome.code), str(outcome))
    return 1


async def outcome_of(work: Callable[[], Awaitable[Any]], events: EventWriter) -> Succeeded | GiveUp:
    """Do the work, and return its outcome."""
    try:
        return Succeeded(await work())
    except GiveUp as failure:
        return failure
    except asyncio.CancelledError:
        return GiveUp(FailedCode.AGENT_ERROR, STOPPED)
    except Exception as error:  # noqa: BLE001 - the outermost handler: an error not reported here is lost
        sys.stderr.write(events.clean(traceback.format_exc()))
        return GiveUp(FailedCode.INTERNAL, f"the executor failed unexpectedly: {type(error).__name__}: {error}")


async def run_with_timeout(work: Callable[[RunContext], Awaitable[T]], context: RunContext) -> T:
    """Return the result of `work`. Raises GiveUp if it takes longer than the job's timeout."""
    seconds = ResolvedConfig(config=context.task.config).timeout_seconds
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            return await work(context)
    except TimeoutError as error:
        if deadline.expired():
            raise GiveUp(FailedCode.TIMEOUT, f"the run took longer than its timeout of {seconds:g} s") from error
        raise  # another timeout, inside the work
