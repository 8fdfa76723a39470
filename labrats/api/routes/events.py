"""Events: what happened elsewhere becomes a job of each agent that it concerns."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Label, RequestBody, ResponseBody
from labrats.api.schemas.submission import refuse_when_full
from labrats.api.services import Services
from labrats.intake.events import IncomingEvent, clone_url_of, git_ref_of
from labrats.intake.repositories import judged_repo
from labrats.intake.request import JobNames, JobRequest, event_requests, fresh_names
from labrats.model.job import Job
from labrats.settings import EngineSettings

router = api_router("Events")

AGENTS_ANNOTATION: Final = "labrats.work/event-agents"
"""On a job that came of an event under an Idempotency-Key: the names of all agents that this event started."""


class Event(RequestBody):
    """Something that happened."""

    source: Label = Field(description="Where: as triggers name it.", examples=["github"])
    event: Label = Field(description="What: as triggers name it.", examples=["pull_request.opened"])
    payload: dict[str, Any] = Field(
        default={},
        description="What the source says of it. A repository in it, in GitHub's shape, is what the jobs work on.",
        examples=[{"repository": {"full_name": "octocat/hello-world"}}],
    )


class EventsJob(ResponseBody):
    """A job that came of an event."""

    job_id: str = Field(examples=["ir-3ab1c2d4"])
    agent: str = Field(description="The name of the agent that it is of.", examples=["ai-reviewer"])


class Ingested(ResponseBody):
    """What came of an event."""

    matched: int = Field(description="How many agents it started.", examples=[1])
    jobs: list[EventsJob]


@router.post(
    "/api/events/ingest",
    responses=answers(200, Ingested, "The jobs are on stable storage", 400, 409, 413, 415, 422, 429),
    summary="Send an event",
)
async def ingest(request: Request, asked: Event, idempotency_key: IdempotencyKey = None) -> Response:
    """Make a job of each agent with an enabled trigger for the event: of all of them, or, where that fails, of none.
    Under an Idempotency-Key what was made stays, and the same request makes the rest.

    An event that concerns nobody is no error. A body may have 25 MiB; of an event that is too long for a prompt the
    agents get the beginning.
    """
    services, caller = services_of(request), caller_of(request)
    intent = Intent.of(idempotency_key, caller.id, asked)
    event = IncomingEvent(asked.source, asked.event, asked.payload)
    requests = event_requests(event, services.catalog, caller.id)
    return json_response(ingested(await make_jobs(services, event, requests, intent)))


async def make_jobs(
    services: Services, event: IncomingEvent, requests: Sequence[JobRequest], intent: Intent | None
) -> Mapping[str, Job]:
    """The jobs of an event, by the names of their agents.

    intent: by which the same event, sent again, is known. It makes then what is missing, because the engine was ended
    in the middle of it or the storage broke off. Raises Invalid for a repository that may not be reached,
    429, and as Intake.create_all.
    """
    made = await _made_before(services, intent) if intent else {}
    requests = _still_to_make(requests, made)
    if not requests:
        return made
    await asyncio.to_thread(getattr, event, "as_text")  # of a large event that takes long
    requests = await _with_repository(requests, event, services.settings)
    prepared = [services.admission.prepare(each) for each in requests]
    refuse_when_full(services)
    jobs = await services.admission.create_all(list(zip(prepared, _names(requests, intent), strict=True)))
    return made | dict(zip(map(_name_of, requests), jobs, strict=True))


def ingested(jobs: Mapping[str, Job]) -> dict[str, Any]:
    """What came of an event, as Ingested describes it. jobs: by the names of their agents."""
    return {"matched": len(jobs), "jobs": [{"jobId": job.id, "agent": agent} for agent, job in jobs.items()]}


async def _made_before(services: Services, intent: Intent) -> dict[str, Job]:
    """The jobs that this Idempotency-Key made before, by the names of their agents. Raises 422 for another request."""
    names = {agent.name: intent.job_names(agent.name) for agent in services.catalog.agents}
    candidates = [candidate for each in names.values() for candidate in each.candidates]
    taken = {job.id for job in await services.store.get_many(Job, candidates)}
    looked_up = {
        agent: await services.admission.find(each) for agent, each in names.items() if taken & {*each.candidates}
    }
    return {agent: job for agent, job in looked_up.items() if job}


def _still_to_make(requests: Sequence[JobRequest], made: Mapping[str, Job]) -> Sequence[JobRequest]:
    """All of them the first time. After that only what is missing because the engine was ended in the middle of it."""
    if not made:
        return requests
    first = next(iter(made.values()))
    meant = set(first.metadata.annotations.get(AGENTS_ANNOTATION, "").split(","))
    return [each for each in requests if _name_of(each) in meant - made.keys()]


async def _with_repository(
    requests: Sequence[JobRequest], event: IncomingEvent, settings: EngineSettings
) -> Sequence[JobRequest]:
    """The same, to work on the event's repository. Raises Invalid when that may not be reached."""
    if (address := clone_url_of(event)) is None:
        return requests
    repo = await judged_repo(address, "payload.repository.clone_url", settings)
    return [replace(each, repo=repo, git_ref=git_ref_of(event)) for each in requests]


def _names(requests: Sequence[JobRequest], intent: Intent | None) -> list[JobNames]:
    if intent is None:
        return [fresh_names() for _ in requests]
    agents = {AGENTS_ANNOTATION: ",".join(map(_name_of, requests))}
    names = [intent.job_names(_name_of(each)) for each in requests]
    return [replace(each, annotations={**each.annotations, **agents}) for each in names]


def _name_of(request: JobRequest) -> str:
    assert request.agent is not None, "the job of an event is that of an agent"
    return request.agent.name
