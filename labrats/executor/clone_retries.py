"""Try to read a repository again after a failure that may pass, such as status 502 of a gateway."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

from labrats.executor.event_writer import EventWriter
from labrats.files.trees import remove_tree
from labrats.model.errors import GiveUp

T = TypeVar("T")

PAUSES: Final = (2.0, 6.0, 18.0, 40.0)
"""Seconds before the second try and each further one. Half of them if access was refused."""

_MOST_SECONDS: Final = 120.0
"""Time after the start of the first try in which the last one starts."""


class PassingFailure(GiveUp):
    """A failure of a server or of the network that may pass."""


class RefusedForNow(PassingFailure):
    """Access was refused for a token, which may be so new that the server does not know it yet. GitHub takes seconds.

    Half of the pauses are enough for that, and report a wrong token sooner.
    """


async def with_retries(
    read: Callable[[], Awaitable[T]], workspace: Path, events: EventWriter, pauses: Sequence[float] = PAUSES
) -> T:
    """Return the result of `read`, which fills an empty workspace. Raises GiveUp.

    After a PassingFailure, empty the workspace and try again, as often as there are pauses.
    """
    started, tries = monotonic(), len(pauses) + 1
    for number, pause in enumerate(pauses, start=1):
        try:
            return await read()
        except PassingFailure as failure:
            seconds = pause / 2 if isinstance(failure, RefusedForNow) else pause
            if monotonic() - started + seconds > _MOST_SECONDS:
                raise _final(failure, number) from failure
            events.log(f"[{failure}; trying again in {seconds:g} s (try {number + 1} of {tries})]")
        await asyncio.sleep(seconds)
        remove_tree(workspace / ".git")  # git creates nothing else before a checkout
    try:
        return await read()
    except PassingFailure as failure:
        raise _final(failure, tries) from failure


def _final(failure: PassingFailure, tries: int) -> GiveUp:
    return GiveUp(failure.code, f"{failure} (tried {tries} times)")
