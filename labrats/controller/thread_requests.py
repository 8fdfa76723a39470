"""Carries out the commands in comments on GitHub, and stores the answers, which the publisher writes.

What a command concerns is stored before anything changes, so that an engine that is killed in between carries it out
once: a command to retry a job applies to the attempt that its author saw.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from msgspec.structs import replace

from labrats.controller.publisher.access import ISSUES, PULL_REQUESTS, READ, GitHubAccess, NoAccess
from labrats.controller.work_queue import WorkQueue, work_forever
from labrats.index.catalog import Catalog
from labrats.index.job_filter import JobFilter
from labrats.index.job_table import thread_key
from labrats.index.jobs import JobIndex
from labrats.intake.admission import Admission
from labrats.intake.comment_commands import REFUSED, runnable_agents
from labrats.intake.event_authorization import reason_to_ignore
from labrats.intake.event_requests import request_of
from labrats.intake.events import IncomingEvent
from labrats.intake.job_names import JobNames, names_from
from labrats.intake.reruns import Changes, rerun_request
from labrats.intake.thread_requests import replace_request
from labrats.model.agent import AiAgent, Trigger
from labrats.model.caller import SUBMIT, Caller
from labrats.model.config import JobConfig
from labrats.model.errors import Conflict, IllegalMove, Invalid, NotFound, RetryLater
from labrats.model.job import Job, after_cancel_request, after_retry_request
from labrats.model.phases import API_STATUS, Phase
from labrats.model.thread_requests import ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import GITHUB, OWNER_PREFIX, WebhookSource
from labrats.net.github_repository import RefusedByGitHub
from labrats.ports import Changed, Clock, Deleted, Store, compare_and_set

log = structlog.get_logger()

MOST_JOBS: Final = 100
"""The latest jobs of a thread, which a command may concern."""

REQUEST_ANNOTATION: Final = "labrats.work/thread-request"
"""Annotation on a job that a comment has started: the uid of the source, and the id of the request."""

DONE: Final = ThreadAnswer(reaction="+1")
STARTED: Final = ThreadAnswer(reaction="eyes")


class _NotDone(Exception):
    """The request cannot be carried out. Its text tells the person why."""


class ThreadRequests:
    """Carries out the requests that webhook sources have stored, those of each source in order."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        job_index: JobIndex,
        admission: Admission,
        access: GitHubAccess,
        uploads: Path,
        clock: Clock,
    ) -> None:
        """uploads: the volume with the files of jobs."""
        self._store, self._catalog, self._job_index, self._admission = store, catalog, job_index, admission
        self._access, self._uploads, self._clock = access, uploads, clock
        self._work = WorkQueue()
        self._sources: dict[str, WebhookSource] = {}

    async def run(self) -> None:
        """Carry out requests until cancelled."""
        await self._catalog.synced.wait()  # an agent that the watch has yet to report is not missing
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch(), name="watch-thread-requests")
            loops.create_task(work_forever(self._work, self._carry_out_all), name="thread-requests")

    async def _watch(self) -> None:
        async for change in self._store.watch(WebhookSource):
            match change:
                case Changed(source) if any(each.answer is None for each in source.status.thread_requests):
                    self._sources[source.name] = source
                    self._work.add(source.name)
                case Changed(source) | Deleted(source):
                    self._sources.pop(source.name, None)

    async def _carry_out_all(self, name: str) -> None:
        """Carry out the requests of a source, and store their answers. Raises RetryLater."""
        if (source := self._sources.get(name)) is None:
            return
        with suppress(NotFound):  # the source was deleted
            for request in source.status.thread_requests:
                if request.answer is None:
                    answer = await self._answer_to(source, request)
                    await replace_request(self._store, source, replace(request, answer=answer))

    async def _answer_to(self, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
        """Carry out a request, and return its answer. Raises RetryLater; NotFound if the source was deleted."""
        try:
            match request.action:
                case ThreadAction.CANCEL:
                    return await self._cancel(source, request)
                case ThreadAction.RETRY if request.model:
                    return await self._run_again(source, request)
                case ThreadAction.RETRY:
                    return await self._retry(source, request)
                case _:
                    return await self._start_agent(source, request)
        except _NotDone as reason:
            return ThreadAnswer(reaction=REFUSED, text=str(reason))
        except Conflict as error:
            raise RetryLater(str(error)) from error
        except (Invalid, IllegalMove, RefusedByGitHub, NoAccess) as error:
            return ThreadAnswer(reaction=REFUSED, text=f"This is not possible: {error}.")

    async def _cancel(self, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
        """Cancel the live jobs of the thread."""
        if not request.jobs:
            live = [job.id for job in await self._jobs_of(source, request) if not job.ended]
            if not live:
                raise _NotDone(f"No job {_of(request)} is waiting or running.")
            request = replace(request, jobs=tuple(live))
            await replace_request(self._store, source, request)
        for job_id in request.jobs:
            with suppress(NotFound, IllegalMove):  # deleted, or ended by itself
                await self._change(job_id, lambda job: after_cancel_request(job, self._clock.now()))
        return DONE

    async def _retry(self, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
        """Retry the last job of the thread, if it has failed."""
        if not request.jobs:
            last = await self._last_job(source, request)
            if last.phase is not Phase.FAILED:
                hint = " `/labrats run AGENT` starts a new one." if last.ended else ""
                raise _NotDone(f"The last job, `{last.id}`, has not failed: it is {API_STATUS[last.phase]}.{hint}")
            request = replace(request, jobs=(last.id,), attempts=last.status.attempts)
            await replace_request(self._store, source, request)

        def retried(job: Job) -> Job:
            is_unchanged = job.phase is Phase.FAILED and job.status.attempts == request.attempts
            return after_retry_request(job, self._clock.now()) if is_unchanged else job

        try:
            await self._change(request.jobs[0], retried)
        except NotFound:
            raise _NotDone(f"The job `{request.jobs[0]}` was deleted.") from None
        return DONE

    async def _run_again(self, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
        """Run the last job of the thread again, as a new one with another model, once."""
        if await self._admission.find(names := _names_for(source, request)):
            return STARTED
        last = await self._last_job(source, request)
        if not last.ended:
            raise _NotDone(f"The last job, `{last.id}`, is still {API_STATUS[last.phase]}.")
        caller = Caller(id=last.spec.owner, scopes=frozenset({SUBMIT}), secret=last.spec.api_key_ref)
        changes = Changes(config=JobConfig(model=request.model))
        again = await rerun_request(self._store, last, changes, caller, self._uploads, self._clock.now())
        if (report := last.spec.report) and report.target:
            target = replace(report.target, comment=request.target.comment)
            again = dataclasses.replace(again, report=replace(report, target=target))
        await self._admission.create(again, names)
        return STARTED

    async def _start_agent(self, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
        """Start the agent that the comment names, once."""
        if await self._admission.find(names := _names_for(source, request)):
            return STARTED
        if (agent := runnable_agents(source, self._catalog).get(request.agent or "")) is None:
            raise _NotDone(f"The agent `{request.agent}` can no longer be started.")
        event = await self._event_of(request)
        if reason := reason_to_ignore(event, source.spec):
            raise _NotDone(f"The agent is not started: {reason}.")
        owner = f"{OWNER_PREFIX}{source.name}"
        wanted = request_of(event, agent, _trigger_of(agent, event), self._catalog, owner, source)
        await self._admission.create(dataclasses.replace(wanted, config=JobConfig(model=request.model)), names)
        return STARTED

    async def _event_of(self, request: ThreadRequest) -> IncomingEvent:
        """Return the event of a comment, as GitHub describes it now, with the pull request. Raises RetryLater.

        Raises NoAccess, RefusedByGitHub.
        """
        target, repository = request.target, (await self._access.open(request.target)).repository
        is_pull_request = target.pull_request is not None
        permissions = PULL_REQUESTS if is_pull_request else ISSUES
        comment = await repository.get(f"/issues/comments/{target.comment}", dict[str, Any], permissions)
        payload: dict[str, Any] = {
            "action": request.event.partition(".")[2],
            "comment": comment,
            "issue": await repository.get(f"/issues/{target.number}", dict[str, Any], permissions),
            "repository": await repository.get("", dict[str, Any], READ),
            "sender": comment.get("user"),
        }
        if is_pull_request:
            payload["pull_request"] = await repository.get(f"/pulls/{target.number}", dict[str, Any], permissions)
        return IncomingEvent(GITHUB, request.event, payload)

    async def _last_job(self, source: WebhookSource, request: ThreadRequest) -> Job:
        jobs = await self._jobs_of(source, request)
        if not jobs:
            raise _NotDone(f"There is no job {_of(request)}.")
        return jobs[0]

    async def _jobs_of(self, source: WebhookSource, request: ThreadRequest) -> Sequence[Job]:
        """Return the latest jobs that the request may concern, the newest first."""
        target = request.target
        assert target.number is not None, "a comment is on an issue or a pull request"
        thread = JobFilter(thread=thread_key(target.repository, target.number), agent_role=request.agent)
        found = (await self._job_index.find_page(thread, cursor=None, limit=MOST_JOBS)).jobs
        if target.pull_request is not None and request.url:
            opened_by = JobFilter(pull_request=request.url, agent_role=request.agent)
            found += (await self._job_index.find_page(opened_by, cursor=None, limit=MOST_JOBS)).jobs
        jobs = await self._store.get_many(Job, list({each.id for each in found}))
        return sorted(
            (job for job in jobs if _may_concern(job, source, request)),
            key=lambda job: (job.created_at, job.id),
            reverse=True,
        )

    async def _change(self, job_id: str, change: Callable[[Job], Job]) -> None:
        await compare_and_set(self._store, lambda: self._store.get(Job, job_id), change)


def _may_concern(job: Job, source: WebhookSource, request: ThreadRequest) -> bool:
    """Return whether a request may change a job: one of the source, and for an external contributor untrusted."""
    target = job.spec.report.target if job.spec.report else None
    is_of_source = job.spec.owner == f"{OWNER_PREFIX}{source.name}" or (target and target.source == source.name)
    return bool(is_of_source) and (job.spec.untrusted or not request.untrusted)


def _of(request: ThreadRequest) -> str:
    return f"of `{request.agent}` here" if request.agent else "of this thread"


def _names_for(source: WebhookSource, request: ThreadRequest) -> JobNames:
    """Return the names for the job of a request: always the same, so that it starts one job."""
    return names_from(REQUEST_ANNOTATION, f"{source.metadata.uid}/{request.id}")


def _trigger_of(agent: AiAgent, event: IncomingEvent) -> Trigger | None:
    """Return the trigger whose instruction and report apply: the first for such a thread, or else the first one."""
    triggers = [each for each in agent.spec.event_triggers if each.enabled and each.source == GITHUB]
    prefix = "pull_request" if event.find("pull_request") is not None else "issue"
    fitting = (each for each in triggers if any(name.startswith(prefix) for name in each.events))
    return next(fitting, triggers[0] if triggers else None)
