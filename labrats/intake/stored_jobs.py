"""Read stored jobs, and the parts that a later job gets of one: texts, conversation, files, repository, credential."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.intake.applied import check_credentials
from labrats.intake.request import Texts
from labrats.model.conversation import Conversation, decode_conversation
from labrats.model.core_resources import ConfigMap, Secret, problem_of_credentials
from labrats.model.errors import IllegalMove, NotFound
from labrats.model.git_repo import GitRepo
from labrats.model.job import Job, KeyReference
from labrats.ports import Clock, Store

_JOBS_AT_ONCE: Final = 10


async def existing_jobs(store: Store, job_ids: Sequence[str]) -> AsyncGenerator[Job]:
    """Yield the existing jobs among those with the ids, in that order.

    A few are in memory at a time, as one with all its fields may take some MiB: keep only what is needed.
    """
    for start in range(0, len(job_ids), _JOBS_AT_ONCE):
        for job in await store.get_many(Job, job_ids[start : start + _JOBS_AT_ONCE]):
            yield job
        await asyncio.sleep(0)  # on a cluster, this reads a local copy, and waits for nothing


@dataclass(frozen=True)
class StoredJobs:
    """Reads the parts of stored jobs.

    uploads:       the volume with the files of jobs.
    labelled_only: true if a Secret must be labelled for jobs.
    has_receivers: true if other processes, which face the internet, create the jobs of deliveries.
    """

    store: Store
    uploads: Path
    clock: Clock
    labelled_only: bool
    has_receivers: bool = False

    def has_accepted(self, job: Job) -> bool:
        """Return whether the engine has accepted the settings of the job, and what else it asks for."""
        return job.is_resolved or (job.is_unchecked and not self.has_receivers)

    async def texts_of(self, job: Job) -> Texts:
        """Return the job's texts. Raises NotFound if they are not stored any more."""
        prompt = job.spec.prompt if job.prompt_ref is None else await self._text(job.prompt_ref)
        instructions = await self._text(job.instructions_ref) if job.instructions_ref else None
        return Texts(prompt or "", instructions or None)

    async def conversation_of(self, job: Job) -> Conversation:
        """Return the conversation that the job continued; an empty one if it started it, or if it was deleted."""
        if (reference := job.spec.conversation_ref) is None:
            return ()
        try:
            return decode_conversation(await self._text(reference))
        except NotFound:
            return ()

    async def _text(self, reference: KeyReference) -> str:
        return (await self.store.get(ConfigMap, reference.name)).data.get(reference.key, "")

    async def files_of(self, job: Job) -> Sequence[tuple[str, Path]]:
        """Return the name and the path of each file of the job. Raises IllegalMove if one is missing."""
        files = [(file.name, self.uploads / file.path) for file in job.spec.files]
        if missing := await asyncio.to_thread(lambda: [name for name, path in files if not path.is_file()]):
            raise IllegalMove(f"the job's file {missing[0]!r} was deleted; submit the job again")
        return files

    async def repo_of(self, job: Job) -> GitRepo | None:
        """Return the job's repository with its credential, unless each attempt gets a token.

        Raises NotFound if the credential does not exist or is not the job's to use. A job applied with kubectl may name
        any Secret, and may have been refused because of that: a later job must not get a copy.
        """
        if (setup := job.spec.workspace_setup) is None:
            return None
        if setup.credentials_ref is None or setup.token_from:
            return GitRepo(setup.git_repo)
        if not self.has_accepted(job):
            raise NotFound("the job was refused before its credential was checked")
        secret = await self.store.get(Secret, setup.credentials_ref)
        if problem := problem_of_credentials(secret, job.metadata.uid, labelled_only=self.labelled_only):
            raise NotFound(problem)
        credential = secret.data
        return GitRepo(setup.git_repo, username=credential.get("username", ""), password=credential.get("password", ""))

    async def check_credentials(self, job: Job) -> None:
        """Raise Invalid if a job applied with kubectl may no longer have the Secrets that it names."""
        await check_credentials(job, None, self.store, labelled_only=self.labelled_only)
