"""The filters of lists, counts and metrics of jobs, as parameters in the query."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import Depends, Query, Request

from labrats.api.routing import caller_of
from labrats.api.schemas.base import Time
from labrats.api.schemas.job import Status
from labrats.index.job_filter import JobFilter
from labrats.model.caller import Caller
from labrats.model.errors import AccessDenied

EndedStatus = Literal["completed", "failed", "cancelled"]


async def field_filter(
    type: Annotated[str | None, Query(description="The job's type.")] = None,  # noqa: A002, the API's word
    source: Annotated[str | None, Query(description="The job's source.")] = None,
    agent_role: Annotated[str | None, Query(alias="agentRole", description="The job's agent.")] = None,
    repo: Annotated[str | None, Query(description="`metadata.repo` of the job.")] = None,
    provider: Annotated[str | None, Query(description="The job's provider.")] = None,
    model: Annotated[str | None, Query(description="The job's model.")] = None,
    failed_code: Annotated[str | None, Query(alias="failedCode", description="The code of the failure.")] = None,
    owner: Annotated[str | None, Query(description="The id of the API key that submitted the job.")] = None,
) -> JobFilter:
    """Return the filter by the values of fields. An empty value matches every job."""
    return JobFilter(
        type=type or None,
        source=source or None,
        agent_role=agent_role or None,
        repo=repo or None,
        provider=provider or None,
        model=model or None,
        failed_code=failed_code or None,
        owner=owner or None,
    )


Fields = Annotated[JobFilter, Depends(field_filter)]


async def job_filter(
    request: Request,
    fields: Fields,
    chain_id: Annotated[str | None, Query(alias="chainId", description="The job's chain.")] = None,
    status: Annotated[list[Status], Query(description="The job's status. Repeat it for several.")] = [],  # noqa: B006
    since: Annotated[Time | None, Query(alias="from", description="Earliest time of creation.")] = None,
    until: Annotated[Time | None, Query(alias="to", description="Time before which the job was created.")] = None,
    ended_since: Annotated[Time | None, Query(alias="endedFrom", description="Earliest end.")] = None,
    ended_until: Annotated[Time | None, Query(alias="endedTo", description="Time before which the job ended.")] = None,
    q: Annotated[
        str | None,
        Query(
            description="Text in the job's id, type, source, repo or title; or an issue or pull request: `#12`, "
            "`pull/12`, `octo-org/api#12` or its URL."
        ),
    ] = None,
) -> JobFilter:
    """Return the filter of a request for lists and counts. Callers other than admins see their own jobs only."""
    return replace(
        fields,
        chain_id=chain_id or None,
        status=status,
        owner=checked_owner(caller_of(request), fields.owner),
        since=since,
        until=until,
        ended_since=ended_since,
        ended_until=ended_until,
        q=q,
    )


def checked_owner(caller: Caller, owner: str | None) -> str | None:
    """Return the owner whose jobs a caller may see: the wanted one, itself, or None for all. Raises AccessDenied."""
    if owner and not caller.may_see(owner):
        raise AccessDenied(f"the jobs of {owner} belong to another API key")
    return owner or (None if caller.sees_all else caller.id)


async def ended_filter(
    fields: Fields,
    status: Annotated[list[EndedStatus], Query(description="The job's status. Repeat it for several.")] = [],  # noqa: B006
) -> JobFilter:
    """Return the filter of a request for metrics. It has no conditions on times, which the request has by itself."""
    return replace(fields, status=status)


WantedJobs = Annotated[JobFilter, Depends(job_filter)]
EndedJobs = Annotated[JobFilter, Depends(ended_filter)]
