"""Events of a job: what its attempts say, typed, in one vocabulary for all providers; in pages, or live."""

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
from labrats.api.routes.job_streams import LastEventId, Position, event_id, parse_event_id, stream
from labrats.api.routes.jobs import JobId, own_job
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
    """Something that an attempt said. Beside `kind` there are the fields of that kind."""

    id: str = Field(description="Attempt and number: where to read on after it.", examples=["1-4"])
    attempt: int = Field(examples=[1])
    at: datetime = Field(examples=["2030-01-01T12:00:02Z"])
    kind: Literal["log", "status", "tool", "usage", "output", "result", "error"] = Field(examples=["log"])
    text: str = optional(description="log: a line for people.", examples=["reading the issue"])
    state: str = optional(description="status: what the executor is doing: `started`, `workspace`, `running`, …")
    message: str | None = optional(description="status, error: one sentence for people.")
    call: str = optional(description="tool: the call's id, which a call and its answer have in common.")
    name: str | None = optional(description="tool: what is called; null in an answer.")
    input: Any = optional(description="tool: what it is called with; null in an answer.")
    output: str | None = optional(description="tool: what it answered; null in a call.")
    is_error: bool = optional(description="tool: whether it answered with an error.")
    usage: UsageView = optional(description="usage, result, error: what the attempt has consumed so far.")
    outputs: OutputsView = optional(description="output, result, error: what the attempt has made so far.")
    result: Any = optional(description="result: what the agent answered; null where it is too large for an event.")
    code: FailedCode = optional(description="error: why the attempt failed, for programs.")
    retry_after_seconds: float | None = optional(
        description="error: how long the model's provider asks to be left alone; null where it does not say."
    )


class EventPage(ResponseBody):
    """Some events, in order."""

    events: list[EventView]
    next: str | None = Field(
        description="To be sent as `after` to read on. Null when the job has ended and this was all.", examples=["1-4"]
    )


@router.get(
    "/api/jobs/{job_id}/events",
    responses=answers(
        200, EventPage, "A page; or, with `Accept: text/event-stream`, all of them, live", 403, 404, 422,
        text={EventStream.media_type: EXAMPLE_STREAM},
    ),
    summary="Read or follow a job's events",
)  # fmt: skip
async def read_events(
    request: Request,
    job_id: JobId,
    after: Annotated[str | None, Query(description="Begin after the event with this id.", examples=["1-4"])] = None,
    limit: Annotated[int, Query(description="Events on a page; clamped to 1-1000.")] = 100,
    last_event_id: LastEventId = None,
) -> Response:
    """All that the job's attempts have said so far, in pages; to a reader of server-sent events, as it comes."""
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
    """What there is so far, over all attempts."""
    first, seq = position
    for number in range(first, job.status.attempts + 1):
        after = seq if number == first else 0
        async with aclosing(services.runner.read(AttemptName(job.id, number), after, follow=False)) as batches:
            async for lines in batches:
                for event in events_in(lines):
                    if view := event_view(number, event):
                        yield view


def event_json(attempt: int, stored: StoredLine, line: bytes) -> bytes | None:
    """Return event_view as JSON; the text of a log event, of which there are most, is spliced from its line."""
    if stored.is_log:
        head = b'{"id":"%d-%d","attempt":%d,"at":%s' % (attempt, stored.seq, attempt, stored.at)
        return b'%s,"kind":"log","text":%s}' % (head, stored.text)
    event = decode_event(line)
    view = event and event_view(attempt, event)
    return encode(view) if view else None


def event_view(attempt: int, event: AnyEvent) -> dict[str, Any] | None:
    """`event` as EventView describes it; None where it is no business of callers."""
    head = {"id": event_id(attempt, event.seq), "attempt": attempt, "at": event.at}
    match event:
        case LogEvent():
            return head | {"kind": "log", "text": event.text}
        case StatusEvent():
            return head | {"kind": "status", "state": event.state, "message": event.message}
        case ToolEvent():
            called = {"call": event.id, "name": event.name, "input": event.input}
            return head | {"kind": "tool"} | called | {"output": event.output, "isError": event.is_error}
        case UsageEvent():
            return head | {"kind": "usage", "usage": usage_view(event.usage)}
        case OutputEvent():
            return head | {"kind": "output", "outputs": outputs_view(event.outputs)}
        case ResultEvent():
            return head | {"kind": "result", "result": event.result} | _account_of(event)
        case ErrorEvent():
            said = {"code": event.code, "message": event.message, "retryAfterSeconds": event.retry_after_seconds}
            return head | {"kind": "error"} | said | _account_of(event)
        case PartEvent() | SessionEvent():
            return None  # the whole result, and the session, are in the job's detail


def _account_of(event: ResultEvent | ErrorEvent) -> dict[str, Any]:
    return {"usage": usage_view(event.usage), "outputs": outputs_view(event.outputs)}
