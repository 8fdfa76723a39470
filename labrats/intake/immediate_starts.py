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
        """Take note that a job could not be stored after `start_new`, and release its slot if it has one."""
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
        """Yield the job to store within the block: started with its first attempt, or unchanged if it must wait.

        The block must begin the write before it waits for anything else. If it is cancelled, the job may still be
        stored, so that its slot is held until the store reports the job.
        """
        if (starter := self._starter) is None:
            yield job
            return
        started = starter.start_new(job)
        try:
            yield started or job
        except Exception:
            starter.forget_new(job)
            raise
