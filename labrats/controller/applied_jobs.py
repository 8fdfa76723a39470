"""Jobs that people wrote as resources: each is given, once, what a submitted one has from the beginning."""

from contextlib import suppress
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from labrats.files.uploads import Uploads
from labrats.index.catalog import Catalog
from labrats.intake.admission import Admission, PreparedJob
from labrats.intake.callback_urls import judge_callback_url
from labrats.intake.job_parts import complete
from labrats.intake.repositories import judged_repo
from labrats.intake.request import JobRequest, agent_named
from labrats.model.agent import AiAgent
from labrats.model.core_resources import INSTRUCTIONS_KEY, PROMPT_KEY, ConfigMap, Secret, problem_of_credentials
from labrats.model.errors import Invalid, NotFound, Problem, RetryLater
from labrats.model.git_repo import FIELD as GIT_REPO_FIELD
from labrats.model.job import METADATA_BYTES, PROMPT_BYTES, Job, KeyReference
from labrats.model.record import Metadata, encode
from labrats.ports import Clock, Store
from labrats.settings import EngineSettings

NEW_FOR: Final = timedelta(seconds=10)
"""For how long what a new job is made by may yet appear: what is applied together comes in any order."""

INLINE_PROMPT_BYTES: Final = 64 * 1024
"""A longer prompt than this goes to its executor as a ConfigMap: the annotations of a pod have 256 KiB in all."""


class AppliedJobs:
    """Resolves the settings and writes the instructions of jobs that did not come by way of intake, by intake's code.

    The spec of a job never changes, so what is found is kept in its status.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        intake: Admission,
        uploads: Uploads,
        clock: Clock,
        settings: EngineSettings,
    ) -> None:
        self._store, self._catalog, self._intake, self._uploads = store, catalog, intake, uploads
        self._clock, self._settings = clock, settings

    async def resolve(self, job: Job) -> Job:
        """`job` with its settings and texts, as it is now stored.

        Raises Invalid when it makes no sense; RetryLater, also while what it is made by may still appear; Conflict and
        NotFound when somebody else was quicker.
        """
        await self._catalog.synced.wait()
        await self._judge(job)
        prepared = self._intake.prepare(_request(job, self._agent_of(job)))
        texts = _texts(job, prepared)
        refs = {key: KeyReference(name=texts.name, key=key) if key in texts.data else None for key in _TEXT_KEYS}
        if texts.data:
            await complete(self._store, job, [texts])
        status = replace(
            job.status,
            resolved=prepared.resolved,
            prompt_ref=refs[PROMPT_KEY],
            instructions_ref=refs[INSTRUCTIONS_KEY],
        )
        return await self._store.update(replace(job, status=status))

    def _agent_of(self, job: Job) -> AiAgent | None:
        """Whose instructions and defaults it gets. Raises Invalid, or RetryLater while it may still appear."""
        if job.spec.agent_role is None:
            return None
        is_new = self._clock.now() - job.created_at < NEW_FOR
        try:
            agent = agent_named(job.spec.agent_role, self._catalog)
        except Invalid as error:
            if is_new:
                raise RetryLater(f"not yet: {error}") from error
            raise
        if is_new and (missing := self._catalog.missing_instructions(agent)):
            raise RetryLater(
                f"the agent {agent.name!r} names instructions that there are not yet: {', '.join(missing)}"
            )
        return agent

    async def _judge(self, job: Job) -> None:
        """Raises Invalid for what the API would not have taken, though the schema of the resource allows it."""
        spec = job.spec
        if len((spec.prompt or "").encode()) > PROMPT_BYTES:
            raise Invalid(Problem("prompt", "must be at most 900 KiB"))
        if len(encode(spec.metadata)) > METADATA_BYTES:
            raise Invalid(Problem("metadata", "must be at most 64 KiB"))
        if spec.workspace_setup:
            await self._judge_repo(spec.workspace_setup.git_repo)
            await self._judge_credentials(job, "credentialsRef", spec.workspace_setup.credentials_ref)
            await self._judge_credentials(job, "tokenFrom", spec.workspace_setup.token_from)
        if spec.callback_url is not None:
            await judge_callback_url(spec.callback_url, self._settings)
        for number, each in enumerate(spec.workspace_uploads):
            await self._judge_upload(each.id, each.name, f"workspaceUploads[{number}]")

    async def _judge_repo(self, address: str) -> None:
        if (await judged_repo(address, GIT_REPO_FIELD, self._settings)).has_credential:
            message = "must not carry a credential: put it into a Secret, and name that in credentialsRef"
            raise Invalid(Problem(GIT_REPO_FIELD, message))

    async def _judge_credentials(self, job: Job, field: str, name: str | None) -> None:
        """Raises Invalid for a Secret that is not for jobs. A missing one may still be applied."""
        with suppress(NotFound):
            secret = await self._store.get(Secret, name) if name else None
            labelled_only = self._settings.labelled_credentials
            if secret and (problem := problem_of_credentials(secret, job.metadata.uid, labelled_only=labelled_only)):
                raise Invalid(Problem(f"workspaceSetup.{field}", problem))

    async def _judge_upload(self, upload_id: str, name: str, field: str) -> None:
        try:
            upload = await self._uploads.get(upload_id)
        except NotFound as error:
            raise Invalid(Problem(field, str(error))) from error
        if upload.name != name:
            raise Invalid(Problem(field, f"the upload {upload_id} has no file {name!r}"))


_TEXT_KEYS: Final = (PROMPT_KEY, INSTRUCTIONS_KEY)


def _request(job: Job, agent: AiAgent | None) -> JobRequest:
    """What its settings and texts are made of."""
    spec = job.spec
    return JobRequest(
        source=spec.source,
        type=spec.type,
        owner=spec.owner,
        prompt=spec.prompt or "",
        agent=agent,
        config=spec.config,
        metadata=spec.metadata,
    )


def _texts(job: Job, prepared: PreparedJob) -> ConfigMap:
    """The texts that are not in its spec, or are too long there.

    Named so that those of an earlier job of its name are not taken for them.
    """
    data = {}
    if len((job.spec.prompt or "").encode()) > INLINE_PROMPT_BYTES:
        data[PROMPT_KEY] = prepared.texts.prompt
    if prepared.texts.instructions is not None:
        data[INSTRUCTIONS_KEY] = prepared.texts.instructions
    return ConfigMap(metadata=Metadata(name=f"{job.id}-{job.metadata.uid[:8]}-texts"), data=data)
