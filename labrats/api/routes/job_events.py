"""Events of a job, in one format for all providers: in pages, or live as server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import Query, Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.event_stream import EventStream
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.job_access import JobId, own_job
from labrats.api.routes.job_streams import LastEventId, Position, event_id, parse_event_id, stream
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody, optional
from labrats.api.schemas.job import OutputsView, UsageView, outputs_view, usage_view
from labrats.api.services import Services
from labrats.model.attempt_name import AttemptName
from labrats.model.job import FailedCode, Job
from labrats.model.protocol import (
    AnyEvent,
    ErrorEvent,
    LogEvent,
    OutputEvent,
    PartEvent,
    ResultEvent,
    SessionEvent,
    StatusEvent,
    StoredLine,
    ToolEvent,
    UsageEvent,
    decode_event,
    events_in,
)
from labrats.model.record import encode

router = api_router("Jobs")

MAX_EVENTS: Final = 1000

EXAMPLE_STREAM: Final = """\
id: 1-4
data: {"id":"1-4","attempt":1,"at":"2030-01-01T12:00:02Z","kind":"log","text":"reading the issue"}

data: {"done":true,"status":"completed"}

"""


class EventView(ResponseBody):
    """An event of an attempt, with the fields of its kind."""

    id: str = Field(description="Attempt and number. Continue after this event with `after`.", examples=["1-4"])
    attempt: int = Field(examples=[1])
    at: datetime = Field(examples=["2030-01-01T12:00:02Z"])
    kind: Literal["log", "status", "tool", "usage", "output", "result", "error"] = Field(examples=["log"])
    text: str = optional(description="log: a line of text.", examples=["reading the issue"])
    state: str = optional(description="status: the state of the executor: `started`, `workspace`, `running`, …")
    message: str | None = optional(description="status, error: one sentence for people.")
    call: str = optional(description="tool: the id that a call and its result share.")
    name: str | None = optional(description="tool: the called tool; null in a result.")
    input: Any = optional(description="tool: the arguments; null in a result.")
    output: str | None = optional(description="tool: the output; null in a call.")
    is_error: bool = optional(description="tool: true if the call failed.")
    usage: UsageView = optional(description="usage, result, error: the usage of the attempt so far.")
    outputs: OutputsView = optional(description="output, result, error: the outputs of the attempt so far.")
    result: Any = optional(description="result: the agent's answer; null if it is too large for an event.")
    code: FailedCode = optional(description="error: why the attempt failed, for programs.")
    retry_after_seconds: float | None = optional(
        description="error: the pause that the model's provider asks for, if any."
    )


class EventPage(ResponseBody):
    """A page of events, in order."""

    events: list[EventView]
    next: str | None = Field(
        description="Value of `after` for the next page. Null if the job has ended and this is the last page.",
        examples=["1-4"],
    )


@router.get(
    "/api/jobs/{job_id}/events",
    responses=answers(
        200, EventPage, "A page; with `Accept: text/event-stream`, all events, live", 403, 404, 422,
        text={EventStream.media_type: EXAMPLE_STREAM},
    ),
    summary="Read or follow a job's events",
)  # fmt: skip
async def read_events(
    request: Request,
    job_id: JobId,
    after: Annotated[str | None, Query(description="Starts after the event with this id.", examples=["1-4"])] = None,
    limit: Annotated[int, Query(description="Events on a page; clamped to 1-1000.")] = 100,
    last_event_id: LastEventId = None,
) -> Response:
    """Read the events of all attempts so far, in pages, or follow them as server-sent events."""
    services, job = services_of(request), await own_job(request, job_id)
    position = parse_event_id(last_event_id or after)
    if EventStream.media_type in request.headers.get("accept", ""):
        return EventStream(stream(services, job_id, position, event_json))
    return json_response(await _page(services, job, position, min(MAX_EVENTS, max(1, limit))))


async def _page(services: Services, job: Job, position: Position, limit: int) -> dict[str, Any]:
    views: list[dict[str, Any]] = []
    async with aclosing(_views_after(services, job, position)) as found:
        async for view in found:
            if len(views) == limit:
                return {"events": views, "next": views[-1]["id"]}
            views.append(view)
    if job.ended:
        return {"events": views, "next": None}
    return {"events": views, "next": views[-1]["id"] if views else event_id(*position)}


async def _views_after(services: Services, job: Job, position: Position) -> AsyncGenerator[dict[str, Any]]:
    """Yield the events of all attempts so far, after the position."""
    first, seq = position
    for number in range(first, job.status.attempts + 1):
        after = seq if number == first else 0
        async with aclosing(services.runner.read(AttemptName(job.id, number), after, follow=False)) as batches:
            async for lines in batches:
                for event in events_in(lines):
                    if view := event_view(number, event):
                        yield view


def event_json(attempt: int, stored: StoredLine, line: bytes) -> bytes | None:
    """Return event_view as JSON. The text of a log event, the most frequent kind, is copied without decoding."""
    if stored.is_log:
        head = b'{"id":"%d-%d","attempt":%d,"at":%s' % (attempt, stored.seq, attempt, stored.at)
        return b'%s,"kind":"log","text":%s}' % (head, stored.text)
    event = decode_event(line)
    view = event and event_view(attempt, event)
    return encode(view) if view else None


def event_view(attempt: int, event: AnyEvent) -> dict[str, Any] | None:
    """Return the JSON that EventView describes; None for an event that callers do not see."""
    head = {"id": event_id(attempt, event.seq), "attempt": attempt, "at": event.at}
    match event:
        case LogEvent():
            return head | {"kind": "log", "text": event.text}
        case StatusEvent():
            return head | {"kind": "status", "state": event.state, "message": event.message}
        case ToolEvent():
            call = {"call": event.id, "name": event.name, "input": event.input}
            return head | {"kind": "tool"} | call | {"output": event.output, "isError": event.is_error}
        case UsageEvent():
            return head | {"kind": "usage", "usage": usage_view(event.usage)}
        case OutputEvent():
            return head | {"kind": "output", "outputs": outputs_view(event.outputs)}
        case ResultEvent():
            return head | {"kind": "result", "result": event.result} | _totals(event)
        case ErrorEvent():
            error = {"code": event.code, "message": event.message, "retryAfterSeconds": event.retry_after_seconds}
            return head | {"kind": "error"} | error | _totals(event)
        case PartEvent() | SessionEvent():
            return None  # the whole result, and the session, are in the job's detail


def _totals(event: ResultEvent | ErrorEvent) -> dict[str, Any]:
    return {"usage": usage_view(event.usage), "outputs": outputs_view(event.outputs)}
