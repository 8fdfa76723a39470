"""Admission: the one path by which anything becomes a job."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import structlog
from msgspec.structs import replace

from labrats.files.attachments import Attachments
from labrats.files.uploads import Uploads
from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.applied import applied_request, check_credentials, check_spec_size, store_resolution
from labrats.intake.concurrency_keys import concurrency_of
from labrats.intake.delivered import delivered_requests, settings_of_delivered
from labrats.intake.event_requests import agent_name, missing_requests, names_for
from labrats.intake.immediate_starts import ImmediateStarts
from labrats.intake.job_creation import JobCreator
from labrats.intake.job_names import JobNames, NamesOfAgent
from labrats.intake.job_spec import PreparedJob
from labrats.intake.prompts import texts_of
from labrats.intake.report_targets import report_of
from labrats.intake.request import JobRequest
from labrats.intake.settings import settings_of
from labrats.intake.stored_jobs import existing_jobs
from labrats.intake.validation import (
    NetworkProblem,
    WorkspaceContents,
    agent_of,
    check_open_network,
    check_settings,
    check_setup,
    result_schema_of,
    validate,
)
from labrats.metrics import Metrics
from labrats.model.config import JobConfig, ResolvedConfig
from labrats.model.errors import Invalid, NoSandbox, Overloaded, Problem, Problems
from labrats.model.git_repo import GitRepo
from labrats.model.isolation import PROCESS_ONLY, IsolationLevels
from labrats.model.job import OWNER_PREFIX, Job
from labrats.model.phases import Phase
from labrats.model.workspace_setup import Setup
from labrats.ports import Store
from labrats.settings import EngineSettings

log = structlog.get_logger()

RETRY_OVERLOADED_SECONDS: Final = 10.0


class Admitted(NamedTuple):
    """A stored job. is_replay: true if an earlier request with the same names created it."""

    job: Job
    is_replay: bool


class Admission:
    """Turns requests into jobs: validate, resolve settings, write texts, check the queue, name, create.

    Nothing is stored before the last step, which stores secrets apart from the job. Its spec only names them.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        job_index: JobIndex,
        attachments: Attachments,
        uploads: Uploads,
        metrics: Metrics,
        settings: EngineSettings,
        *,
        isolation: IsolationLevels = PROCESS_ONLY,
        network_problem: NetworkProblem = lambda _: None,
        untrusted_network_problem: Callable[[], str | None] = lambda: None,
        immediate_starts: ImmediateStarts | None = None,
    ) -> None:
        """Create the admission.

        isolation:       the levels that the runner offers.
        network_problem: returns why jobs with a rule for their network cannot run; None if they can.
        untrusted_network_problem: returns why the network of an external contributor's job must not be open.
        immediate_starts: start new jobs that need not wait; None if all wait for the controller.
        """
        self._store, self._catalog, self._job_index, self._uploads = store, catalog, job_index, uploads
        self._settings, self._isolation, self._network_problem = settings, isolation, network_problem
        self._untrusted_network_problem = untrusted_network_problem
        self._creator = JobCreator(store, attachments, metrics, immediate_starts or ImmediateStarts())

    async def admit(self, request: JobRequest, names: JobNames) -> Admitted:
        """Return the job that the same request created before, or else create it. Raises as `create` does."""
        if job := await self.find(names):
            return Admitted(job, is_replay=True)
        return Admitted(await self.create(request, names), is_replay=False)

    async def find(self, names: JobNames) -> Job | None:
        """Return the job that an earlier request stored completely under one of `names`."""
        return await self._creator.find(names) if names.are_reproducible else None

    async def create(self, request: JobRequest, names: JobNames) -> Job:
        """Create the job. Raises TooLarge, Invalid, Overloaded, Conflict, RetryLater."""
        prepared = await self.preview(request)
        if not request.is_child:
            self._check_queue(request.owner)
        return await self._creator.create(prepared, names)

    async def preview(self, request: JobRequest) -> PreparedJob:
        """Return the job that the request would create, and create nothing. Raises TooLarge, Invalid, RetryLater."""
        problems = Problems()
        contents = await validate(request, self._uploads, self._settings, problems)
        return self._prepare(request, contents, problems)

    async def admit_all(self, requests: Sequence[JobRequest], names_of: NamesOfAgent | None) -> Mapping[str, Job]:
        """Create a job for each agent that one event starts. Return the jobs by the names of their agents.

        Agents that need a sandbox which does not work here get none. After a failure none of the jobs is left. With
        `names_of`, for an event that may come again, created jobs stay: the next call returns them and creates the
        missing ones. Raises as `create` does, and NoSandbox.
        """
        stored = await self._find_all(names_of) if names_of else {}
        requests = missing_requests(requests, stored)
        if not requests:
            return stored
        if (event := requests[0].event) and event.is_large:
            await asyncio.to_thread(getattr, event, "as_text")  # slow, and cached for all requests
        problems = Problems()
        contents = await validate(requests[0], self._uploads, self._settings, problems)  # the same for all of an event
        problems.check()
        prepared = self._prepare_all(requests, contents)
        self._check_queue(requests[0].owner)
        requests = [each.request for each in prepared]
        jobs = await self._creator.create_all(zip(prepared, names_for(requests, names_of), strict=True))
        return stored | dict(zip(map(agent_name, requests), jobs, strict=True))

    def _prepare_all(self, requests: Sequence[JobRequest], contents: WorkspaceContents) -> list[PreparedJob]:
        """Return the jobs of an event, without those of agents that need a sandbox which does not work here.

        Raises NoSandbox if all agents need one, and Invalid as `_prepare` does.
        """
        prepared, refused = [], None
        for request in requests:
            try:
                prepared.append(self._prepare(request, contents, Problems()))
            except NoSandbox as error:
                refused = error
                log.warning("agent not started", agent=agent_name(request), reason=str(error))
        if refused and not prepared:
            raise refused
        return prepared

    async def admit_applied(self, job: Job) -> Job:
        """Validate and resolve a job that was applied with kubectl. Store its settings and texts beside its spec.

        Raises TooLarge, Invalid, RetryLater; Conflict and NotFound when another writer has changed or deleted the job.
        """
        check_spec_size(job)
        request = applied_request(job)
        problems = Problems()
        contents = await validate(request, self._uploads, self._settings, problems)
        with problems.collected():
            await self.check_applied_credentials(job, contents.repo)
        return await store_resolution(self._store, job, self._prepare(request, contents, problems))

    async def admit_delivered(self, job: Job) -> Job:
        """Store the settings of the job of a delivery in its status, where they count.

        On a cluster its creator may be a receiver, whose settings are ignored: they are resolved again. Raises Invalid
        if the rest of the spec is not what an event sets; RetryLater; Conflict and NotFound as `admit_applied`.
        """
        is_trusted = self._settings.backend == "embedded"  # this process has created it
        resolved = job.spec.resolved if is_trusted else await self._resolve_again(job)
        return await self._store.update(replace(job, status=replace(job.status, resolved=resolved)))

    async def _resolve_again(self, job: Job) -> ResolvedConfig:
        requests, problems = delivered_requests(job, self._catalog), Problems()
        contents = await validate(requests[0], self._uploads, self._settings, problems)  # the same for all triggers
        problems.check()
        return settings_of_delivered(job, requests, lambda each: self._prepare(each, contents, Problems()))

    async def check_applied_credentials(self, job: Job, repo: GitRepo | None = None) -> None:
        """Raise Invalid for a Secret that a job applied with kubectl may not have; see `check_credentials`."""
        await check_credentials(job, repo, self._store, labelled_only=self._settings.labelled_credentials)

    def _prepare(self, request: JobRequest, contents: WorkspaceContents, problems: Problems) -> PreparedJob:
        """Resolve the agent and the settings, and write the texts, from the catalog as it is now.

        problems: those of earlier checks. Raises Invalid with them and those found here.
        """
        role = request.agent_role
        try:
            agent = request.agent if role is None else agent_of(role, request, self._catalog)
        except Invalid as error:  # all further checks depend on the agent
            raise problems.and_those_of(error) from None
        engine = JobConfig(network=self._settings.network, isolation=self._settings.isolation)
        resolved = settings_of(request, agent, self._catalog, self._isolation, engine)
        level, by_admin = resolved.isolation or self._isolation.default, request.is_of_admin
        if problem := self._isolation.problem_without_sandbox(level, resolved.provider, by_admin=by_admin):
            raise NoSandbox(Problem("config.isolation", problem))
        with problems.collected():
            check_settings(
                resolved,
                request.metadata,
                self._settings.executor_images,
                self._isolation,
                self._network_problem,
                agent=agent.name if agent else None,
                untrusted=request.untrusted,
            )
        setup = request.setup.over((agent and agent.spec.workspace_setup) or Setup()) if request.repo else Setup()
        with problems.collected():
            check_setup(setup, resolved.isolation or self._isolation.default, self._network_problem)
        if request.untrusted:
            with problems.collected():
                check_open_network(resolved.config, setup, self._untrusted_network_problem)
        with problems.collected():
            texts = texts_of(request, agent, self._catalog)
        with problems.collected():
            report = report_of(request, agent, self._catalog)
        with problems.collected():
            concurrency = concurrency_of(request, agent)
        with problems.collected():
            schema = result_schema_of(request, agent)
        problems.check()
        return PreparedJob(request, contents, agent, setup, resolved, texts, report, concurrency, schema)

    def full_queue(self, owner: str) -> str | None:
        """Return why no further job of this owner may wait; None if it may."""
        if self._job_index.count_in(Phase.PENDING) >= self._settings.max_waiting_jobs:
            return "too many jobs are waiting; try again later"
        limit = self._settings.max_waiting_jobs_per_owner
        if limit is not None and self._job_index.count_in(Phase.PENDING, owner) >= limit:
            return f"{limit} jobs of {owner!r} are waiting, the limit for one owner; try again later"
        return None

    def _check_queue(self, owner: str) -> None:
        """Raise Overloaded while too many jobs are waiting, in all or of this owner."""
        if self._settings.needs_jobs:
            problem = self.full_queue(owner)
        else:  # a receiver, which knows only what the controller has reported
            source = self._catalog.webhook_source(owner.removeprefix(OWNER_PREFIX))
            problem = source.full_queue if source else None
        if problem:
            raise Overloaded(problem, RETRY_OVERLOADED_SECONDS)

    async def _find_all(self, names_of: NamesOfAgent) -> dict[str, Job]:
        """Return the jobs that an earlier request for the same event created, by the names of their agents."""
        names = {agent.name: names_of(agent.name) for agent in self._catalog.agents}
        candidates = [candidate for each in names.values() for candidate in each.candidates]
        taken = {job.id async for job in existing_jobs(self._store, candidates)}
        found = {agent: await self.find(each) for agent, each in names.items() if taken & {*each.candidates}}
        return {agent: job for agent, job in found.items() if job}
