"""Commands in comments: cancel, retry and publish jobs, and start agents.

What a command concerns is stored before anything changes, so that an engine that is killed in between carries it out
once: a command to retry a job applies to the attempt that its author saw.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from labrats.github.client.access import READ, READ_ISSUES, READ_PULL_REQUESTS
from labrats.github.events.comment_commands import MEMBERS_ONLY, REFUSED, runnable_agents
from labrats.github.requests.replies import drop_replies, reply
from labrats.github.requests.thread_jobs import (
    DONE,
    STARTED,
    WAIT_FOR_JOB_SECONDS,
    ForeignPullRequest,
    MustWait,
    RequestFailed,
    ThreadJobs,
    names_for,
    owner_of,
)
from labrats.intake.event_authorization import is_external_author, reason_to_ignore
from labrats.intake.event_requests import request_of
from labrats.intake.events import IncomingEvent
from labrats.intake.publish_again import require_commits
from labrats.intake.reruns import Changes, rerun_request
from labrats.intake.thread_requests import replace_request
from labrats.model.config import JobConfig
from labrats.model.errors import IllegalMove, NotFound
from labrats.model.job import OWNER_PREFIX, Job, after_cancel_request, after_publish_request, after_retry_request
from labrats.model.phases import API_STATUS, Phase
from labrats.model.thread_requests import ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import GITHUB, WebhookSource


async def cancel(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
    """Cancel the live jobs of the thread, and before that drop the replies that wait for them to end."""
    concerns_all = request.agent is None and request.job is None
    has_dropped = concerns_all and await drop_replies(jobs, source, request)
    if not request.jobs:
        live = [job.id for job in await jobs.of(source, request) if not job.ended]
        if not live:
            if has_dropped:
                return DONE
            raise RequestFailed(f"No job {_of(request)} is waiting or running.")
        request = replace(request, jobs=tuple(live))
        await replace_request(jobs.store, source, request)
    by = f"{OWNER_PREFIX}{source.name}"
    for job_id in request.jobs:
        with suppress(NotFound, IllegalMove):  # deleted, or ended by itself
            await jobs.change(job_id, lambda job: after_cancel_request(job, jobs.clock.now(), by))
    return DONE


async def retry(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
    """Retry the last job of the thread, if it has failed."""
    if not request.jobs:
        last = await _last_job(jobs, source, request)
        if last.phase is not Phase.FAILED:
            hint = " `/labrats run AGENT` starts a new one." if last.ended else ""
            raise RequestFailed(f"The last job, `{last.id}`, has not failed: it is {API_STATUS[last.phase]}.{hint}")
        request = replace(request, jobs=(last.id,), attempts=last.status.attempts)
        await replace_request(jobs.store, source, request)

    def retried(job: Job) -> Job:
        is_unchanged = job.phase is Phase.FAILED and job.status.attempts == request.attempts
        return after_retry_request(job, jobs.clock.now()) if is_unchanged else job

    try:
        await jobs.change(request.jobs[0], retried)
    except NotFound:
        raise RequestFailed(f"The job `{request.jobs[0]}` was deleted.") from None
    return DONE


async def publish_again(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
    """Let the report of the last job of the thread be written again."""
    last = await _last_job(jobs, source, request)
    await require_commits(jobs.runner, last)

    def again(job: Job) -> Job:
        published = job.status.published
        is_done = published and published.requested_at and published.requested_at >= request.received_at
        return job if is_done else after_publish_request(job, request.received_at)

    try:
        await jobs.change(last.id, again)
    except NotFound:
        raise RequestFailed(f"The job `{last.id}` was deleted.") from None
    return STARTED


async def click(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
    """Cancel or retry the job whose button was clicked, or run it again if it has ended otherwise."""
    if request.action is ThreadAction.CANCEL:
        return await cancel(jobs, source, request)
    job = await _last_job(jobs, source, request)
    if request.jobs or job.phase is Phase.FAILED:
        return await retry(jobs, source, request)
    return await run_again(jobs, source, request) if job.ended else DONE


async def run_again(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
    """Run the last job of the thread again, once: as a new one, with the model that is named.

    Raises MustWait while commits for the thread are being published.
    """
    if await jobs.admission.find(names := names_for(source, request)):
        return STARTED
    last = await _last_job(jobs, source, request)
    if not last.ended:
        raise RequestFailed(f"The last job, `{last.id}`, is still {API_STATUS[last.phase]}.")
    await _await_commits(jobs, source, request)
    report = last.spec.report
    changes = Changes(config=JobConfig(model=request.model), report=bool(report and report.target))
    again = await rerun_request(jobs.stored_jobs, last, changes, owner_of(last))
    untrusted = again.untrusted or await jobs.is_about_untrusted_commits(source, request)
    again = dataclasses.replace(again, untrusted=untrusted)
    if again.report and again.report.target:
        target = replace(again.report.target, comment=request.target.comment)
        again = dataclasses.replace(again, report=replace(again.report, target=target))
    await jobs.admission.create(again, names)
    return STARTED


async def start_agent(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
    """Start the agent that the comment names, or means, once.

    Raises MustWait while commits of its thread are published.
    """
    if await jobs.admission.find(names := names_for(source, request)):
        return STARTED
    if request.untrusted:
        raise RequestFailed(MEMBERS_ONLY)
    event = await _event_of(jobs, request)
    if reason := reason_to_ignore(event, source.spec):
        raise RequestFailed(f"The agent is not started: {reason}.")
    if is_external_author(event, source.spec):
        raise RequestFailed(MEMBERS_ONLY)
    runnable = runnable_agents(event, source, jobs.catalog)
    name = request.agent or await _agent_for(jobs, source, request, runnable)
    agent, trigger = runnable.get(name, (None, None))
    if agent is None:
        raise RequestFailed(f"The agent `{name}` cannot be started here.")
    await _await_commits(jobs, source, request)
    owner = f"{OWNER_PREFIX}{source.name}"
    wanted = request_of(event, agent, trigger, jobs.catalog, owner, source)
    untrusted = wanted.untrusted or await jobs.is_about_untrusted_commits(source, request)
    wanted = dataclasses.replace(wanted, config=JobConfig(model=request.model), untrusted=untrusted)
    await jobs.admission.create(wanted, names)
    return STARTED


async def answer_mention(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
    """Start the follow-up for a mention where a job made the pull request, and else an agent. Raises MustWait."""
    if request.target.pull_request is not None:
        with suppress(ForeignPullRequest):
            return await reply(jobs, source, request)
    return ThreadAnswer(reaction=REFUSED) if request.untrusted else await start_agent(jobs, source, request)


async def _agent_for(
    jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest, runnable: Mapping[str, Any]
) -> str:
    """Return the `triggerName` of the agent to start: the only one, or that of the last job in the thread.

    runnable: the agents that may be started, by that name. Raises RequestFailed if the comment must name one.
    """
    names = [job.spec.agent_role for job in await jobs.of(source, request)]
    latest = next((name for name in names if name in runnable), None)
    if latest or len(runnable) == 1:
        return latest or next(iter(runnable))
    choice = ", ".join(f"`{name}`" for name in sorted(runnable))
    hint = f"Name one of {choice}: `/labrats run AGENT`." if choice else "There is none for this repository."
    raise RequestFailed(f"No agent is started. {hint}")


async def _event_of(jobs: ThreadJobs, request: ThreadRequest) -> IncomingEvent:
    """Return the event of a comment, as GitHub describes it now, with the pull request. Raises RetryLater.

    Raises NoAccess, RefusedByGitHub.
    """
    target, repository = request.target, (await jobs.access.open(request.target, request.id)).repository
    is_pull_request = target.pull_request is not None
    permissions = READ_PULL_REQUESTS if is_pull_request else READ_ISSUES
    comment = await repository.get(f"/issues/comments/{target.comment}", dict[str, Any], permissions)
    payload: dict[str, Any] = {
        "action": request.event.partition(".")[2],
        "comment": comment,
        "issue": await repository.get(f"/issues/{target.number}", dict[str, Any], permissions),
        "repository": await repository.get("", dict[str, Any], READ),
        "sender": comment.get("user"),
    }
    if organization := payload["repository"].get("organization"):  # beside the repository in an event
        payload["organization"] = organization
    if is_pull_request:
        payload["pull_request"] = await repository.get(f"/pulls/{target.number}", dict[str, Any], permissions)
    return IncomingEvent(GITHUB, request.event, payload)


async def _await_commits(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> None:
    """Raise MustWait while the commits of an ended job are being published: the next job would start without them."""
    if request.target.number is None:
        return
    if any(map(jobs.is_publishing, await jobs.of(source, replace(request, agent=None, job=None)))):
        raise MustWait(WAIT_FOR_JOB_SECONDS)


async def _last_job(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> Job:
    found = await jobs.of(source, request)
    if not found:
        raise RequestFailed(f"There is no job {_of(request)}.")
    return found[0]


def _of(request: ThreadRequest) -> str:
    return f"of `{request.agent}` here" if request.agent else "of this thread"
