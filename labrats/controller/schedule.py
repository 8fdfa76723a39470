"""The schedule of jobs: which jobs are queued, which hold slots, and which need work. No I/O."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from labrats.controller.concurrency import ConcurrencyKeys
from labrats.controller.queue import JobQueue, SlotHolders
from labrats.model.ai_model import AiModel, ai_models_in_use, slots_for
from labrats.model.job import Job, without_large_fields
from labrats.model.phases import Phase
from labrats.model.queue_order import Group, group_of, rank_of


@dataclass(frozen=True)
class Reconcile:
    """Reconcile the job now."""

    job_id: str


@dataclass(frozen=True)
class ReconcileLater:
    """Reconcile the job after a delay. Replaces the job's earlier timer."""

    job_id: str
    delay_seconds: float


@dataclass(frozen=True)
class CancelTimer:
    """Cancel the job's timer, if it has one."""

    job_id: str


@dataclass(frozen=True)
class AllocateLater:
    """End the pause of a group after a delay."""

    group: Group
    delay_seconds: float


Work = Reconcile | ReconcileLater | CancelTimer | AllocateLater


class JobSchedule:
    """The live jobs, and the queue, slots and pause of each group, all derived from observed jobs and AiModels.

    A method that changes the schedule returns the work that follows from the change, in order.
    """

    def __init__(self, default_slots: int, aging_seconds: float) -> None:
        """default_slots: for a provider and model without an AiModel. aging_seconds: see `rank_of`."""
        self._default_slots, self._aging_seconds = default_slots, aging_seconds
        self._ai_models: dict[Group, AiModel] = {}
        self._jobs: dict[str, Job] = {}
        self._abandoned: dict[str, Job] = {}
        self._successors: dict[str, Job] = {}
        self._moving: set[str] = set()
        self._queue = JobQueue()
        self._slots = SlotHolders()
        self._keys = ConcurrencyKeys()
        self._pauses: dict[Group, datetime] = {}
        self._new: dict[str, Job] = {}  # jobs that are being stored, until they are observed
        self._all_jobs_known = False
        self._is_paused = False

    # State

    @property
    def ai_models(self) -> Mapping[Group, AiModel]:
        """The AiModel in use for each group that has one."""
        return self._ai_models

    def job(self, job_id: str) -> Job | None:
        """Return the live job with that id; a Pending one without its large fields, so that it must not be stored."""
        return self._jobs.get(job_id)

    def abandoned(self, job_id: str) -> Job | None:
        """Return the abandoned job with that id: deleted, or moved by another writer, while its attempt may still run.

        The job holds its slot until `finish_abandoned`.
        """
        return self._abandoned.get(job_id)

    def successor(self, job_id: str) -> Job | None:
        """Return the job that has taken the id of an abandoned one. `finish_abandoned` makes it live."""
        return self._successors.get(job_id)

    def holds_slot(self, job: Job) -> bool:
        """Return whether a slot is allocated to the job."""
        return job.id in self._slots

    def is_waiting(self, job: Job) -> bool:
        """Return whether the job can start as soon as a slot is allocated to it."""
        return job.phase is Phase.PENDING and job.is_resolved and job.id not in self._slots

    def superseder(self, job: Job) -> str | None:
        """Return the id of the newest job of the same concurrency key for which the job must be cancelled."""
        return self._keys.superseder(job)

    def is_over_allocated(self, job: Job) -> bool:
        """Return whether more slots of the job's model are allocated than it has, because it has lost some."""
        return self._slots.used(group_of(job)) > self._slot_count(group_of(job))

    def slot_name(self, job: Job) -> str:
        """Return the name of the AiModel whose slots the job competes for, or `provider/model` without one."""
        return slots_for(job, self._ai_models, self._default_slots).name

    # Observations

    def observe_ai_models(self, ai_models: Iterable[AiModel], now: datetime) -> list[Work]:
        """Take note of all AiModels that exist."""
        self._ai_models = ai_models_in_use(ai_models)
        return self.allocate(self._queue.groups(), now)

    def observe_pause(self, is_paused: bool, now: datetime) -> list[Work]:
        """Take note that an administrator has paused the engine, or that no pause is left.

        Jobs that have a slot and no attempt yet release it. Attempts that run keep theirs.
        """
        if is_paused == self._is_paused:
            return []
        self._is_paused = is_paused
        if not is_paused:
            return self.allocate(self._queue.groups(), now)
        about_to_start = [job for job in self._jobs.values() if job.phase is Phase.PENDING and self.holds_slot(job)]
        return [work for job in about_to_start for work in self.enqueue(job, now)]

    def observe_synced(self, now: datetime) -> list[Work]:
        """Take note that every existing job has been observed. Before that an unknown job may hold any slot."""
        self._all_jobs_known = True
        return self.allocate(self._queue.groups(), now)

    def place_new(self, job: Job, now: datetime) -> bool:
        """Hold a slot for a job that is about to be stored, if one is free and no other job of its group waits for it.

        Return whether that is so. If the job is not stored, `forget_new` must follow.
        """
        if job.id in self._new or job.id in self._slots or job.id in self._jobs:
            return False  # its name is taken
        group = group_of(job)
        can_start = (
            self._all_jobs_known
            and job.spec.concurrency is None
            and job.not_before is None
            and self._has_free_slot(group, now)
            and self._queue.is_empty(group)
            and all(group_of(other) != group or other.id in self._slots for other in self._new.values())
        )
        self._new[job.id] = job
        if can_start:
            self._hold_slot(job)
        return can_start

    def forget_new(self, job: Job, now: datetime) -> list[Work]:
        """Release the slot of a job that was not stored, if it has one, and allocate it to another."""
        if self._new.get(job.id) is not job:
            return []  # it is another one of this id, which is being stored
        del self._new[job.id]
        freed = self._release_slot(job)
        return self.allocate([freed] if freed else [], now)

    def observe(self, job: Job, now: datetime) -> list[Work]:
        """Take note of a created or updated job, unless a newer version of it is known."""
        self._new.pop(job.id, None)
        if job.id in self._abandoned:
            self._successors[job.id] = job
            return []
        known = self._jobs.get(job.id)
        if known and int(known.metadata.resource_version) >= int(job.metadata.resource_version):
            return []
        if known and self._abandons_attempt(known, job):
            self._abandoned[job.id], self._successors[job.id] = self._jobs.pop(job.id), job
            self._keys.discard(known)
            return [Reconcile(job.id)]
        if job.ended:
            return self._forget(job, now)
        # Very many may wait.
        self._jobs[job.id] = without_large_fields(job) if job.phase is Phase.PENDING else job
        work: list[Work] = []
        if (known is None or known.is_unchecked) and not job.is_unchecked:
            work += [Reconcile(older) for older in self._keys.add(job)]
        if job.phase is Phase.RUNNING:
            self._queue.discard(job.id)
            self._hold_slot(job)
            return [*work, Reconcile(job.id)]
        if not job.is_resolved:
            return [*work, Reconcile(job.id)]
        if known is None or known.phase is Phase.RUNNING or not known.is_resolved:
            work += self.enqueue(job, now)
        return work

    def observe_deletion(self, job: Job, now: datetime) -> list[Work]:
        """Take note of a deleted job. It holds its slot while its attempt may still run."""
        self._successors.pop(job.id, None)
        known = self._jobs.get(job.id)
        new = self._new.get(job.id)
        if known is None and new and (job.phase is Phase.RUNNING or job.id not in self._slots):
            return self.forget_new(new, now)
        if known is None or known.metadata.uid != job.metadata.uid:
            return []
        if known.phase is not Phase.RUNNING:
            return self._forget(known, now)
        self._abandoned[job.id] = self._jobs.pop(job.id)
        self._keys.discard(known)
        return [Reconcile(job.id)]

    def finish_abandoned(self, job: Job, now: datetime) -> list[Work]:
        """Release the slot of an abandoned job once its attempt has ended, and observe its successor."""
        del self._abandoned[job.id]
        work = self._forget(job, now)
        if successor := self._successors.pop(job.id, None):
            work += self.observe(successor, now)
        return work

    @contextmanager
    def moving(self, job: Job) -> Iterator[None]:
        """Treat changes of the job within the block as the engine's own moves, which abandon no attempt."""
        self._moving.add(job.id)
        try:
            yield
        finally:
            self._moving.discard(job.id)

    # Queue and slots

    def ensure_queued(self, job: Job, now: datetime) -> list[Work]:
        """Queue a waiting job, unless it is queued already."""
        return [] if job.id in self._queue else self.enqueue(job, now)

    def enqueue(self, job: Job, now: datetime) -> list[Work]:
        """Release the slot of a Pending job, if it holds one, and queue the job from its `starts_after` on.

        A job that must wait for others of its concurrency key is queued when the key is free for it.
        """
        group = group_of(job)
        work: list[Work] = [Reconcile(job.id)] if self._keys.superseder(job) else []
        self._release_slot(job)
        if job.paused_until:
            work += self._pause(group, job.paused_until, now)
        if (wait := _seconds_until(job.starts_after, now)) > 0:
            work.append(ReconcileLater(job.id, wait))
        else:
            if self._keys.is_free_for(job):
                self._queue.put(job.id, group, rank_of(job, self._aging_seconds))
            if job.status.deadline_at:
                work.append(ReconcileLater(job.id, _seconds_until(job.status.deadline_at, now)))
        return work + self._queue_next_of_key(job, now) + self.allocate([group], now)

    def allocate(self, groups: Iterable[Group], now: datetime) -> list[Work]:
        """Allocate each free slot of the groups to the next job in their queues."""
        work: list[Work] = []
        if not self._all_jobs_known:
            return work
        for group in groups:
            while (job := self._next_job(group, now)) is not None:
                self._hold_slot(job)
                work.append(Reconcile(job.id))
        return work

    def end_pause(self, group: Group, now: datetime) -> list[Work]:
        """Allocate the free slots of a group whose pause should be over. A timer may fire early, and clocks are set."""
        if (wait := _seconds_until(self._pauses.get(group), now)) > 0:
            return [AllocateLater(group, wait)]
        return self.allocate([group], now)

    def _abandons_attempt(self, known: Job, job: Job) -> bool:
        """Return whether another writer, such as kubectl, has moved a Running job away from its attempt."""
        is_same = job.phase is Phase.RUNNING and job.attempt_name == known.attempt_name
        return known.phase is Phase.RUNNING and not is_same and job.id not in self._moving

    def _forget(self, job: Job, now: datetime) -> list[Work]:
        """Remove a job that has ended or was deleted, and allocate its slot to another."""
        self._jobs.pop(job.id, None)
        self._queue.discard(job.id)
        self._keys.discard(job)
        freed = self._release_slot(job)
        queued = self._queue_next_of_key(job, now)
        return [CancelTimer(job.id), *queued, *self.allocate([freed] if freed else [], now)]

    def _queue_next_of_key(self, job: Job, now: datetime) -> list[Work]:
        """Queue the oldest job of the concurrency key of `job`, unless it is `job` itself."""
        oldest = self._jobs.get(self._keys.oldest(job) or "")
        if oldest is None or oldest.id == job.id or not self.is_waiting(oldest):
            return []
        return self.ensure_queued(oldest, now)

    def _hold_slot(self, job: Job) -> None:
        self._slots.allocate(job.id, group_of(job))
        self._keys.hold(job)

    def _release_slot(self, job: Job) -> Group | None:
        """Release the slot of the job, and return its group; None if the job held no slot."""
        self._keys.release(job)
        return self._slots.release(job.id)

    def _pause(self, group: Group, until: datetime, now: datetime) -> list[Work]:
        """Start no job of the group before `until`. Pauses are derived from queued jobs, never stored."""
        if (wait := _seconds_until(until, now)) <= _seconds_until(self._pauses.get(group), now):
            return []
        self._pauses[group] = until
        return [AllocateLater(group, wait)]

    def _next_job(self, group: Group, now: datetime) -> Job | None:
        """Return the next job that may start. A job that an older one of its key has overtaken leaves the queue."""
        if not self._has_free_slot(group, now):
            return None
        while (job_id := self._queue.pop(group)) is not None:
            if self._keys.is_free_for(job := self._jobs[job_id]):
                return job
        return None

    def _has_free_slot(self, group: Group, now: datetime) -> bool:
        """Return whether another job of the group may start now."""
        is_paused = _seconds_until(self._pauses.get(group), now) > 0
        return not (is_paused or self._is_paused) and self._slots.used(group) < self._slot_count(group)

    def _slot_count(self, group: Group) -> int:
        ai_model = self._ai_models.get(group)
        return ai_model.spec.slots if ai_model else self._default_slots


def _seconds_until(time: datetime | None, now: datetime) -> float:
    return (time - now).total_seconds() if time else 0.0
