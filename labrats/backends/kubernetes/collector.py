"""Copies an executor's output from the pod's log to the shared volume, while it is written."""

import asyncio
from contextlib import aclosing
from typing import Final

import structlog

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.files import OutputCopy, in_thread
from labrats.backends.kubernetes.observed_attempt import ObservedAttempt
from labrats.model.errors import LabratsError
from labrats.model.protocol import LINE_BYTES

log = structlog.get_logger()

SILENCE_SECONDS: Final = 120.0
"""Time without output after which the log is opened again, since the connection may be broken."""

REOPEN_SECONDS: Final = 0.2
"""Pause before the log is opened again; doubled, up to `MAX_PAUSE_SECONDS`, while no new event comes."""

MAX_PAUSE_SECONDS: Final = 10.0

MAX_FAILED_READS: Final = 60
"""Number of failed reads of an ended container's log after which the rest is given up.

With the pauses, this bridges ten minutes without the API server.
"""

MAX_IDLE_READS: Final = 2
"""Number of reads of an ended container's log without a new event after which it is complete.

One is not enough: if the API server loses its connection to the node, it ends its answer as if the log was complete.
"""


async def collect(client: ApiClient, log_path: str, container: str, copy: OutputCopy, attempt: ObservedAttempt) -> None:
    """Copy a container's log until the container has ended and all is copied, or the log is lost.

    Events that this or another engine copied before are not copied again.
    log_path: path of the pod's log on the API server.
    """
    failed_reads, idle_reads, pause = 0, 0, REOPEN_SECONDS
    while not copy.is_complete and failed_reads < MAX_FAILED_READS and idle_reads < MAX_IDLE_READS:
        known, ended = copy.last, attempt.has_ended(container)
        try:
            await _copy(client, log_path, container, copy, follow=not ended)
            idle_reads += ended and copy.last is known
        except LabratsError as error:
            failed_reads += ended
            # A kubelet that has just started answers 404 for pods that exist.
            is_lost = attempt.is_lost_with_its_node or attempt.has_lost_log(container)
            if attempt.is_pod_deleted or (ended and is_lost):
                break
            log.warning("pod log interrupted", log=log_path, container=container, reason=str(error))
        pause = REOPEN_SECONDS if copy.last is not known else min(pause * 2, MAX_PAUSE_SECONDS)
        await asyncio.sleep(pause)


async def _copy(client: ApiClient, log_path: str, container: str, copy: OutputCopy, *, follow: bool) -> None:
    """Read the log from the second of the last event on. `copy` skips events that it has already."""
    query = {"container": container, "follow": str(follow).lower()}
    if copy.last:
        query["sinceTime"] = copy.last.at.isoformat(timespec="seconds")
    log_lines = client.batches(log_path, query, silence_seconds=SILENCE_SECONDS, most_line_bytes=LINE_BYTES)
    async with aclosing(log_lines) as batches:
        async for lines in batches:
            await in_thread(copy.append, lines)
