"""Repairs of failed checks: one job for each commit of the engine with failed checks, up to a bound.

The attempts at a pull request are stored, each under a name of its own, before their job is created. So the bound holds
when the engine is killed, and when jobs are deleted.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

from labrats.github.client.access import READ, READ_PULL_REQUESTS
from labrats.github.events.failed_checks import repairing_trigger
from labrats.github.publisher.pull_request import OPEN
from labrats.github.requests.check_failures import CheckFailure, read_failures
from labrats.github.requests.thread_jobs import (
    WAIT_FOR_JOB_SECONDS,
    ForeignPullRequest,
    MustWait,
    ThreadJobs,
    names_for,
)
from labrats.intake.event_authorization import is_about_untrusted_commits
from labrats.intake.event_requests import request_of
from labrats.intake.events import IncomingEvent
from labrats.model.agent import CiLoop
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import Conflict
from labrats.model.job import OWNER_PREFIX
from labrats.model.record import Metadata
from labrats.model.thread_requests import NOTHING, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import GITHUB, WebhookSource

WAIT_FOR_CHECKS_SECONDS: Final = 10.0
LONGEST_WAIT: Final = timedelta(minutes=10)
"""Time for which other checks of the commit are awaited, so that one job repairs all."""

_COMMIT: Final = "commit"
_FIELDS: Final = ("number", "title", "body", "state", "html_url", "user", "author_association")
_USED_UP: Final = (
    "The checks of this pull request still fail after {count} {attempts} of `{agent}` to repair them. "
    "It makes no further one: please have a look."
)


async def repair(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
    """Start the agent that repairs the checks of a commit, once.

    Raises ForeignPullRequest where no job made the pull request. Raises MustWait while jobs work on the pull request,
    or other checks of the commit run.
    """
    if await jobs.admission.find(names := names_for(source, request)):
        return NOTHING
    if not await jobs.of_pull_request(source, request):
        raise ForeignPullRequest
    agent = jobs.catalog.agents_by_trigger_name.get(request.agent or "")
    trigger = repairing_trigger(agent, request.event) if agent and agent.spec.enabled else None
    if agent is None or trigger is None or trigger.ci_loop is None:
        return NOTHING
    if any(map(jobs.is_busy, await jobs.of(source, request))):
        raise MustWait(WAIT_FOR_JOB_SECONDS)
    access = await jobs.access.open(request.target, request.id)
    pull_request = await access.repository.get(
        f"/pulls/{request.target.pull_request}", dict[str, Any], READ_PULL_REQUESTS
    )
    head = _head(pull_request)
    if pull_request.get("state") != OPEN or head.get("sha") != request.target.head_sha:
        return NOTHING
    may_wait = jobs.clock.now() - request.received_at < LONGEST_WAIT
    failures = await read_failures(access, str(head.get("ref")), str(head.get("sha")), may_wait=may_wait)
    if failures is None:
        raise MustWait(WAIT_FOR_CHECKS_SECONDS)
    if not failures:
        return NOTHING
    if not await _has_attempt(jobs, source, request, trigger.ci_loop):
        return _used_up(trigger.ci_loop, request)
    repository = await access.repository.get("", dict[str, Any], READ)
    event = _event(request, failures, pull_request, repository)
    wanted = request_of(event, agent, trigger, jobs.catalog, f"{OWNER_PREFIX}{source.name}", source)
    # The author of the pull request is the engine itself, so the trust is that of its commits.
    untrusted = is_about_untrusted_commits(event) or await jobs.is_about_untrusted_commits(source, request)
    await jobs.admission.create(dataclasses.replace(wanted, untrusted=untrusted), names)
    return NOTHING


async def _has_attempt(jobs: ThreadJobs, source: WebhookSource, request: ThreadRequest, loop: CiLoop) -> bool:
    """Store the attempt at this commit. Return False if the attempts at the pull request are used up."""
    identity = f"{source.metadata.uid}/{request.agent}/{request.url}"
    prefix = f"ci-attempt-{sha256(identity.encode()).hexdigest()[:32]}"
    for number in range(1, loop.attempts_per_pull_request + 1):
        metadata = Metadata(name=f"{prefix}-{number}", owner=source.as_owner())
        note = ConfigMap(metadata=metadata, data={_COMMIT: request.target.head_sha or ""})
        with suppress(Conflict):
            await jobs.store.create(note)
            return True
        if (await jobs.store.get(ConfigMap, note.name)).data == note.data:
            return True
    return False


def _used_up(loop: CiLoop, request: ThreadRequest) -> ThreadAnswer:
    count = loop.attempts_per_pull_request
    text = _USED_UP.format(count=count, attempts="attempt" if count == 1 else "attempts", agent=request.agent)
    return ThreadAnswer(text=text, label=loop.label or None, key=f"checks of {request.agent}")


def _event(
    request: ThreadRequest,
    failures: Sequence[CheckFailure],
    pull_request: Mapping[str, Any],
    repository: Mapping[str, Any],
) -> IncomingEvent:
    """Return the event for the job: the failures first, since a long event is cut at its end."""
    head = _head(pull_request)
    payload = {
        "action": "completed",
        "failures": [dataclasses.asdict(failure) for failure in failures],
        "pull_request": {
            **{name: pull_request.get(name) for name in _FIELDS},
            "head": {"ref": head.get("ref"), "sha": head.get("sha"), "repo": _brief(head.get("repo") or {})},
        },
        "repository": _brief(repository),
    }
    return IncomingEvent(GITHUB, request.event, payload)


def _head(pull_request: Mapping[str, Any]) -> Mapping[str, Any]:
    head = pull_request.get("head")
    return head if isinstance(head, Mapping) else {}


def _brief(repository: Mapping[str, Any]) -> dict[str, Any]:
    return {name: repository.get(name) for name in ("id", "full_name", "default_branch", "clone_url")}
