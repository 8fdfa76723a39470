"""One more run of a job on the new head of its pull request, if the work on the old head could not be published."""

import dataclasses

from msgspec.structs import replace

from labrats.github.client.access import READ_PULL_REQUESTS
from labrats.github.publisher.pull_request import OPEN, PullRequest
from labrats.github.requests.thread_jobs import (
    WAIT_FOR_JOB_SECONDS,
    MustWait,
    ThreadJobs,
    names_for,
    owner_of,
)
from labrats.intake.reruns import Changes, rerun_request
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.thread_requests import NOTHING, ThreadAnswer, ThreadRequest
from labrats.model.untrusted_commits import is_for_untrusted_commits
from labrats.model.webhook_source import WebhookSource


async def run_on_new_head(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
    """Run a job once more, unless its pull request is closed, or an event has started a job of the agent for the head.

    Raises MustWait while a job of the agent works on the pull request.
    """
    if await jobs.admission.find(names := names_for(source, request)):
        return NOTHING
    if not (found := await jobs.of(source, request)):
        return NOTHING  # it was deleted
    job = found[0]
    access = await jobs.access.open(request.target, request.id)
    path = f"/pulls/{request.target.pull_request}"
    pull_request = await access.repository.get(path, PullRequest, READ_PULL_REQUESTS)
    of_agent = await jobs.of(source, replace(request, agent=job.spec.agent_role, job=None))
    if pull_request.state != OPEN or any(_is_of_head(each, job, pull_request) for each in of_agent):
        return NOTHING
    if any(map(jobs.is_busy, of_agent)):
        raise MustWait(WAIT_FOR_JOB_SECONDS)
    again = await rerun_request(jobs.stored_jobs, job, Changes(report=True), owner_of(job))
    untrusted = (
        again.untrusted
        or is_for_untrusted_commits(pull_request.head.ref)
        or await jobs.is_about_untrusted_commits(source, request)
    )
    report = again.report and replace(again.report, target=replace(request.target, head_sha=pull_request.head.sha))
    ref = _ref_for(job, pull_request)
    await jobs.admission.create(dataclasses.replace(again, untrusted=untrusted, report=report, git_ref=ref), names)
    return NOTHING


def _is_of_head(other: Job, job: Job, pull_request: PullRequest) -> bool:
    """Return whether an event about the new head has started another job, which does the same work."""
    target = other.spec.report.target if other.spec.report else None
    has_head = target is not None and target.head_sha == pull_request.head.sha
    is_wanted = other.phase not in (Phase.FAILED, Phase.CANCELLED)
    return has_head and is_wanted and other.created_at > job.created_at and other.spec.follow_up_of is None


def _ref_for(job: Job, pull_request: PullRequest) -> str | None:
    """Return the ref of the new head: that of the job if it moves with the pull request, or else the commit."""
    if (setup := job.spec.workspace_setup) is None:
        return None
    moving = (pull_request.head.ref, f"refs/pull/{pull_request.number}/head")
    return setup.git_ref if setup.git_ref in moving else pull_request.head.sha
