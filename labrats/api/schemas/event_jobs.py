"""The jobs that an event started, in the answers to events and webhook deliveries."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from labrats.api.schemas.base import ResponseBody
from labrats.model.job import Job


class EventsJob(ResponseBody):
    """A job that an event started."""

    job_id: str = Field(examples=["ir-3ab1c2d4"])
    agent: str = Field(description="The name of the agent that runs it.", examples=["ai-reviewer"])


def event_jobs_view(jobs: Mapping[str, Job]) -> dict[str, Any]:
    """Return the fields `matched` and `jobs` of an answer. jobs: by the names of their agents."""
    return {"matched": len(jobs), "jobs": [{"jobId": job.id, "agent": agent} for agent, job in jobs.items()]}
