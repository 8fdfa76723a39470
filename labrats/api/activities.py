"""The activities of running jobs, for lists and the feed of changes.

The outputs of the jobs that somebody looks at are read again every second, a few KiB of each. Nothing is stored.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import apsw
import structlog

from labrats.index.jobs import JobIndex
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import LabratsError, RetryLater
from labrats.ports import Runner

log = structlog.get_logger()

REFRESH_SECONDS: Final = 1.0
"""Time between two reads of an output."""

LINGER_SECONDS: Final = 30.0
"""Time for which a job is observed after a list with it was requested. While the feed has readers, it has no end."""

MOST_JOBS: Final = 200
"""Jobs that are observed at once; of more, those requested last. The others have no activity."""


@dataclass
class _Observed:
    """A running attempt. requested_at: the time of the event loop."""

    attempt: AttemptName
    owner: str
    activity: str | None
    requested_at: float


class Activities:
    """The latest activities of the running jobs that were requested lately."""

    def __init__(self, runner: Runner, job_index: JobIndex) -> None:
        self._runner, self._job_index = runner, job_index
        self._observed: dict[str, _Observed] = {}
        self._requested = asyncio.Event()
        self.on_change: Callable[[str, str, str], None] | None = None
        """Function that is called with the id and owner of each job whose activity has changed, and the activity."""
        self.has_readers: Callable[[], bool] = lambda: False
        """Return whether somebody follows the changes."""

    async def of(self, attempt: AttemptName, owner: str) -> str | None:
        """Return what a running attempt does now; None if it has reported nothing. owner: of its job."""
        now = asyncio.get_running_loop().time()
        observed = self._observed.pop(attempt.job_id, None)
        if observed is None or observed.attempt != attempt:
            observed = _Observed(attempt, owner, await self._read(attempt), now)
        observed.requested_at = now
        self._observed[attempt.job_id] = observed  # at the end, as the one requested last
        if len(self._observed) > MOST_JOBS:
            del self._observed[next(iter(self._observed))]
        self._requested.set()
        return observed.activity

    async def run(self) -> None:
        """Read the outputs again until cancelled."""
        while True:
            await self._requested.wait()
            while self._observed:
                await asyncio.sleep(REFRESH_SECONDS)
                try:
                    await self._refresh()
                except (RetryLater, apsw.Error) as error:  # the index is being filled again, or cannot be read
                    log.warning("activities not refreshed", reason=str(error))
            self._requested.clear()

    async def _refresh(self) -> None:
        oldest = asyncio.get_running_loop().time() - LINGER_SECONDS
        for job_id, observed in list(self._observed.items()):
            is_wanted = observed.requested_at >= oldest or self.has_readers()
            if not is_wanted or not self._job_index.is_running(job_id):
                if self._observed.get(job_id) is observed:
                    del self._observed[job_id]
                continue
            activity = await self._read(observed.attempt)
            if activity is not None and activity != observed.activity:
                observed.activity = activity
                if self.on_change:
                    self.on_change(job_id, observed.owner, activity)

    async def _read(self, attempt: AttemptName) -> str | None:
        try:
            return await self._runner.activity(attempt)
        except (LabratsError, OSError) as error:
            log.info("activity not read", attempt=str(attempt), reason=str(error))
            return None
