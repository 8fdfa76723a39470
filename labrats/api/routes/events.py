"""Events from callers. Each starts the agents whose triggers match."""

from typing import Any

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Label, RequestBody, ResponseBody
from labrats.api.schemas.event_jobs import EventsJob, event_jobs_view
from labrats.intake.event_requests import event_requests
from labrats.intake.events import IncomingEvent

router = api_router("Events")


class Event(RequestBody):
    """An event from outside."""

    source: Label = Field(description="The origin of the event, as in triggers.", examples=["github"])
    event: Label = Field(description="The name of the event, as in triggers.", examples=["pull_request.opened"])
    payload: dict[str, Any] = Field(
        default={},
        description="The source's description of the event. Jobs clone the repository in it, if in GitHub's format.",
        examples=[{"repository": {"full_name": "octocat/hello-world"}}],
    )


class Ingested(ResponseBody):
    """The result of an event."""

    matched: int = Field(description="The number of agents that the event started.", examples=[1])
    jobs: list[EventsJob]


@router.post(
    "/api/events/ingest",
    responses=answers(200, Ingested, "The jobs are on stable storage", 400, 409, 413, 415, 422, 429),
    summary="Send an event",
)
async def ingest(request: Request, body: Event, idempotency_key: IdempotencyKey = None) -> Response:
    """Create a job for each agent with an enabled trigger for the event: for all of them, or for none after a failure.
    With an Idempotency-Key, jobs created before a failure stay, and the same request creates the rest.

    An event without a matching trigger is not an error. A body may have 25 MiB; agents get the beginning of an event
    that is too long for a prompt.
    """
    services, caller = services_of(request), caller_of(request)
    intent = Intent.of(idempotency_key, caller.id, body)
    event = IncomingEvent(body.source, body.event, body.payload)
    requests = event_requests(event, services.catalog, caller.id)
    jobs = await services.admission.admit_all(requests, intent.job_names if intent else None)
    return json_response(event_jobs_view(jobs))
