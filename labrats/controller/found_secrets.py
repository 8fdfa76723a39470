"""Redact the stored texts of a job after GitHub has found secrets in its commits."""

import asyncio
from contextlib import suppress
from functools import partial

import structlog
from msgspec.structs import replace

from labrats.model.attempt_name import AttemptName
from labrats.model.errors import NotFound, RetryLater
from labrats.model.found_secrets import SecretDigest
from labrats.model.job import Job, without_secrets
from labrats.model.redaction import Redactor
from labrats.ports import Changed, Runner, Store, compare_and_set
from labrats.work_queue import WorkQueue, work_forever

log = structlog.get_logger()


class FoundSecrets:
    """Redacts jobs with found secrets. Only one may run at a time."""

    def __init__(self, store: Store, runner: Runner) -> None:
        self._store, self._runner = store, runner
        self._work = WorkQueue()

    async def run(self) -> None:
        """Redact until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch(), name="watch-found-secrets")
            loops.create_task(work_forever(self._work, self._redact), name="redact-found-secrets")

    async def _watch(self) -> None:
        async for change in self._store.watch(Job, unsettled_only=True):
            if isinstance(change, Changed) and change.resource.unredacted:
                self._work.add(change.resource.id)

    async def _redact(self, job_id: str) -> None:
        """Redact the output of all attempts, and then the status. Raises RetryLater."""
        with suppress(NotFound):  # the job was deleted
            job = await self._store.get(Job, job_id)
            if not (found := job.unredacted):
                return
            redactor = Redactor(digests=found)
            for number in range(1, job.status.attempts + 1):
                try:
                    await self._runner.redact(AttemptName(job_id, number), redactor)
                except OSError as error:
                    raise RetryLater(f"the output cannot be redacted: {error.strerror}", delay_seconds=30) from error
            change = partial(_redacted, redactor=redactor, found=found)
            await compare_and_set(self._store, lambda: self._store.get(Job, job_id), change)
            log.info("job redacted", job=job_id, secrets=len(found))


def _redacted(job: Job, redactor: Redactor, found: tuple[SecretDigest, ...]) -> Job:
    if not job.ended:  # it was retried, and is redacted again at its end
        return job
    hashes = dict.fromkeys((*job.status.redacted, *(digest.sha256 for digest in found)))
    redacted = without_secrets(job, redactor)
    return replace(redacted, status=replace(redacted.status, redacted=tuple(hashes)))
