"""Events: what happened elsewhere becomes a job of each agent that it concerns."""

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
    """Something that happened."""

    source: Label = Field(description="Where: as triggers name it.", examples=["github"])
    event: Label = Field(description="What: as triggers name it.", examples=["pull_request.opened"])
    payload: dict[str, Any] = Field(
        default={},
        description="What the source says of it. A repository in it, in GitHub's shape, is what the jobs work on.",
        examples=[{"repository": {"full_name": "octocat/hello-world"}}],
    )


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
    jobs = await services.admission.admit_all(requests, intent.job_names if intent else None)
    return json_response(event_jobs_view(jobs))
