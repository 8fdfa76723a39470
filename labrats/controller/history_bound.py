"""The bound on the jobs that a cluster stores: a full etcd makes the whole cluster read-only."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from labrats.metrics import Metrics

log = structlog.get_logger()

NEAR: Final = 0.8
"""Share of the bound from which the engine warns."""

REDUCED_TO: Final = 0.9
"""Share of the bound to which the jobs are reduced, so that not each pass deletes some."""


@dataclass(frozen=True)
class HistoryBound:
    """The bound, in bytes. measure: returns the bytes of all stored jobs."""

    measure: Callable[[], Awaitable[int]]
    most_bytes: int
    metrics: Metrics

    async def excess(self, jobs: int) -> int:
        """Return how many of so many jobs are too many. Report how near the bound is."""
        stored = await self.measure()
        self.metrics.history_bytes.set(stored)
        self.metrics.degraded.labels("history").set(stored > NEAR * self.most_bytes)
        if stored <= NEAR * self.most_bytes:
            return 0
        excess = math.ceil(jobs * (1 - REDUCED_TO * self.most_bytes / stored)) if stored > self.most_bytes else 0
        advice = "shorten LABRATS_JOB_RETENTION_DAYS, or raise LABRATS_HISTORY_MIB if etcd has room"
        log.warning("history near its bound", bytes=stored, bound=self.most_bytes, deleted_jobs=excess, advice=advice)
        return excess
