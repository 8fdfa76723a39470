"""Immediate starts: a new job that need not wait is stored as started, which saves the write of a waiting job.

Only where the controller runs in the same process as the API. On a cluster they are apart.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from labrats.model.job import Job


class NewJobStarter(Protocol):
    """The part of a controller that decides whether a new job starts at once."""

    def start_new(self, job: Job) -> Job | None:
        """Return the job as started, and hold a slot for it; None if it must wait."""
        ...

    def forget_new(self, job: Job) -> None:
        """Release the slot of a job that `start_new` has started, but that could not be stored."""
        ...


class ImmediateStarts:
    """Connects the creation of jobs with the running controller, if there is one."""

    def __init__(self) -> None:
        self._starter: NewJobStarter | None = None

    @contextmanager
    def decided_by(self, starter: NewJobStarter) -> Iterator[None]:
        """Let `starter` decide within the block."""
        self._starter = starter
        try:
            yield
        finally:
            self._starter = None

    @contextmanager
    def creation(self, job: Job) -> Iterator[Job]:
        """Yield the job as it must be stored within the block, without a pause before that: started, or unchanged."""
        starter = self._starter
        if starter is None or (started := starter.start_new(job)) is None:
            yield job
            return
        try:
            yield started
        except Exception:  # but no cancellation: the job may still be stored, and is then observed
            starter.forget_new(job)
            raise
