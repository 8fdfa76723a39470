"""Chains: the end of a job starts exactly one job of the next agent."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from msgspec.structs import replace

from labrats.index.catalog import Catalog
from labrats.intake.admission import Admission
from labrats.intake.event_requests import type_of
from labrats.intake.events import IncomingEvent, trigger_in_chain
from labrats.intake.job_names import JobNames, names_from
from labrats.intake.request import JobRequest, OpenedPullRequest
from labrats.intake.stored_events import stored_event
from labrats.intake.stored_jobs import StoredJobs
from labrats.model.agent import AiAgent, ChainCondition, ChainLink, FailurePolicy
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import Conflict, Invalid, NotFound, RetryLater, Taken
from labrats.model.git_repo import is_plain_branch
from labrats.model.job import OWNER_PREFIX, Chain, Job, SubmittedFields
from labrats.model.outside_text import text_within
from labrats.model.phases import API_STATUS, Phase
from labrats.model.record import encode
from labrats.model.untrusted_commits import is_for_untrusted_commits
from labrats.model.webhook_source import WebhookSource
from labrats.model.workspace_setup import Setup
from labrats.ports import Changed, Clock, Runner, Store
from labrats.work_queue import WorkQueue, work_forever

log = structlog.get_logger()

WORKERS: Final = 4

PARENT_ANNOTATION: Final = "labrats.work/chain-parent"
"""Annotation on a child: its parent's uid, and the `triggerName` of the child's agent."""

PULL_REQUEST_AWAITED: Final = timedelta(minutes=10)
"""Time after the end of a job for which its chain waits for the pull request with its commits."""

PARENT_RESULT_BYTES: Final = 256 * 1024
"""The bound on the parent's result in a prompt, which contains instructions and an event, too."""

LONGEST_REASON: Final = 500
"""The bound on a reason with text from elsewhere, in characters."""


@dataclass(frozen=True)
class Follow:
    """The plan to continue `chain` with a job of `agent`."""

    chain: Chain
    agent: AiAgent


@dataclass(frozen=True)
class End:
    """The plan to end the chain. reason: a sentence."""

    reason: str


def is_undecided(job: Job) -> bool:
    """Return whether `job` has ended, but its chain has neither continued nor ended yet."""
    has_next = job.spec.chain is not None and job.spec.chain.next is not None
    return has_next and job.ended and job.status.child_job_id is None and job.status.chain_ended is None


def plan_chain(job: Job, catalog: Catalog, max_depth: int) -> Follow | End:
    """Plan whether another job follows an undecided one. Pure."""
    chain = job.spec.chain
    assert chain is not None, "an undecided job is part of a chain"
    link = chain.next
    assert link is not None, "an undecided job has a link"
    name = link.agent_trigger_name
    if job.is_unchecked:
        return End("the job was refused, and its chain with it")
    if not _holds(link, job.phase):
        return End(f"the job was {API_STATUS[job.phase]}: {name!r} follows {_CONDITIONS[link.condition]}")
    if chain.depth >= max_depth:
        return End(f"{name!r} would exceed the depth of a chain: MAX_CHAIN_DEPTH is {max_depth}")
    if name in chain.path and not link.allow_cycles:
        return End(f"{name!r} was in this chain before, and the trigger does not set allowCycles")
    if (agent := catalog.agents_by_trigger_name.get(name)) is None:
        return End(f"there is no agent with the triggerName {name!r}")
    return Follow(chain, agent) if agent.spec.enabled else End(f"the agent {agent.name!r} is disabled")


_CONDITIONS: Final = {
    ChainCondition.ON_SUCCESS: "a success",
    ChainCondition.ON_FAILURE: "a failure",
    ChainCondition.ALWAYS: "any job that was not cancelled",
}


def _holds(link: ChainLink, phase: Phase) -> bool:
    """Return whether `link` follows a job that ended in `phase`. A cancelled job always ends its chain."""
    if phase is Phase.SUCCEEDED:
        return link.condition is not ChainCondition.ON_FAILURE
    follows_failure = link.condition is not ChainCondition.ON_SUCCESS or link.failure_policy is FailurePolicy.CONTINUE
    return phase is Phase.FAILED and follows_failure


def seconds_to_await_pull_request(job: Job, now: datetime) -> float:
    """Return for how long an undecided job waits at most for the pull request that its child continues."""
    report, published, finished_at = job.spec.report, job.status.published, job.status.finished_at
    if job.phase is not Phase.SUCCEEDED or finished_at is None or job.is_published:
        return 0.0
    opens_one = report is not None and report.pull_request is not None and report.pull_request.enabled
    if not opens_one or (published and published.pull_request_url) or not job.status.outputs.bundle_bytes:
        return 0.0
    return (finished_at + PULL_REQUEST_AWAITED - now).total_seconds()


def _published_by(job: Job) -> OpenedPullRequest | None:
    """Return the pull request with the job's commits."""
    published = job.status.published
    if published is None or published.pull_request_url is None:
        return None
    return OpenedPullRequest(published.pull_request_url, published.commit)


def _pull_request_of(job: Job, event: IncomingEvent | None) -> OpenedPullRequest | None:
    """Return the pull request with the job's commits, or else the one that the job was about."""
    if opened := _published_by(job):
        return opened
    target = job.spec.report.target if job.spec.report else None
    page = event.text("repository", "html_url") if event else None
    if target is None or target.pull_request is None or page is None:
        return None
    return OpenedPullRequest(f"{page}/pull/{target.pull_request}", target.head_sha)


def _git_ref_after(job: Job) -> str | None:
    """Return the reference that the child of a job checks out; None without a repository.

    Without a pull request it is the branch of the agent's workspace, which the agent may have pushed. The agent chooses
    its name, which must not be read as a commit or as a ref of another kind: these may come from a fork.
    """
    if (setup := job.spec.workspace_setup) is None:
        return None
    if opened := _published_by(job):
        return opened.ref
    branch = job.status.outputs.branch
    if not branch:
        return setup.git_ref
    return branch if is_plain_branch(branch) else f"refs/heads/{branch}"


def _within_bound(result: Any) -> Any:
    """Return a result, or its text if that has to be cut."""
    return result if len(encode([result])) <= PARENT_RESULT_BYTES else text_within(result, PARENT_RESULT_BYTES)


def child_names(parent: Job, trigger_name: str) -> JobNames:
    """Return the names for the child of `parent`: always the same, so that repeated attempts create one child."""
    return names_from(PARENT_ANNOTATION, f"{parent.metadata.uid}/{trigger_name}")


class Chains:
    """Continues chains link by link. The decision is stored in the parent's status, once the child exists."""

    def __init__(
        self,
        store: Store,
        runner: Runner,
        catalog: Catalog,
        admission: Admission,
        stored_jobs: StoredJobs,
        clock: Clock,
        max_depth: int,
    ) -> None:
        self._store, self._runner, self._catalog, self._admission = store, runner, catalog, admission
        self._stored_jobs, self._clock, self._max_depth = stored_jobs, clock, max_depth
        self._work = WorkQueue()
        self._large_results = asyncio.Lock()  # decoded, one may take 400 MiB

    async def run(self) -> None:
        """Continue chains until cancelled."""
        await self._catalog.synced.wait()  # an agent that the watch has yet to report is not missing
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch(), name="watch-chains")
            for number in range(WORKERS):
                loops.create_task(work_forever(self._work, self._decide), name=f"chains-{number}")

    async def _watch(self) -> None:
        async for change in self._store.watch(Job, unsettled_only=True):
            if isinstance(change, Changed) and is_undecided(change.resource):
                self._work.add(change.resource.id)

    async def _decide(self, job_id: str) -> None:
        """Carry out the plan for a job, and store the decision in the job's status."""
        with suppress(NotFound, Conflict):  # deleted; or changed meanwhile, which the watch reports
            job = await self._store.get(Job, job_id)
            if not is_undecided(job):
                return
            if (wait := seconds_to_await_pull_request(job, self._clock.now())) > 0:
                self._work.add_later(job_id, wait)
                return
            decision = await self._act(job)
            await self._store.update(replace(job, status=replace(job.status, **decision)))

    async def _act(self, job: Job) -> dict[str, str]:
        """Create the child if one follows. Return the changes to the parent's status."""
        plan = plan_chain(job, self._catalog, self._max_depth)
        if isinstance(plan, Follow):
            try:
                return {"child_job_id": await self._create_child(job, plan)}
            except (Invalid, NotFound, Taken) as error:
                plan = End(f"no job of the agent {plan.agent.name!r} could be created: {error}"[:LONGEST_REASON])
            except Conflict as error:
                raise RetryLater(str(error)) from error
        log.info("chain ended", job=job.id, reason=plan.reason)
        return {"chain_ended": plan.reason}

    async def _create_child(self, job: Job, plan: Follow) -> str:
        """Return the id of the child of `job`. Create the child unless it exists.

        Raises Invalid, Conflict, RetryLater; NotFound when a part of the parent that the child needs was deleted.
        """
        names = child_names(job, plan.agent.spec.trigger_name)
        child = await self._admission.find(names) or await self._admission.create(await self._request(job, plan), names)
        return child.id

    async def _request(self, job: Job, plan: Follow) -> JobRequest:
        """Return the request for the child of `job`. It inherits what it can, and never has more authority."""
        chain, agent, setup, ref = plan.chain, plan.agent, job.spec.workspace_setup, _git_ref_after(job)
        event = await self._event_of(job)
        trigger = trigger_in_chain(agent, event) if event else None
        return JobRequest(
            source=job.spec.source,
            type=type_of(event, trigger, self._catalog) if event and trigger else agent.spec.trigger_name,
            owner=job.spec.owner,
            api_key_ref=job.spec.api_key_ref,
            continues_admin=job.spec.by_admin,
            untrusted=job.spec.untrusted or is_for_untrusted_commits(ref or ""),
            prompt=None if event else (await self._stored_jobs.texts_of(job)).prompt,
            event=event,
            agent=agent,
            trigger=trigger,
            webhook_source=self._webhook_source_of(job),
            chain=Chain(
                id=chain.id,
                depth=chain.depth + 1,
                path=(*chain.path, agent.spec.trigger_name),
                parent_job_id=job.id,
                next=trigger.next if trigger else None,
            ),
            parent_result=await self._result_of(job),
            parent_data=job.status.result_data if job.phase is Phase.SUCCEEDED else None,
            parent_pull_request=_pull_request_of(job, event),
            submitted=SubmittedFields(priority=job.spec.priority),
            repo=await self._stored_jobs.repo_of(job),
            token_from=setup.token_from if setup else None,
            git_ref=ref,
            git_depth=setup.git_depth if setup else None,
            setup=(agent.spec.workspace_setup or Setup()).over(setup or Setup()),
            metadata=job.spec.metadata,
        )

    async def _event_of(self, job: Job) -> IncomingEvent | None:
        """Return the event that started the chain, if any."""
        if job.spec.event_ref is None:
            return None
        return stored_event(await self._store.get(ConfigMap, job.spec.event_ref.name))

    async def _result_of(self, job: Job) -> Any:
        """Return the parent's result, or its failure, cut to its bound."""
        if job.phase is Phase.FAILED:
            return {"failedCode": job.status.failed_code, "failedReason": job.status.failed_reason}
        if not job.status.result_cut:
            return _within_bound(job.status.result)
        async with self._large_results:
            return _within_bound(await self._runner.result(job.attempt_name))

    def _webhook_source_of(self, job: Job) -> WebhookSource | None:
        """Return the webhook source that owns the job. Its settings apply to the whole chain."""
        if not job.spec.owner.startswith(OWNER_PREFIX):
            return None
        return self._catalog.webhook_source(job.spec.owner.removeprefix(OWNER_PREFIX))
