"""The feed of changes: one stream for a whole dashboard."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from fastapi import Request
from starlette.responses import Response

from labrats.api.http.event_stream import EventStream
from labrats.api.http.pings import with_pings
from labrats.api.openapi import answers
from labrats.api.routes.job_streams import LastEventId
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.services import Services
from labrats.model.caller import Caller

router = api_router("Jobs")

EXAMPLE_STREAM: Final = """\
id: 5f0c9a1b-16
data: {"counts":{"waiting":1,"active":4,"completed":97,"failed":3,"cancelled":0}}

id: 5f0c9a1b-17
data: {"jobs":[{"id":"ir-3ab1c2d4","status":"active"}],"gone":[],"kinds":["agents"],"counts":{"active":5},\
"activities":{"ir-5cd1a2b3":"Bash: npm test"}}

"""


@router.get(
    "/api/changes",
    response_class=EventStream,
    responses=answers(200, None, "The changes, live", 403, text={EventStream.media_type: EXAMPLE_STREAM}),
    summary="Follow all changes",
)
async def follow_changes(request: Request, last_event_id: LastEventId = None) -> Response:
    """Stream the changes of the jobs that the caller may see, at most four times a second.

    Each event has the items of changed jobs without results in `jobs`, the ids of deleted ones in `gone`, and the
    number of jobs by status in `counts`. If only the activity of running jobs has changed, it is in `activities`, by
    the job's id. Admins also get the `kinds` of resources that have changed. `many` instead of jobs, or `reset` if the
    id in `Last-Event-ID` is unknown, mean that lists have to be read again.
    """
    services = services_of(request)
    return EventStream(_stream(services, caller_of(request), last_event_id))


async def _stream(services: Services, caller: Caller, last_id: str | None) -> AsyncGenerator[bytes]:
    async with (
        aclosing(services.change_feed.read(caller, last_id)) as frames,
        aclosing(with_pings(frames, services.stopping)) as pinged,
    ):
        async for frame in pinged:
            yield frame
