"""Events of a job, in one format for all providers: in pages, or live as server-sent events."""

from math import inf
from typing import Annotated, Any, Final

from fastapi import Query, Request
from msgspec import Raw
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.event_stream import EventStream
from labrats.api.http.json_body import json_response
from labrats.api.http.large_answer import LargeAnswer
from labrats.api.openapi import answers
from labrats.api.routes.event_pages import (
    EventFilter,
    PageRequest,
    PageTooLarge,
    all_attempts,
    bounds,
    in_lower_case,
    page_after,
    page_before,
    search,
)
from labrats.api.routes.event_views import EventView, Kind, event_json
from labrats.api.routes.job_access import JobId, own_job
from labrats.api.routes.job_streams import LastEventId, event_id, parse_event_id, stream
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import ResponseBody, optional
from labrats.model.errors import Invalid, Problem

router = api_router("Jobs")

MAX_EVENTS: Final = 1000

SMALL_PAGE_BYTES: Final = 1024 * 1024
"""Size of the events of a page, as JSON, beyond which the page takes much memory."""

EXAMPLE_STREAM: Final = """\
id: 1-4
data: {"id":"1-4","attempt":1,"at":"2030-01-01T12:00:02Z","kind":"log","text":"reading the issue","origin":"agent"}

data: {"done":true,"status":"completed"}

"""


class EventPage(ResponseBody):
    """A page of events, in order."""

    events: list[EventView]
    next: str | None = Field(
        description="Value of `after` for the next page. Null if the job has ended and this is the last page.",
        examples=["1-4"],
    )
    total: int = optional(
        description="With `q`, and without `before` and `tail`: the number of matching events in the job.",
        examples=[17],
    )
    attempt_total: int = optional(description="With `total` and `attempt`: those of the attempt.", examples=[12])
    first_id: str | None = optional(
        description="With `before` or `tail`: the first event of the job, or of the `attempt`.", examples=["1-1"]
    )
    last_id: str | None = optional(description="With `before` or `tail`: the last one so far.", examples=["1-812"])


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
    before: Annotated[str | None, Query(description="The events right before this one.", examples=["1-812"])] = None,
    tail: Annotated[bool, Query(description="`true`: the last events.")] = False,
    kind: Annotated[list[Kind], Query(description="The event's kind. Repeat it for several.")] = [],  # noqa: B006
    attempt: Annotated[int | None, Query(ge=1, description="Only events of this attempt; not in a stream.")] = None,
    q: Annotated[str, Query(max_length=1000, description="Text in the event. Letters a-z match in either case.")] = "",
    limit: Annotated[int, Query(description="Events on a page; clamped to 1-1000.")] = 100,
    last_event_id: LastEventId = None,
) -> Response:
    """Read the events of all attempts so far, in pages, or follow them as server-sent events."""
    services, job = services_of(request), await own_job(request, job_id)
    position = parse_event_id(last_event_id or after)
    if EventStream.media_type in request.headers.get("accept", ""):
        return EventStream(stream(services, job_id, position, event_json))
    events, limit = EventFilter(frozenset(kind), in_lower_case(q)), min(MAX_EVENTS, max(1, limit))
    attempts = all_attempts(job) if attempt is None else range(attempt, min(attempt, job.status.attempts) + 1)
    is_backwards = before is not None or tail
    if is_backwards and (after is not None or (before is not None and tail)):
        raise Invalid(Problem("after" if after is not None else "before", "excludes `before` and `tail`"))
    wanted = PageRequest(caller_of(request).id, job, attempts, events, limit)

    async def read(most_bytes: float) -> Response:
        answer: dict[str, Any] = {}
        if is_backwards:
            last_read = parse_event_id(before) if before else None
            page = await page_before(services, wanted, last_read, most_bytes)
            answer["firstId"], answer["lastId"] = await bounds(services, job, attempts)
        elif q:
            page = await search(services, wanted, position, most_bytes)
            answer["total"] = page.totals.total()
            if attempt is not None:
                answer["attemptTotal"] = page.totals[attempt]
        else:
            page = await page_after(services, wanted, position, most_bytes)
        has_ended = job.ended or (attempt is not None and attempt < job.status.attempts)
        is_end = page.is_last and has_ended
        last = event_id(*(page.events[-1].place if page.events else position))
        views = [Raw(event.json) for event in page.events]
        return json_response({"events": views, "next": None if is_end else last} | answer)

    try:
        return await read(SMALL_PAGE_BYTES)
    except PageTooLarge:  # a caller gets one such page at a time, which is then read again
        return LargeAnswer(lambda: read(inf), services.large_pages, wanted.caller_id)
