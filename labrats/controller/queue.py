"""The queue of Pending jobs and the holders of slots, for each provider and model."""

from collections import defaultdict
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final

from labrats.model.queue_order import Group, Rank

_MOST_OUTDATED: Final = 100
"""Entries of removed jobs that stay in a queue in any case."""


@dataclass
class JobQueue:
    """Queued jobs by group, in order of rank. Removal is lazy: `pop` skips entries that are out of date."""

    _heaps: dict[Group, list[Rank]] = field(default_factory=lambda: defaultdict(list))
    _ranks: dict[str, tuple[Group, Rank]] = field(default_factory=dict)

    def put(self, job_id: str, group: Group, rank: Rank) -> None:
        self._ranks[job_id] = group, rank
        heap = self._heaps[group]
        if len(heap) > _MOST_OUTDATED + 2 * len(self._ranks):
            heap[:] = [each for each in heap if self._ranks.get(each[2]) == (group, each)]
            heapify(heap)
        heappush(heap, rank)

    def discard(self, job_id: str) -> None:
        self._ranks.pop(job_id, None)

    def pop(self, group: Group) -> str | None:
        """Remove and return the next job of the group; None if the queue is empty."""
        heap = self._heaps.get(group, [])
        while heap:
            rank = heappop(heap)
            job_id = rank[2]
            if self._ranks.get(job_id) == (group, rank):
                del self._ranks[job_id]
                return job_id
        self._heaps.pop(group, None)
        return None

    def is_empty(self, group: Group) -> bool:
        """Return whether no job of the group is queued."""
        return not any(self._ranks.get(rank[2]) == (group, rank) for rank in self._heaps.get(group, ()))

    def groups(self) -> list[Group]:
        """Return the groups in which jobs may be queued."""
        return list(self._heaps)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._ranks

    def __len__(self) -> int:
        return len(self._ranks)


@dataclass
class SlotHolders:
    """Holders of slots by group: Running jobs, and Pending jobs about to start. Derived from jobs, never stored."""

    _holders: dict[Group, set[str]] = field(default_factory=lambda: defaultdict(set))
    _groups: dict[str, Group] = field(default_factory=dict)

    def allocate(self, job_id: str, group: Group) -> None:
        self._groups[job_id] = group
        self._holders[group].add(job_id)

    def release(self, job_id: str) -> Group | None:
        """Release the slot of the job, and return its group; None if the job held no slot."""
        if (group := self._groups.pop(job_id, None)) is not None:
            self._holders[group].discard(job_id)
            if not self._holders[group]:
                del self._holders[group]
        return group

    def used(self, group: Group) -> int:
        return len(self._holders.get(group, ()))

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._groups
