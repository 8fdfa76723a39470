"""Makes jobs of requests."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from labrats.files.attachments import Attachments
from labrats.index.catalog import Catalog
from labrats.intake.job_parts import complete, create_whole, is_whole
from labrats.intake.prompts import Texts, texts_of
from labrats.intake.request import JobNames, JobRequest
from labrats.intake.settings import settings_of
from labrats.intake.stored_events import event_part
from labrats.metrics import Metrics
from labrats.model.config import ResolvedConfig
from labrats.model.core_resources import EVENT_KEY, INSTRUCTIONS_KEY, JOB_CREDENTIALS, PROMPT_KEY, ConfigMap, Secret
from labrats.model.errors import Conflict, Invalid, NotFound, Problem, RetryLater
from labrats.model.git_repo import GitRepo
from labrats.model.image_name import problem_of_image
from labrats.model.job import Job, JobSpec, KeyReference, WorkspaceFile, WorkspaceSetup, retried
from labrats.model.mcp_server import problem_of_mcp_servers
from labrats.model.mock_script import parse_script
from labrats.model.phases import Phase
from labrats.model.record import Metadata, Resource
from labrats.ports import Store

log = structlog.get_logger()


@dataclass(frozen=True)
class PreparedJob:
    """A request that nothing but the store can refuse any more."""

    request: JobRequest
    resolved: ResolvedConfig
    texts: Texts


class Admission:
    """The one way by which anything becomes a job: prepared first, which may fail, and then created."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        attachments: Attachments,
        metrics: Metrics,
        executor_images: Collection[str] = (),
    ) -> None:
        """executor_images: those that a job may name; any where it is empty."""
        self._store, self._catalog, self._attachments, self._metrics = store, catalog, attachments, metrics
        self._executor_images = executor_images

    def prepare(self, request: JobRequest) -> PreparedJob:
        """Resolve its settings and write its texts, as the catalog is now. Raises Invalid."""
        resolved = settings_of(request, self._catalog)
        if problem := problem_of_mcp_servers(resolved.config.mcp_servers or {}):
            raise Invalid(Problem("config.mcpServers", problem))
        image = resolved.config.executor_image
        if image and (problem := problem_of_image(image, self._executor_images)):
            raise Invalid(Problem("config.executorImage", problem))
        if resolved.provider == "mock":
            parse_script(request.metadata)
        return PreparedJob(request, resolved, texts_of(request, self._catalog))

    async def find(self, names: JobNames) -> Job | None:
        """The job that was stored before under one of `names`, if it was stored whole."""
        job = await self._stored(names)
        return job if job and await is_whole(self._store, job) else None

    async def create(self, prepared: PreparedJob, names: JobNames) -> Job:
        """The job, stored under a free one of `names`, unless it was before. Raises Conflict, RetryLater.

        One that was stored before without all of its parts, since the storage broke off, gets the rest now.
        """
        for name in names.candidates:
            if job := await self._try_to_create(prepared, name, names):
                return job
        raise Conflict("no free name was found for the job; submit it again")

    async def create_all(self, all_prepared: Sequence[tuple[PreparedJob, JobNames]]) -> list[Job]:
        """All of them. Raises as `create`, and then there are none, but for what the same request may complete: others
        who came with it may have been told of that already.
        """
        created: list[tuple[Job, JobNames]] = []
        try:
            for prepared, names in all_prepared:
                created.append((await self.create(prepared, names), names))
        except (Conflict, RetryLater):
            await self._take_back_all([job for job, names in created if not names.are_found_again])
            raise
        return [job for job, _ in created]

    async def _take_back_all(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                await self._store.delete(Job, job.id)
            except NotFound:
                pass  # somebody else has deleted it
            except RetryLater as error:
                log.warning("a job of a request that failed goes on", job=job.id, reason=str(error))

    async def _try_to_create(self, prepared: PreparedJob, name: str, names: JobNames) -> Job | None:
        """The job, or None when `name` is taken by another one."""
        files = prepared.request.files
        kept = await self._attachments.save(name, files) if files else ()
        spec = _spec(prepared, name, kept)
        job = Job(metadata=Metadata(name=name, annotations=dict(names.annotations)), spec=spec)
        try:
            created = await create_whole(self._store, job, _parts(job, prepared))
        except Conflict:
            await self._attachments.remove(kept)
            holder = await self._find(name)
            return await self._completed(holder, prepared) if holder and names.made(holder) else None
        except RetryLater:
            await self._take_back(job, names)
            raise
        self._metrics.job_submitted(created)
        return created

    async def _stored(self, names: JobNames) -> Job | None:
        found = await self._store.get_many(Job, names.candidates)
        return next((job for job in found if names.made(job)), None)

    async def _find(self, name: str) -> Job | None:
        """The job of that name, by the storage itself: another engine may just have stored it."""
        try:
            return await self._store.get(Job, name)
        except NotFound:
            return None

    async def _completed(self, job: Job, prepared: PreparedJob) -> Job:
        if not await complete(self._store, job, _parts(job, prepared)):
            return job
        job = await self._store.get(Job, job.id)
        if job.phase is not Phase.FAILED:
            return job
        return await self._store.update(retried(job))  # it failed of that, and nobody was told yet that it is there

    async def _take_back(self, job: Job, names: JobNames) -> None:
        """Leave no trace of a job that could not be stored whole, as far as that can be told.

        What the same request may complete is left. Should it never be made again, the job fails without its prompt.
        """
        with suppress(RetryLater):
            stored = await self._find(job.id)
            if stored and stored.spec == job.spec:
                if names.are_found_again:
                    return
                with suppress(NotFound):
                    await self._store.delete(Job, job.id)
            await self._attachments.remove(job.spec.workspace_files)


def _spec(prepared: PreparedJob, job_id: str, files: tuple[WorkspaceFile, ...]) -> JobSpec:
    """The spec of the job `job_id`; its texts and the repository's credential lie in resources named after it."""
    asked, texts_name = prepared.request, f"{job_id}-prompt"
    has_instructions = prepared.texts.instructions is not None
    return JobSpec(
        source=asked.source,
        type=asked.type,
        agent_role=asked.agent.spec.trigger_name if asked.agent else None,
        prompt_ref=KeyReference(name=texts_name, key=PROMPT_KEY),
        instructions_ref=KeyReference(name=texts_name, key=INSTRUCTIONS_KEY) if has_instructions else None,
        priority=asked.priority,
        workspace_setup=_workspace_setup(asked, job_id, asked.repo) if asked.repo else None,
        workspace_files=files,
        pipeline=asked.pipeline,
        callback_url=asked.callback_url,
        event_ref=KeyReference(name=f"{job_id}-event", key=EVENT_KEY) if asked.event and asked.goes_on else None,
        chain=asked.chain,
        config=asked.config,
        resolved=prepared.resolved,
        metadata=asked.metadata,
        untrusted=asked.untrusted,
        owner=asked.owner,
        api_key_ref=asked.api_key_ref,
    )


def _workspace_setup(asked: JobRequest, job_id: str, repo: GitRepo) -> WorkspaceSetup:
    return WorkspaceSetup(
        git_repo=repo.url,
        git_ref=asked.git_ref,
        git_depth=asked.git_depth,
        credentials_ref=f"{job_id}-git" if repo.has_credential or asked.token_from else None,
        token_from=asked.token_from,
    )


def _parts(job: Job, prepared: PreparedJob) -> Sequence[Resource]:
    """What is stored with `job`: its texts, and the credential of its repository."""
    assert job.spec.prompt_ref is not None, "every job made here has one"
    texts = {PROMPT_KEY: prepared.texts.prompt}
    if job.spec.instructions_ref is not None:
        texts[INSTRUCTIONS_KEY] = prepared.texts.instructions or ""
    parts: list[Resource] = [ConfigMap(metadata=Metadata(name=job.spec.prompt_ref.name), data=texts)]
    if job.spec.event_ref and prepared.request.event:
        parts.append(event_part(job.spec.event_ref.name, prepared.request.event))
    setup, repo = job.spec.workspace_setup, prepared.request.repo
    if setup and setup.credentials_ref and repo and not setup.token_from:
        credential = {"username": repo.username, "password": repo.password}
        metadata = Metadata(name=setup.credentials_ref, labels=JOB_CREDENTIALS)
        parts.append(Secret(metadata=metadata, data=credential))
    return parts
