"""Replies to the engine's pull requests: each is a follow-up of the job whose commits the pull request has."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Final

import msgspec
from msgspec.structs import replace

from labrats.github.client.access import READ_PULL_REQUESTS, Access
from labrats.github.publisher.pull_request import OPEN, PullRequest
from labrats.github.requests.thread_jobs import (
    STARTED,
    WAIT_FOR_JOB_SECONDS,
    ForeignPullRequest,
    MustWait,
    ThreadJobs,
    names_for,
    owner_of,
)
from labrats.intake.follow_ups import follow_up_request
from labrats.intake.reruns import Changes
from labrats.intake.thread_requests import add_request, remove_request
from labrats.model.errors import Overloaded
from labrats.model.job import PROMPT_BYTES, Job
from labrats.model.outside_text import shortened, without_hidden
from labrats.model.report import Report
from labrats.model.thread_requests import NOTHING, ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.untrusted_commits import is_for_untrusted_commits
from labrats.model.webhook_source import WebhookSource

_HUNK_LINES: Final = 6


class _Author(msgspec.Struct, frozen=True):
    login: str = ""


class _Text(msgspec.Struct, frozen=True):
    body: str | None = None
    user: _Author | None = None


class _LineComment(msgspec.Struct, frozen=True):
    body: str
    path: str
    line: int | None = None
    original_line: int | None = None
    diff_hunk: str = ""


async def reply(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
    """Start the follow-up for a reply, once. Nothing happens if the pull request is closed.

    Raises ForeignPullRequest where no job made the pull request. Raises MustWait while a job works on the pull request
    or its commits are being published, or an earlier reply waits.
    """
    if await jobs.admission.find(names := names_for(source, request)):
        return STARTED
    if not (made_by := await jobs.of_pull_request(source, request)):
        raise ForeignPullRequest
    if not _wants_follow_ups((opened_by := made_by[-1]).spec.report):
        return NOTHING
    of_thread = await jobs.of(source, request)
    if any(map(jobs.is_busy, of_thread)) or _earlier_replies(source, request):
        await _show_as_seen(jobs, source, request)
        raise MustWait(WAIT_FOR_JOB_SECONDS)
    latest = _latest(of_thread, opened_by)
    access = await jobs.access.open(request.target, request.id)
    path = f"/pulls/{request.target.pull_request}"
    pull_request = await access.repository.get(path, PullRequest, READ_PULL_REQUESTS)
    if pull_request.state != OPEN:
        return NOTHING
    text = await _text_of(access, request)
    if not text:
        return NOTHING
    wanted = await follow_up_request(jobs.stored_jobs, jobs.runner, latest, Changes(prompt=text), owner_of(latest))
    report = replace(opened_by.spec.report or Report(), target=request.target)
    untrusted = (
        wanted.untrusted
        or is_for_untrusted_commits(pull_request.head.ref)
        or any(job.spec.untrusted for job in made_by)  # an earlier version marked no branch
    )
    has_workspace = untrusted == wanted.untrusted and pull_request.head.sha in _last_commits_of(latest)
    if not has_workspace:  # somebody or the engine has pushed, or the earlier job is trusted and this one is not
        wanted = dataclasses.replace(wanted, git_ref=pull_request.head.sha)
    await jobs.admission.create(dataclasses.replace(wanted, report=report, untrusted=untrusted), names)
    return STARTED


async def drop_replies(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> bool:
    """Remove the replies in the thread that wait and came before `request`. Return whether there were any.

    An external contributor drops no reply of a member.
    """
    replies = [each for each in _earlier_replies(source, request) if each.untrusted or not request.untrusted]
    for each in replies:
        await remove_request(jobs.store, source, each)
    return bool(replies)


def _earlier_replies(source: WebhookSource, request: ThreadRequest) -> Sequence[ThreadRequest]:
    earlier = takewhile(lambda each: each.id != request.id, source.status.thread_requests)
    target = request.target
    return [
        each
        for each in earlier
        if each.action in (ThreadAction.REPLY, ThreadAction.MENTION)
        and each.answer is None
        and (each.target.repository, each.target.number) == (target.repository, target.number)
    ]


async def _show_as_seen(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> None:
    """React to a reply that waits, once, by an answered request beside it."""
    seen = replace(request, id=f"{request.id}-seen", answer=STARTED)
    with suppress(Overloaded):  # the reaction follows with the job
        await add_request(jobs.store, source, seen)


def _wants_follow_ups(report: Report | None) -> bool:
    rules = report.pull_request if report else None
    return rules is not None and rules.follow_ups


def _last_commits_of(job: Job) -> tuple[str | None, ...]:
    """Return the ids of the last commit of a job: in its workspace, and on GitHub, where it may be a signed copy."""
    published = job.status.published
    return job.status.outputs.commit, published.commit if published else None


def _latest(of_thread: Sequence[Job], opened_by: Job) -> Job:
    """Return the latest job of the agent that opened the pull request: others may have added commits."""
    return next((job for job in of_thread if job.spec.agent_role == opened_by.spec.agent_role), opened_by)


async def _text_of(access: Access, request: ThreadRequest) -> str:
    """Return the text of a comment, or of a review with the comments on its lines; empty without any."""
    repository, number = access.repository, request.target.pull_request
    if request.review is None:
        path = f"/issues/comments/{request.target.comment}"
        return _visible((await repository.get(path, _Text, READ_PULL_REQUESTS)).body)
    path = f"/pulls/{number}/reviews/{request.review}"
    parts = [_visible((await repository.get(path, _Text, READ_PULL_REQUESTS)).body)]
    async for page in repository.pages(f"{path}/comments", list[_LineComment], READ_PULL_REQUESTS):
        parts += (_on_line(comment) for comment in page)
    return shortened("\n\n".join(filter(None, parts)), PROMPT_BYTES // 2)


def _visible(text: str | None) -> str:
    return without_hidden(text or "").strip()


def _on_line(comment: _LineComment) -> str:
    """Return a comment on a line, with the line and those before it as they were shown to its author."""
    line = comment.line or comment.original_line
    place = f"{comment.path}:{line}" if line else comment.path
    return "\n".join([f"On {place}:", *_quoted(comment.diff_hunk), "", _visible(comment.body)])


def _quoted(hunk: str) -> Iterator[str]:
    yield from (f"> {line}" for line in without_hidden(hunk).splitlines()[-_HUNK_LINES:])
