"""Access to a job by its id, for the routes of jobs."""

from typing import Annotated

from fastapi import Request
from pydantic import Field

from labrats.api.routing import caller_of, services_of
from labrats.model.errors import AccessDenied, NotFound
from labrats.model.job import Job

JobId = Annotated[str, Field(description="The job's id.", examples=["ir-3ab1c2d4"])]


async def own_job(request: Request, job_id: str) -> Job:
    """Return the job. Raises NotFound; AccessDenied for another caller's job."""
    try:
        job = await services_of(request).store.get(Job, job_id)
    except NotFound as error:
        raise NotFound(f"there is no job {job_id}") from error
    if not caller_of(request).may_see(job.spec.owner):
        raise AccessDenied(f"the job {job_id} belongs to another API key")
    return job
