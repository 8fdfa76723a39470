"""Copies what an executor prints from its pod's log to the shared volume, as it comes and until its end."""

import asyncio
from contextlib import aclosing
from typing import Final

import structlog

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.files import OutputCopy, in_thread
from labrats.backends.kubernetes.observed_attempt import ObservedAttempt
from labrats.model.errors import LabratsError, NotFound

log = structlog.get_logger()

SILENCE_SECONDS: Final = 120.0
"""A log that says nothing for so long is opened anew: the connection may be gone without a word."""

REOPEN_SECONDS: Final = 0.2
"""Between two openings, doubled with each that brings nothing, up to the longest pause."""

LONGEST_PAUSE_SECONDS: Final = 10.0

PATIENCE: Final = 60
"""How often the log of a container that has ended is asked for in vain, before what it still holds is given up. Enough
for ten minutes without an API server.
"""


async def collect(client: ApiClient, log_path: str, container: str, copy: OutputCopy, sight: ObservedAttempt) -> None:
    """Copy the log of a container, in the pod's log at `log_path`, until the container has ended and all of its log is
    copied, or that is out of reach for good.

    Whatever was copied before, by whomever, is not copied again.
    """
    refusals, pause = 0, REOPEN_SECONDS
    while not copy.is_complete and refusals < PATIENCE:
        known, ended = copy.last, sight.has_ended(container)
        try:
            await _copy(client, log_path, container, copy, follow=not ended)
            if ended:
                break
        except NotFound:
            break  # the pod is gone, and its log with it
        except LabratsError as error:
            refusals += ended
            if ended and sight.is_lost_with_its_node:
                break
            log.warning("a pod's log was cut", log=log_path, container=container, reason=str(error))
        pause = REOPEN_SECONDS if copy.last is not known else min(pause * 2, LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(pause)


async def _copy(client: ApiClient, log_path: str, container: str, copy: OutputCopy, *, follow: bool) -> None:
    """Read the log on from the second of the last event; the events' numbers tell which of that are new."""
    query = {"container": container, "follow": str(follow).lower()}
    if copy.last:
        query["sinceTime"] = f"{copy.last.at:%Y-%m-%dT%H:%M:%SZ}"
    async with aclosing(client.batches(log_path, query, silence_seconds=SILENCE_SECONDS)) as batches:
        async for lines in batches:
            await in_thread(copy.take, lines)
