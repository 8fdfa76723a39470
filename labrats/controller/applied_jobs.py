"""Admission of jobs that were applied with kubectl or come from deliveries, once their agent exists."""

from datetime import timedelta
from typing import Final

from labrats.index.catalog import Catalog
from labrats.intake.admission import Admission
from labrats.intake.validation import enabled_agent
from labrats.model.errors import GiveUp, Invalid, RetryLater
from labrats.model.job import FailedCode, Job
from labrats.ports import Clock

NEW_FOR: Final = timedelta(seconds=10)
"""Grace period for the agent and the instructions of a new job: resources applied together arrive in any order."""


class AppliedJobs:
    """Resolves jobs that were applied with kubectl or come from deliveries, as soon as their agents exist."""

    def __init__(self, catalog: Catalog, admission: Admission, clock: Clock) -> None:
        self._catalog, self._admission, self._clock = catalog, admission, clock

    async def resolve(self, job: Job) -> Job:
        """Return `job` as stored with its settings and texts.

        Raises Invalid; RetryLater, also while its agent or instructions may still appear; Conflict and NotFound when
        another writer has changed or deleted the job.
        """
        await self._catalog.synced.wait()
        is_new = self._clock.now() - job.created_at < NEW_FOR
        if job.is_unchecked:
            return await self._resolve_delivered(job, is_new=is_new)
        if job.spec.agent_role is not None and is_new:
            self._wait_for_agent(job.spec.agent_role)
        return await self._admission.admit_applied(job)

    async def _resolve_delivered(self, job: Job, *, is_new: bool) -> Job:
        """Resolve the job of a delivery. Its creator may have read a newer agent than this process."""
        try:
            return await self._admission.admit_delivered(job)
        except Invalid as error:
            if is_new:
                raise RetryLater(f"waiting for the agent of a delivery: {error}") from error
            raise

    async def check_credentials(self, job: Job) -> None:
        """Raise GiveUp before an attempt of a job that may not have its Secrets any more. Raises RetryLater."""
        try:
            await self._admission.check_applied_credentials(job)
        except Invalid as error:
            raise GiveUp(FailedCode.AUTH, str(error)) from error

    def _wait_for_agent(self, trigger_name: str) -> None:
        """Raise RetryLater while the agent or one of its instructions is missing."""
        try:
            agent = enabled_agent(trigger_name, self._catalog)
        except Invalid as error:
            raise RetryLater(f"waiting for the job's agent: {error}") from error
        if missing := self._catalog.missing_instructions(agent):
            raise RetryLater(f"waiting for instructions of the agent {agent.name!r}: {', '.join(missing)}")
