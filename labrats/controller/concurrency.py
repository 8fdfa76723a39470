"""The live jobs of each concurrency key: which one may run next, and which are superseded by a newer one. No I/O."""

from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import datetime

from labrats.model.concurrency import OnNew
from labrats.model.job import Job
from labrats.model.phases import Phase

Key = tuple[str, bool, str]
"""The owner of jobs, whether they are untrusted, and their key.

Owners do not share keys, so none can cancel the jobs of another. Nor can external contributors cancel those of members.
"""

Place = tuple[datetime, str]
"""The creation and the id of a job. The newest job of a key has the highest place."""


@dataclass
class _JobsOfKey:
    """The places of the live jobs of one key, in order, and the ids of those that hold a slot.

    replacing:   those that supersede older jobs which wait.   superseding: those that supersede also running ones.
    """

    live: list[Place] = field(default_factory=list)
    replacing: list[Place] = field(default_factory=list)
    superseding: list[Place] = field(default_factory=list)
    holders: set[str] = field(default_factory=set)


class ConcurrencyKeys:
    """The jobs of each key. Jobs without a key are ignored."""

    def __init__(self) -> None:
        self._keys: dict[Key, _JobsOfKey] = {}

    def add(self, job: Job) -> list[str]:
        """Add a live job. Return the ids of the older jobs that it may supersede."""
        if (concurrency := job.spec.concurrency) is None:
            return []
        jobs, place = self._keys.setdefault(_key(job), _JobsOfKey()), _place(job)
        _insert(jobs.live, place)
        if concurrency.on_new is OnNew.QUEUE:
            return []
        _insert(jobs.replacing, place)
        if concurrency.on_new is OnNew.SUPERSEDE:
            _insert(jobs.superseding, place)
        return [job_id for _, job_id in jobs.live[: bisect_left(jobs.live, place)]]

    def discard(self, job: Job) -> None:
        """Remove a job that is not live any more. It still blocks its key while it holds a slot."""
        if jobs := self._jobs(job):
            for places in (jobs.live, jobs.replacing, jobs.superseding):
                _remove(places, _place(job))
            self._remove_unused(job, jobs)

    def hold(self, job: Job) -> None:
        """Block the key for other jobs, because a slot is allocated to this one."""
        if job.spec.concurrency:
            self._keys.setdefault(_key(job), _JobsOfKey()).holders.add(job.id)

    def release(self, job: Job) -> None:
        if jobs := self._jobs(job):
            jobs.holders.discard(job.id)
            self._remove_unused(job, jobs)

    def is_free_for(self, job: Job) -> bool:
        """Return whether the key lets the job run: it is the oldest, no other holds a slot, and none supersedes it."""
        if (jobs := self._jobs(job)) is None:
            return True
        is_oldest = bool(jobs.live) and jobs.live[0] == _place(job)
        return is_oldest and jobs.holders <= {job.id} and self.superseder(job) is None

    def oldest(self, job: Job) -> str | None:
        """Return the id of the oldest live job of the key of `job`; None without a key or such a job."""
        jobs = self._jobs(job)
        return jobs.live[0][1] if jobs and jobs.live else None

    def superseder(self, job: Job) -> str | None:
        """Return the id of the newest job that supersedes this one; None if there is none."""
        if (jobs := self._jobs(job)) is None:
            return None
        newer = jobs.superseding if job.phase is Phase.RUNNING else jobs.replacing
        return newer[-1][1] if newer and newer[-1] > _place(job) else None

    def _jobs(self, job: Job) -> _JobsOfKey | None:
        return self._keys.get(_key(job)) if job.spec.concurrency else None

    def _remove_unused(self, job: Job, jobs: _JobsOfKey) -> None:
        if not jobs.live and not jobs.holders:
            del self._keys[_key(job)]


def _key(job: Job) -> Key:
    assert job.spec.concurrency is not None, "only jobs with a key are added"
    return job.spec.owner, job.spec.untrusted, job.spec.concurrency.key


def _place(job: Job) -> Place:
    return job.created_at, job.id


def _insert(places: list[Place], place: Place) -> None:
    index = bisect_left(places, place)
    if places[index : index + 1] != [place]:
        places.insert(index, place)


def _remove(places: list[Place], place: Place) -> None:
    index = bisect_left(places, place)
    if places[index : index + 1] == [place]:
        del places[index]
