"""The loop that carries out the requests from threads, and stores their answers, which the publisher writes."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

import structlog
from msgspec.structs import replace

from labrats.github.client.access import NoAccess
from labrats.github.client.repository import RefusedByGitHub
from labrats.github.events.comment_commands import REFUSED
from labrats.github.publisher.answers import GIVEN_UP_AFTER
from labrats.github.requests.commands import (
    answer_mention,
    cancel,
    click,
    publish_again,
    retry,
    run_again,
    start_agent,
)
from labrats.github.requests.new_heads import run_on_new_head
from labrats.github.requests.repairs import repair
from labrats.github.requests.replies import reply
from labrats.github.requests.thread_jobs import ForeignPullRequest, MustWait, RequestFailed, ThreadJobs
from labrats.intake.thread_requests import read_request, remove_request, replace_request, request_key
from labrats.model.errors import Conflict, IllegalMove, Invalid, NotFound, RetryLater
from labrats.model.thread_requests import NOTHING, ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Changed
from labrats.work_queue import WorkQueue, work_forever, work_once

log = structlog.get_logger()


WORKERS: Final = 8
"""Requests of as many threads are carried out at a time. A repair reads logs of GitHub, which may take minutes."""

_Thread = tuple[str, int | None]


class ThreadRequests:
    """Carries out the requests that webhook sources have stored: those of a thread one at a time, in their order."""

    def __init__(self, jobs: ThreadJobs) -> None:
        self._jobs = jobs
        self._work = WorkQueue()
        self._threads: dict[str, _Thread] = {}
        self._lanes: dict[_Thread, deque[str]] = {}
        """The requests of each thread that has a worker, which wait for it."""

    async def run(self) -> None:
        """Carry out requests until cancelled."""
        await self._jobs.catalog.synced.wait()  # an agent that the watch has yet to report is not missing
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch(), name="watch-thread-requests")
            for number in range(WORKERS):
                loops.create_task(work_forever(self._work, self._work_in_order, "request"), name=f"requests-{number}")

    async def _watch(self) -> None:
        async for change in self._jobs.store.watch(WebhookSource):
            if isinstance(change, Changed):
                for request in change.resource.status.thread_requests:
                    key = request_key(change.resource, request)
                    if request.answer is None and not self._work.has_timer(key):
                        target = request.target
                        self._threads[key] = (target.repository.lower(), target.number)
                        self._work.add(key)

    async def _work_in_order(self, key: str) -> None:
        """Carry out a request and those of its thread that come meanwhile, or leave it to the worker of the thread."""
        if (thread := self._threads.get(key)) is None:
            return  # it has been answered since it was added
        if (lane := self._lanes.get(thread)) is not None:
            if key not in lane:
                lane.append(key)
            return
        lane = self._lanes[thread] = deque([key])
        try:
            while lane:
                await work_once(self._work, self._carry_out, lane.popleft(), "request")
        finally:
            del self._lanes[thread]

    async def _carry_out(self, key: str) -> None:
        """Carry out a request, and store its answer.

        The watch may still report a request as open that has just been answered, so the source is read.
        """
        with suppress(NotFound):  # the source was deleted
            source, request = await read_request(self._jobs.store, key)
            if request and request.answer is None and not await self._answer(key, source, request):
                return
        self._threads.pop(key, None)

    async def _answer(self, key: str, source: WebhookSource, request: ThreadRequest) -> bool:
        """Carry out a request, and store its answer. Return whether that is done; else it is tried again later."""
        try:
            answer = await self._answer_to(source, request)
        except MustWait as wait:
            self._work.add_later(key, wait.delay_seconds)
            return False
        except ForeignPullRequest:
            await remove_request(self._jobs.store, source, request, is_remembered=False)
            return True
        except RetryLater as error:
            if self._jobs.clock.now() - request.received_at < GIVEN_UP_AFTER:
                raise
            log.warning("request given up", source=source.name, request=request.id, reason=str(error))
            answer = NOTHING
        if answer == NOTHING:
            await remove_request(self._jobs.store, source, request)
        else:
            await replace_request(self._jobs.store, source, replace(request, answer=answer))
        return True

    async def _answer_to(self, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
        """Carry out a request, and return its answer.

        Raises MustWait, ForeignPullRequest, RetryLater; NotFound if the source was deleted.
        """
        jobs = self._jobs
        try:
            match request.action:
                case ThreadAction.RERUN:
                    return await run_on_new_head(jobs, source, request)
                case _ if request.job:
                    return replace(await click(jobs, source, request), reaction=None)
                case ThreadAction.CANCEL:
                    return await cancel(jobs, source, request)
                case ThreadAction.RETRY if request.model:
                    return await run_again(jobs, source, request)
                case ThreadAction.RETRY:
                    return await retry(jobs, source, request)
                case ThreadAction.PUBLISH:
                    return await publish_again(jobs, source, request)
                case ThreadAction.REPLY:
                    return await reply(jobs, source, request)
                case ThreadAction.MENTION:
                    return await answer_mention(jobs, source, request)
                case ThreadAction.REPAIR:
                    return await repair(jobs, source, request)
                case _:
                    return await start_agent(jobs, source, request)
        except RequestFailed as reason:
            if request.job:  # a check has no comments
                return NOTHING
            return ThreadAnswer(reaction=REFUSED, text=str(reason))
        except Conflict as error:
            raise RetryLater(str(error)) from error
        except (Invalid, IllegalMove, RefusedByGitHub, NoAccess) as error:
            if request.action is ThreadAction.RERUN:  # the report of the job says that it runs again
                return ThreadAnswer(text=f"The job {request.job} could not run once more: {error}.")
            if request.action is ThreadAction.REPAIR or request.job:  # there is no comment to answer
                log.warning(
                    "request from a check not carried out", source=source.name, request=request.id, reason=str(error)
                )
                return NOTHING
            return ThreadAnswer(reaction=REFUSED, text=f"This is not possible: {error}.")
