"""Chains: when a job has ended, the agent that follows it gets a job of its own, exactly one."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import structlog
from msgspec.structs import replace

from labrats.controller.work_queue import WorkQueue, work_forever
from labrats.index.catalog import Catalog
from labrats.intake.admission import Admission
from labrats.intake.event_requests import type_of
from labrats.intake.events import IncomingEvent, trigger_in_chain
from labrats.intake.job_names import NAME_TRIES, JobNames
from labrats.intake.request import JobRequest
from labrats.intake.stored_events import stored_event
from labrats.model.agent import AiAgent, ChainCondition, ChainLink, FailurePolicy
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import Conflict, Invalid, NotFound, RetryLater
from labrats.model.git_repo import GitRepo
from labrats.model.job import Chain, Job
from labrats.model.outside_text import as_text, shortened
from labrats.model.phases import API_STATUS, Phase
from labrats.model.record import encode
from labrats.model.webhook_source import OWNER_PREFIX, WebhookSource
from labrats.ports import Changed, Runner, Store

log = structlog.get_logger()

WORKERS: Final = 4

PARENT_ANNOTATION: Final = "labrats.work/chain-parent"
"""On a job that follows another: the other's uid, and the `triggerName` by which it is followed."""

PARENT_RESULT_BYTES: Final = 256 * 1024
"""As much of a result is handed on: it shares a prompt with instructions and an event."""

LONGEST_REASON: Final = 500
"""Characters of a reason that repeats what somebody else said."""


@dataclass(frozen=True)
class Follow:
    """`chain` goes on with a job of `agent`."""

    chain: Chain
    agent: AiAgent


@dataclass(frozen=True)
class End:
    """The chain goes no further, for this `reason`: a sentence."""

    reason: str


def is_undecided(job: Job) -> bool:
    """Whether `job` has ended in a chain that has yet to go on, or to end."""
    has_next = job.spec.chain is not None and job.spec.chain.next is not None
    return has_next and job.ended and job.status.child_job_id is None and job.status.chain_ended is None


def plan_chain(job: Job, catalog: Catalog, max_depth: int) -> Follow | End:
    """Whether an undecided job is followed by another. Pure."""
    chain = job.spec.chain
    assert chain is not None, "an undecided job is in a chain"
    link = chain.next
    assert link is not None, "an undecided job has a link"
    name = link.agent_trigger_name
    if not _holds(link, job.phase):
        return End(f"the job was {API_STATUS[job.phase]}: {name!r} follows {_CONDITIONS[link.condition]}")
    if chain.depth >= max_depth:
        return End(f"{name!r} would be one too many: MAX_CHAIN_DEPTH is {max_depth}")
    if name in chain.path and not link.allow_cycles:
        return End(f"{name!r} was in this chain before, and the trigger does not say allowCycles")
    if (agent := catalog.agents_by_trigger_name.get(name)) is None:
        return End(f"there is no agent with the triggerName {name!r}")
    return Follow(chain, agent) if agent.spec.enabled else End(f"the agent {agent.name!r} is disabled")


_CONDITIONS: Final = {
    ChainCondition.ON_SUCCESS: "a success",
    ChainCondition.ON_FAILURE: "a failure",
    ChainCondition.ALWAYS: "any job that was not cancelled",
}


def _holds(link: ChainLink, phase: Phase) -> bool:
    """Whether the end of a job is one that `link` waits for. A cancelled job always ends its chain."""
    if phase is Phase.SUCCEEDED:
        return link.condition is not ChainCondition.ON_FAILURE
    follows_failure = link.condition is not ChainCondition.ON_SUCCESS or link.failure_policy is FailurePolicy.CONTINUE
    return phase is Phase.FAILED and follows_failure


def child_names(parent: Job, trigger_name: str) -> JobNames:
    """The names for the job that follows `parent`: always the same, so that it is made once, however often tried."""
    edge = f"{parent.metadata.uid}/{trigger_name}"
    return JobNames(
        [f"ir-{sha256(f'{edge}/{number}'.encode()).hexdigest()[:8]}" for number in range(NAME_TRIES)],
        {PARENT_ANNOTATION: edge},
        lambda job: job.metadata.annotations.get(PARENT_ANNOTATION) == edge,
    )


class Chains:
    """Follows chains link by link. What was decided is kept on the parent, after the child is there."""

    def __init__(self, store: Store, runner: Runner, catalog: Catalog, admission: Admission, max_depth: int) -> None:
        self._store, self._runner, self._catalog, self._admission = store, runner, catalog, admission
        self._max_depth = max_depth
        self._work = WorkQueue()

    async def run(self) -> None:
        """Until cancelled."""
        await self._catalog.synced.wait()  # an agent not yet seen is not one that there is not
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch(), name="watch-chains")
            for number in range(WORKERS):
                loops.create_task(work_forever(self._work, self._follow), name=f"chains-{number}")

    async def _watch(self) -> None:
        async for change in self._store.watch(Job):
            if isinstance(change, Changed) and is_undecided(change.resource):
                self._work.add(change.resource.id)

    async def _follow(self, job_id: str) -> None:
        """Do what the plan says for a job as it is now, and keep on it that it is done."""
        with suppress(NotFound, Conflict):  # it was deleted; or written to meanwhile, of which the watch tells
            job = await self._store.get(Job, job_id)
            if not is_undecided(job):
                return
            decided = await self._act(job)
            await self._store.update(replace(job, status=replace(job.status, **decided)))

    async def _act(self, job: Job) -> dict[str, str]:
        """Make the job that follows, where one does. What the parent's status says of it."""
        plan = plan_chain(job, self._catalog, self._max_depth)
        if isinstance(plan, Follow):
            try:
                return {"child_job_id": await self._make_child(job, plan)}
            except Conflict as error:
                raise RetryLater(str(error)) from error
            except (Invalid, NotFound) as error:
                plan = End(f"no job of the agent {plan.agent.name!r} could be made: {error}"[:LONGEST_REASON])
        log.info("chain ended", job=job.id, reason=plan.reason)
        return {"chain_ended": plan.reason}

    async def _make_child(self, job: Job, plan: Follow) -> str:
        """The id of the job that follows `job`, made unless it was before.

        Raises Invalid, Conflict, RetryLater; NotFound for what it needs of its parent and is no longer kept.
        """
        names = child_names(job, plan.agent.spec.trigger_name)
        child = await self._admission.find(names) or await self._admission.create(await self._request(job, plan), names)
        return child.id

    async def _request(self, job: Job, plan: Follow) -> JobRequest:
        """The job that follows `job`: as far as it can be of what that was, and never with more authority."""
        chain, agent, setup = plan.chain, plan.agent, job.spec.workspace_setup
        event = await self._event_of(job)
        trigger = trigger_in_chain(agent, event) if event else None
        return JobRequest(
            source=job.spec.source,
            type=type_of(event, trigger, self._catalog) if event and trigger else agent.spec.trigger_name,
            owner=job.spec.owner,
            api_key_ref=job.spec.api_key_ref,
            untrusted=job.spec.untrusted,
            prompt=None if event else await self._prompt_of(job),
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
            priority=job.spec.priority,
            repo=await self._repo_of(job),
            token_from=setup.token_from if setup else None,
            git_ref=(job.status.outputs.branch or setup.git_ref) if setup else None,
            git_depth=setup.git_depth if setup else None,
            metadata=job.spec.metadata,
        )

    async def _event_of(self, job: Job) -> IncomingEvent | None:
        """The event that the chain began with, if it was one."""
        if job.spec.event_ref is None:
            return None
        return stored_event(await self._store.get(ConfigMap, job.spec.event_ref.name))

    async def _prompt_of(self, job: Job) -> str | None:
        """What a chain that began with no event is about."""
        if (reference := job.spec.prompt_ref) is None:
            return job.spec.prompt
        return (await self._store.get(ConfigMap, reference.name)).data.get(reference.key)

    async def _repo_of(self, job: Job) -> GitRepo | None:
        """The parent's repository, with its credential: the child has a copy of its own, or a token of its own."""
        if (setup := job.spec.workspace_setup) is None:
            return None
        if setup.credentials_ref is None or setup.token_from:
            return GitRepo(setup.git_repo)
        credential = (await self._store.get(Secret, setup.credentials_ref)).data
        return GitRepo(setup.git_repo, username=credential.get("username", ""), password=credential.get("password", ""))

    async def _result_of(self, job: Job) -> Any:
        """What the parent answered, or why it failed, as far as it fits."""
        if job.phase is Phase.FAILED:
            return {"failedCode": job.status.failed_code, "failedReason": job.status.failed_reason}
        result = job.status.result
        if job.status.result_cut:
            result = await self._runner.result(job.attempt_name)
        fits = len(encode([result])) <= PARENT_RESULT_BYTES
        return result if fits else shortened(as_text(result), PARENT_RESULT_BYTES)

    def _webhook_source_of(self, job: Job) -> WebhookSource | None:
        """The one that the job belongs to, whose settings its chain has too."""
        if not job.spec.owner.startswith(OWNER_PREFIX):
            return None
        return self._catalog.webhook_source(job.spec.owner.removeprefix(OWNER_PREFIX))
