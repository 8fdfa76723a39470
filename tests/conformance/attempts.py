"""Steps of attempts for the tests of runners, and helpers that wait for ends and output."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from labrats.model.errors import RetryLater
from labrats.model.protocol import BriefEvent, LogEvent, events_in
from labrats.ports import Attempt, Gone, Runner
from tests.conformance.runner_backends import RunnerBackend
from tests.support.builders import an_attempt
from tests.support.waiting import DEADLINE_SECONDS, eventually, poll_intervals

HANG = {"hang": True}
STUBBORN = {"ignoreSignals": True}
LEAVE_CHILD = {"fork": {"seconds": 600}}
LEAVE_DETACHED_CHILD = {"fork": {"seconds": 600, "detached": True}}


async def end_of(runner: Runner, attempt: Attempt) -> Gone:
    pause = poll_intervals()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not isinstance(state := await runner.find(attempt.name), Gone):
            await asyncio.sleep(next(pause))
    return state


async def ends_of(runner: Runner, all_steps: Sequence[list[dict[str, Any]]]) -> list[Gone]:
    """Run one attempt for each list of steps at the same time, and return how they end."""
    attempts = [an_attempt(steps) for steps in all_steps]
    await asyncio.gather(*(runner.start(attempt) for attempt in attempts))
    return await asyncio.gather(*(end_of(runner, attempt) for attempt in attempts))


async def until_logged(runner: Runner, attempt: Attempt, text: str) -> None:
    """Wait until the attempt has logged `text`."""
    async with asyncio.timeout(DEADLINE_SECONDS), aclosing(runner.read(attempt.name, follow=True)) as batches:
        async for lines in batches:
            if text in logs_in(list(events_in(lines))):
                return
    raise AssertionError(f"the attempt ended without logging {text!r}")


async def events_of(
    runner: Runner, attempt: Attempt, *, after_seq: int = 0, follow: bool = False
) -> Sequence[BriefEvent]:
    async with asyncio.timeout(DEADLINE_SECONDS), aclosing(runner.read(attempt.name, after_seq, follow=follow)) as read:
        return [event async for lines in read for event in events_in(lines)]


def logs_in(events: Sequence[BriefEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, LogEvent)]


async def first_reported_end(runner: Runner, attempt: Attempt) -> Gone:
    """Wait for the attempt's end as a watcher does: look it up whenever its name is reported."""
    async for name in runner.watch():
        if name == attempt.name and isinstance(state := await runner.find(name), Gone):
            return state
    raise AssertionError("the watch ended")


async def eventually_one_process(backend: RunnerBackend, attempt: Attempt) -> None:
    await eventually(lambda: backend.living_processes(attempt.name) == 1)


async def start_with_retries(runner: Runner, attempt: Attempt) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                return await runner.start(attempt)
            except RetryLater as error:
                await asyncio.sleep(error.delay_seconds)
