"""Passes of a cleanup, repeated for as long as the engine runs."""

from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from labrats.model.errors import LabratsError
from labrats.ports import Clock

log = structlog.get_logger()


async def repeat(one_pass: Callable[[], Awaitable[None]], seconds: float, clock: Clock) -> NoReturn:
    """Make a pass now and after each pause of `seconds`, until cancelled. A pass that fails is logged."""
    while True:
        try:
            await one_pass()
        except (LabratsError, OSError) as error:
            log.warning("cleanup postponed", reason=str(error))
        await clock.sleep(seconds)
