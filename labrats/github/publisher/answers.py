"""Write the answers to commands in comments: a reaction, and where that says too little a comment."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Final

import structlog
from msgspec.structs import replace

from labrats.github.client.access import Access, GitHubAccess, NoAccess
from labrats.github.client.repository import RefusedByGitHub
from labrats.github.publisher.comments import Comment
from labrats.github.publisher.creations import LISTED_AFTER
from labrats.github.reports.answer import answer_body, answer_mark
from labrats.intake.thread_requests import read_request, remove_request, replace_request, request_key
from labrats.model.errors import NotFound, RetryLater
from labrats.model.report import ReportMode, ReportTarget
from labrats.model.thread_requests import ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Changed, Clock, Store
from labrats.work_queue import WorkQueue, work_forever

log = structlog.get_logger()

GIVEN_UP_AFTER: Final = timedelta(hours=24)
"""Time for which an answer is tried."""


class Answers:
    """Writes the answers that webhook sources have stored, and removes the requests. Only one may run at a time."""

    def __init__(
        self, store: Store, access: GitHubAccess, clock: Clock, listed_after: timedelta = LISTED_AFTER
    ) -> None:
        self._store, self._access, self._clock, self._listed_after = store, access, clock, listed_after
        self._work = WorkQueue()

    async def run(self) -> None:
        """Write answers until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch(), name="watch-answers")
            loops.create_task(work_forever(self._work, self._write_stored, "request"), name="answers")

    async def _watch(self) -> None:
        async for change in self._store.watch(WebhookSource):
            if isinstance(change, Changed):
                for request in change.resource.status.thread_requests:
                    key = request_key(change.resource, request)
                    if request.answer is not None and not self._work.has_timer(key):  # GitHub may want a pause
                        self._work.add(key)

    async def _write_stored(self, key: str) -> None:
        """Write the answer to a request, and remove the request. Raises RetryLater."""
        with suppress(NotFound):  # the source was deleted
            source, request = await read_request(self._store, key)
            if request is None or request.answer is None:
                return
            try:
                await self._write(source, request, request.answer)
            except RetryLater as error:
                if self._clock.now() - request.received_at < GIVEN_UP_AFTER:
                    raise
                log.warning("request not answered", source=source.name, request=request.id, reason=str(error))
            is_remembered = request.action is not ThreadAction.MENTION or not request.untrusted
            await remove_request(self._store, source, request, is_remembered=is_remembered)

    async def _write(self, source: WebhookSource, request: ThreadRequest, answer: ThreadAnswer) -> None:
        """Write one answer, unless GitHub has it. Raises RetryLater."""
        override = source.spec.override_of(request.target.repository)
        report = override.report.over(source.spec.report) if override and override.report else source.spec.report
        if report and report.mode is ReportMode.PREVIEW:
            return
        try:
            access = await self._access.open(request.target, f"answer to {request.id}")
            if answer.reaction and request.target.comment is not None:
                await _react(access, request, answer.reaction)
            if answer.label:
                path = f"/issues/{request.target.number}/labels"
                await access.note_labels(request.target.number or 0, [answer.label])
                await access.repository.add(path, {"labels": [answer.label]}, access.commenting(request.target))
            if answer.text:
                await self._comment(access, source, request, answer)
        except (NoAccess, RefusedByGitHub) as error:
            log.warning("request not answered", source=source.name, request=request.id, reason=str(error))

    async def _comment(
        self, access: Access, source: WebhookSource, request: ThreadRequest, answer: ThreadAnswer
    ) -> None:
        """Answer with a comment, unless the thread has it. Raises RefusedByGitHub, RetryLater.

        The attempt is stored before: an answer may get lost, or the publisher be killed.
        """
        key, target = answer.key or request.id, request.target
        if await _has_comment(access, target, key):
            return
        now, attempted_at = self._clock.now(), answer.attempted_at
        if attempted_at and (wait := attempted_at + self._listed_after - now) > timedelta(0):
            raise RetryLater("GitHub's list may not show the comment yet", wait.total_seconds())
        await replace_request(self._store, source, replace(request, answer=replace(answer, attempted_at=now)))
        body = {"body": answer_body(key, answer.text or "")}
        await access.repository.post(_comments_of(target), body, Comment, access.commenting(target))


async def _react(access: Access, request: ThreadRequest, reaction: str) -> None:
    """React to the comment. GitHub ignores a reaction that exists. Raises RefusedByGitHub, RetryLater."""
    path = f"/issues/comments/{request.target.comment}/reactions"
    await access.repository.add(path, {"content": reaction}, access.commenting(request.target))


async def _has_comment(access: Access, target: ReportTarget, key: str) -> bool:
    async for page in access.repository.pages(_comments_of(target), list[Comment], access.commenting(target)):
        for comment in page:
            if (comment.body or "").startswith(answer_mark(key)) and access.identity.wrote(comment):
                return True
    return False


def _comments_of(target: ReportTarget) -> str:
    return f"/issues/{target.number}/comments"
