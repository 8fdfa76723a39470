"""Review resources one after the other, so that one whose status cannot be written delays no other."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import structlog

from labrats.model.errors import LabratsError, delay_after
from labrats.model.record import Resource

log = structlog.get_logger()

R = TypeVar("R", bound=Resource)


async def review_each(resources: Iterable[R], review: Callable[[R], Awaitable[None]]) -> float | None:
    """Review each resource. Return the seconds after which to try again, if a review has failed; None otherwise."""
    delays = list[float]()
    for each in resources:
        try:
            await review(each)
        except LabratsError as error:
            log.warning("review postponed", kind=each.kind(), name=each.name, reason=str(error))
            delays.append(delay_after(error))
    return min(delays, default=None)
