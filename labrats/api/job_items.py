"""The items of job lists, as JSON."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from msgspec import Raw

from labrats.api.schemas.job import job_item
from labrats.index.jobs import IndexedJob
from labrats.model.job import Job
from labrats.model.record import encode
from labrats.ports import Store

CACHED_ITEMS: Final = 1_000
CACHED_BYTES: Final = 4_096
"""Maximum size of an item that is cached."""


class JobItems:
    """The items of jobs. Those requested last are cached: dashboards request the same jobs again and again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached: OrderedDict[tuple[IndexedJob, bool], Raw] = OrderedDict()

    async def of(self, jobs: Sequence[IndexedJob], *, with_result: bool) -> list[Raw]:
        """Return the items in the same order, without jobs that were deleted meanwhile."""
        found = {job.id: item for job in jobs if (item := self._from_cache(job, with_result))}
        missing = [job.id for job in jobs if job.id not in found]
        for job in await self._store.get_many(Job, missing) if missing else ():
            found[job.id] = self._encoded(job, with_result)
        return [found[job.id] for job in jobs if job.id in found]

    def _from_cache(self, job: IndexedJob, with_result: bool) -> Raw | None:
        if item := self._cached.get((job, with_result)):
            self._cached.move_to_end((job, with_result))
        return item

    def _encoded(self, job: Job, with_result: bool) -> Raw:
        fields = job_item(job)
        if not with_result:
            del fields["result"]
        item = Raw(encode(fields))
        if len(bytes(item)) <= CACHED_BYTES:
            self._cached[IndexedJob(job.id, job.metadata.resource_version or ""), with_result] = item
            if len(self._cached) > CACHED_ITEMS:
                self._cached.popitem(last=False)
        return item
