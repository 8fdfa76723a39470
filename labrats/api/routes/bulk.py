"""Actions on all jobs that match a filter."""

from typing import Final, Literal

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.bulk_actions import BulkAction
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.jobs import checked_owner
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Label, RequestBody, ResponseBody, Time
from labrats.api.schemas.job import Status
from labrats.index.jobs import JobFilter
from labrats.model.errors import Conflict, Invalid, Problem

router = api_router("Jobs")

MOST_JOBS: Final = 10_000
"""Jobs that one action may concern."""


class BulkFilter(RequestBody):
    """Conditions on jobs, as in the list of jobs. An absent one matches every job, except `status`."""

    status: list[Status] = Field(
        default=[],
        max_length=5,
        description="Without one, `cancel` concerns waiting and active jobs, and `retry` failed ones.",
    )
    type: Label | None = None
    source: Label | None = None
    agent_role: Label | None = None
    repo: Label | None = None
    chain_id: Label | None = None
    provider: Label | None = None
    model: Label | None = None
    failed_code: Label | None = None
    owner: Label | None = None
    since: Time | None = Field(default=None, alias="from", strict=False, description="Earliest time of creation.")
    until: Time | None = Field(default=None, alias="to", strict=False, description="Time before which it was created.")
    q: Label | None = Field(default=None, description="Text in the job's id, type, source, repo or title.")


class Bulk(RequestBody):
    """An action on many jobs."""

    model_config = RequestBody.model_config | {
        "json_schema_extra": {
            "examples": [{"action": "retry", "filter": {"failedCode": "rate_limited"}, "expected": 9}]
        }
    }

    action: Literal["cancel", "retry"]
    filter: BulkFilter
    expected: int = Field(
        ge=1, le=MOST_JOBS, description="The number of jobs that match, as the caller has seen it. Another is a 409."
    )


class BulkAccepted(ResponseBody):
    """The action has begun."""

    jobs: int = Field(description="The number of jobs that it concerns.", examples=[9])


@router.post(
    "/api/jobs/bulk",
    status_code=202,
    responses=answers(202, BulkAccepted, "The action has begun", 400, 403, 409, 413, 415, 422),
    summary="Cancel or retry many jobs",
)
async def act_on_jobs(request: Request, body: Bulk) -> Response:
    """Cancel or retry all jobs that match the filter now, in the background; the feed of changes shows the progress.

    Jobs whose state does not allow the action are left out. An engine that stops meanwhile leaves the rest undone.
    """
    services, caller = services_of(request), caller_of(request)
    wanted = JobFilter(
        status=body.filter.status or (["failed"] if body.action == "retry" else ["waiting", "active"]),
        owner=checked_owner(caller, body.filter.owner),
        **body.filter.model_dump(exclude={"status", "owner"}),
    )
    ids = await services.job_index.ids_of(wanted, MOST_JOBS + 1)
    if len(ids) > MOST_JOBS:
        raise Invalid(Problem("filter", f"matches more than {MOST_JOBS:,} jobs; narrow it down"))
    if len(ids) != body.expected:
        raise Conflict(f"the number of matching jobs is {len(ids)} by now, not {body.expected}; look at them again")
    services.bulk_actions.add(BulkAction(body.action, ids, caller))
    return json_response({"jobs": len(ids)}, 202)
