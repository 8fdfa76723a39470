"""Actions on all jobs that match a filter."""

from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.bulk_actions import BulkAction, Target
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.job_filters import checked_owner
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Label, RequestBody, ResponseBody, Time
from labrats.api.schemas.job import Status
from labrats.index.job_filter import JobFilter
from labrats.model.errors import AccessDenied, Conflict, Invalid, Problem

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
    ended_since: Time | None = Field(default=None, alias="endedFrom", strict=False, description="Earliest end.")
    ended_until: Time | None = Field(
        default=None, alias="endedTo", strict=False, description="Time before which the job ended."
    )
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
    """The action begins."""

    id: str = Field(description="Names the action in `/api/jobs/bulk/{id}`.", examples=["bulk-action-3f0a4b7e9c553d1f"])
    jobs: int = Field(description="The number of jobs that it concerns.", examples=[9])


class BulkProgress(BulkAccepted):
    """An action and its progress."""

    action: Literal["cancel", "retry"]
    done: int = Field(description="Number of jobs that it has come to.", examples=[9])
    changed: int = Field(
        description="The number of them to which it applied. It leaves out jobs that ended or were retried meanwhile.",
        examples=[8],
    )
    finished_at: datetime | None = Field(description="Null until all jobs are done.", examples=["2030-01-01T12:00:02Z"])


@router.post(
    "/api/jobs/bulk",
    status_code=202,
    responses=answers(202, BulkAccepted, "The action begins", 400, 403, 409, 413, 415, 422),
    summary="Cancel or retry many jobs",
)
async def act_on_jobs(request: Request, body: Bulk) -> Response:
    """Cancel or retry all jobs that match the filter now, in the background.

    `/api/jobs/bulk/{id}` shows the progress. The action ends with the engine that carries it out: after a restart,
    send the request again for the rest of the jobs. Jobs whose state does not allow it, or that have ended or were
    retried meanwhile, are left out.
    """
    services, caller = services_of(request), caller_of(request)
    owner = checked_owner(caller, body.filter.owner)
    wanted = JobFilter(
        status=body.filter.status or (["failed"] if body.action == "retry" else ["waiting", "active"]),
        owner=owner,
        **body.filter.model_dump(exclude={"status", "owner"}),
    )
    targets = [Target(*each) for each in await services.job_index.ends_of(wanted, MOST_JOBS + 1)]
    if len(targets) > MOST_JOBS:
        raise Invalid(Problem("filter", f"matches more than {MOST_JOBS:,} jobs; narrow it down"))
    if len(targets) != body.expected:
        raise Conflict(f"the number of matching jobs is {len(targets)} by now, not {body.expected}; look at them again")
    action = BulkAction(action=body.action, jobs=len(targets), owner=owner, by=caller.id)
    action_id = await services.bulk_actions.add(action, targets)
    return json_response({"id": action_id, "jobs": len(targets)}, 202)


@router.get(
    "/api/jobs/bulk/{action_id}",
    responses=answers(200, BulkProgress, "The action", 403, 404, 422),
    summary="Get the progress of an action on many jobs",
)
async def get_bulk_action(
    request: Request,
    action_id: Annotated[str, Field(description="The action's id.", examples=["bulk-action-3f0a4b7e9c553d1f"])],
) -> Response:
    """Return how many jobs an action has come to.

    It can be looked up until an hour after its end, as one of the caller's latest 100, but not after a restart of the
    engine that has interrupted it.

    On a cluster, the counts of an action that another replica carries out are up to 5 seconds old.
    """
    caller, action = caller_of(request), await services_of(request).bulk_actions.get(action_id)
    if not (caller.sees_all if action.owner is None else caller.may_see(action.owner)):
        raise AccessDenied(f"the action {action_id} belongs to another API key")
    return json_response(
        {
            "id": action_id,
            "action": action.action,
            "jobs": action.jobs,
            "done": action.done,
            "changed": action.changed,
            "finishedAt": action.finished_at,
        }
    )
