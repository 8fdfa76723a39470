"""The items of job lists, as JSON."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec import Raw, json

from labrats.api.activities import Activities
from labrats.api.schemas.job import job_item
from labrats.index.jobs import IndexedJob
from labrats.intake.stored_jobs import existing_jobs
from labrats.model.attempt_name import AttemptName
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.record import encode
from labrats.ports import Store

CACHED_ITEMS: Final = 1_000
CACHED_BYTES: Final = 4_096
"""Maximum size of an item that is cached."""


_NO_ACTIVITY: Final = b'"activity":null}'
"""The end of each item without its activity, which changes more often than the job."""


class _Item(NamedTuple):
    """An item. running: the attempt that runs."""

    json: Raw
    owner: str
    running: AttemptName | None


class JobItems:
    """The items of jobs. Those requested last are cached: dashboards request the same jobs again and again."""

    def __init__(self, store: Store, activities: Activities) -> None:
        self._store, self._activities = store, activities
        self._cached: OrderedDict[tuple[IndexedJob, bool], _Item] = OrderedDict()

    async def of(self, jobs: Sequence[IndexedJob], *, with_result: bool) -> list[Raw]:
        """Return the items in the same order, without jobs that were deleted meanwhile."""
        items = await self._items(jobs, with_result=with_result)
        return [await self._with_activity(item) for item in items]

    async def _with_activity(self, item: _Item) -> Raw:
        if item.running is None or (activity := await self._activities.of(item.running, item.owner)) is None:
            return item.json
        return Raw(bytes(item.json).removesuffix(_NO_ACTIVITY) + b'"activity":' + json.encode(activity) + b"}")

    async def _items(self, jobs: Sequence[IndexedJob], *, with_result: bool) -> list[_Item]:
        found = {job.id: item for job in jobs if (item := self._from_cache(job, with_result))}
        missing = [job.id for job in jobs if job.id not in found]
        async for job in existing_jobs(self._store, missing):
            found[job.id] = self._encoded(job, with_result)
        return [found[job.id] for job in jobs if job.id in found]

    def _from_cache(self, job: IndexedJob, with_result: bool) -> _Item | None:
        if item := self._cached.get((job, with_result)):
            self._cached.move_to_end((job, with_result))
        return item

    def _encoded(self, job: Job, with_result: bool) -> _Item:
        fields = job_item(job)
        if not with_result:
            del fields["result"]
        running = job.attempt_name if job.phase is Phase.RUNNING else None
        item = _Item(Raw(encode(fields)), job.spec.owner, running)
        if len(bytes(item.json)) <= CACHED_BYTES:
            self._cached[IndexedJob(job.id, job.metadata.resource_version or ""), with_result] = item
            if len(self._cached) > CACHED_ITEMS:
                self._cached.popitem(last=False)
        return item
