"""Requests from threads on GitHub: stored in the status of their webhook source, until they are answered.

A receiver may neither read jobs nor change them. The controller carries the requests out, and the publisher writes the
answers.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from labrats.model.errors import Overloaded
from labrats.model.job import Job
from labrats.model.report import ReportTarget
from labrats.model.thread_requests import (
    ANSWERED_KEPT,
    MOST_OPEN,
    MOST_UNTRUSTED,
    MOST_UNTRUSTED_OF_THREAD,
    REQUEST_ANNOTATION,
    ThreadAction,
    ThreadRequest,
)
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Store, compare_and_set

_RERUN: Final = "rerun-"
_RETRY_SECONDS: Final = 10.0


def rerun_request_for(job: Job, target: ReportTarget, url: str, now: datetime) -> ThreadRequest:
    """Return the publisher's request to run a job once more. target: the pull request with its new head. url: its page.

    Each attempt of the job has one request.
    """
    return ThreadRequest(
        id=f"{_RERUN}{job.metadata.uid}-{job.status.attempts}",
        action=ThreadAction.RERUN,
        event="pull_request.synchronize",
        target=target,
        received_at=now,
        url=url,
        untrusted=job.spec.untrusted,
        job=job.id,
    )


def is_rerun_on_new_head(job: Job) -> bool:
    """Return whether such a request has started the job."""
    return job.metadata.annotations.get(REQUEST_ANNOTATION, "").partition("/")[2].startswith(_RERUN)


def request_key(source: WebhookSource, request: ThreadRequest) -> str:
    """Return the key by which `read_request` finds a request."""
    return f"{source.name}/{request.id}"


async def read_request(store: Store, key: str) -> tuple[WebhookSource, ThreadRequest | None]:
    """Return the source, and its request as it is now; None if it is no longer stored. Raises NotFound."""
    name, _, request_id = key.partition("/")
    source = await store.get(WebhookSource, name)
    return source, next((each for each in source.status.thread_requests if each.id == request_id), None)


async def add_request(store: Store, source: WebhookSource, request: ThreadRequest) -> None:
    """Store a request, unless it is stored or answered already. Raises Overloaded, NotFound, RetryLater."""

    def change(stored: WebhookSource) -> WebhookSource:
        status = stored.status
        if request.id in status.answered_requests or request.id in {each.id for each in status.thread_requests}:
            return stored
        if _are_too_many(status.thread_requests, request):
            raise Overloaded("too many commands are waiting; deliver it again later", _RETRY_SECONDS)
        return replace(stored, status=replace(status, thread_requests=(*status.thread_requests, request)))

    await compare_and_set(store, lambda: store.get(WebhookSource, source.name), change)


def _are_too_many(waiting: Sequence[ThreadRequest], request: ThreadRequest) -> bool:
    """Return whether so many requests are waiting that a further one is refused."""
    untrusted = [each for each in waiting if each.untrusted]
    of_thread = [each for each in untrusted if _thread(each) == _thread(request)]
    return len(waiting) >= MOST_OPEN or (
        request.untrusted and (len(untrusted) >= MOST_UNTRUSTED or len(of_thread) >= MOST_UNTRUSTED_OF_THREAD)
    )


def _thread(request: ThreadRequest) -> tuple[str, int | None]:
    return request.target.repository.lower(), request.target.number


async def replace_request(store: Store, source: WebhookSource, request: ThreadRequest) -> None:
    """Store the new state of a request. Raises NotFound, RetryLater."""

    def change(stored: WebhookSource) -> WebhookSource:
        requests = tuple(request if each.id == request.id else each for each in stored.status.thread_requests)
        return replace(stored, status=replace(stored.status, thread_requests=requests))

    await compare_and_set(store, lambda: store.get(WebhookSource, source.name), change)


async def remove_request(
    store: Store, source: WebhookSource, request: ThreadRequest, *, is_remembered: bool = True
) -> None:
    """Remove an answered request, and remember its id. Raises NotFound, RetryLater.

    is_remembered: false for a request that concerns no job. Comments and failed checks of other pull requests would
    displace the commands, which must not be carried out again.
    """

    def change(stored: WebhookSource) -> WebhookSource:
        status = stored.status
        requests = tuple(each for each in status.thread_requests if each.id != request.id)
        if len(requests) == len(status.thread_requests):
            return stored  # it is removed already
        answered = (*status.answered_requests, *([request.id] if is_remembered else []))[-ANSWERED_KEPT:]
        return replace(stored, status=replace(status, thread_requests=requests, answered_requests=answered))

    await compare_and_set(store, lambda: store.get(WebhookSource, source.name), change)
