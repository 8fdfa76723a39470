"""Actions on many jobs, one after the other, in the background."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import structlog

from labrats.metrics import Metrics
from labrats.model.caller import Caller
from labrats.model.errors import AccessDenied, LabratsError, RetryLater
from labrats.model.job import Job, after_cancel_request, after_retry_request
from labrats.ports import Clock, Store, compare_and_set

log = structlog.get_logger()

ACTIONS: Final[Mapping[str, Callable[[Job, datetime], Job]]] = {
    "cancel": after_cancel_request,
    "retry": after_retry_request,
}


class BulkAction(NamedTuple):
    """An action on some jobs."""

    action: str
    job_ids: Sequence[str]
    caller: Caller


class BulkActions:
    """A queue of actions on many jobs. Those that are not done when the engine stops are lost."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[BulkAction] = asyncio.Queue()

    def add(self, action: BulkAction) -> None:
        self._queue.put_nowait(action)

    async def run(self, store: Store, clock: Clock, metrics: Metrics) -> None:
        """Carry out the actions until cancelled."""
        while True:
            action = await self._queue.get()
            done = 0
            for job_id in action.job_ids:
                done += await self._apply(action, job_id, store, clock, metrics)
            log.info("bulk action done", action=action.action, jobs=done, left_out=len(action.job_ids) - done)

    async def _apply(self, action: BulkAction, job_id: str, store: Store, clock: Clock, metrics: Metrics) -> bool:
        """Act on one job. Return False if it is gone, invalid, or in a state that does not allow the action."""

        async def read() -> Job:
            job = await store.get(Job, job_id)
            if not action.caller.may_see(job.spec.owner):
                raise AccessDenied(f"the job {job_id} belongs to another API key")
            return job

        while True:
            try:
                before, job = await compare_and_set(
                    store, read, lambda found: ACTIONS[action.action](found, clock.now())
                )
            except RetryLater as error:
                await clock.sleep(error.delay_seconds)
                continue
            except LabratsError as error:
                log.info("job left out of a bulk action", action=action.action, job=job_id, reason=str(error))
                return False
            if job.ended and not before.ended:  # it was Pending; the controller counts the end of a Running one
                metrics.job_moved(before, job, clock.now())
            return True
