"""The attempts of a job, each with its times, outcome and usage."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.job_access import JobId, own_job
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.schemas.job import OutputsView, Status, UsageView, outputs_view, usage_view
from labrats.api.services import Services
from labrats.model.attempt_name import AttemptName
from labrats.model.git_repo import without_tokens
from labrats.model.job import FailedCode, Job, Outputs, Usage
from labrats.model.phases import API_STATUS, Phase
from labrats.model.protocol import ErrorEvent, ResultEvent, events_in
from labrats.ports import Gone

router = api_router("Jobs")


class AttemptView(ResponseBody):
    """One attempt of a job. Times, usage and outputs are null once its output was deleted."""

    attempt: int = Field(examples=[1])
    status: Status = Field(description="`active`, `completed`, `failed` or `cancelled`.", examples=["completed"])
    started_at: datetime | None = Field(description="Time of its first event.", examples=["2030-01-01T12:00:02Z"])
    finished_at: datetime | None = Field(description="Time of its last event.", examples=["2030-01-01T12:00:44Z"])
    failed_code: FailedCode | None = Field(description="The reason of a failure, for programs.")
    failed_reason: str | None = Field(description="The reason of a failure, as one sentence for people.")
    usage: UsageView | None
    outputs: OutputsView | None
    k8s_job_name: str | None = Field(alias="k8sJobName", description="Its Job, on Kubernetes.")
    executor_pod_name: str | None = Field(description="Its pod, on Kubernetes.")


class AttemptList(ResponseBody):
    """All attempts of a job, the first one first."""

    attempts: list[AttemptView]


_OUTCOME: Final[Mapping[str, Any]] = {
    "status": API_STATUS[Phase.FAILED],
    "finishedAt": None,
    "failedCode": None,
    "failedReason": None,
    "usage": None,
    "outputs": None,
}
"""The fields of an attempt of which nothing is retained. A job is attempted again only after a failure."""


@router.get(
    "/api/jobs/{job_id}/attempts",
    responses=answers(200, AttemptList, "The attempts", 403, 404),
    summary="List a job's attempts",
)
async def list_attempts(request: Request, job_id: JobId) -> Response:
    """List all attempts of a job. The job's detail has the sum of their usage, and the outcome of the latest."""
    services, job = services_of(request), await own_job(request, job_id)
    attempts = []
    for number in range(1, job.status.attempts + 1):
        attempts.append(await _view(services, job, number))
        await asyncio.sleep(0)  # each takes some 40 ms if its output is long
    return json_response({"attempts": attempts})


async def _view(services: Services, job: Job, number: int) -> dict[str, Any]:
    name, is_latest = AttemptName(job.id, number), number == job.status.attempts
    place = await services.runner.place(name)
    known = {
        "attempt": number,
        "startedAt": await _first_event_at(services, name),
        "k8sJobName": place.job_name,
        "executorPodName": place.pod_name,
    }
    if is_latest and job.phase is Phase.RUNNING:
        tail = await services.runner.tail(name)
        return {**_OUTCOME, **known} | {"status": API_STATUS[job.phase]} | _totals(tail.usage, tail.outputs)
    outcome = await _outcome(services, name)
    if is_latest and job.ended:  # the engine may have decided otherwise, after a timeout for example
        outcome |= {"status": API_STATUS[job.phase], "finishedAt": job.status.finished_at}
        outcome |= _failure(job.status.failed_code, job.status.failed_reason)
    return {**_OUTCOME, **known, **outcome}


async def _outcome(services: Services, name: AttemptName) -> dict[str, Any]:
    """Return the outcome of an ended attempt, as far as it is retained."""
    state = await services.runner.find(name)
    if not isinstance(state, Gone):
        return {}
    match state.outcome:
        case ResultEvent() as event:
            return {"status": API_STATUS[Phase.SUCCEEDED], "finishedAt": event.at} | _totals(event.usage, event.outputs)
        case ErrorEvent() as event:
            failure = _failure(None if event.was_stopped else event.code, event.message)
            return {"finishedAt": event.at} | failure | _totals(event.usage, event.outputs)
        case None:
            return _failure(state.code, state.reason) | _totals(state.tail.usage, state.tail.outputs)


async def _first_event_at(services: Services, name: AttemptName) -> datetime | None:
    batches: AsyncGenerator[bytes] = services.runner.read(name, follow=False)
    async with aclosing(batches):
        async for lines in batches:
            for event in events_in(lines):
                return event.at
    return None


def _totals(usage: Usage, outputs: Outputs) -> dict[str, Any]:
    return {"usage": usage_view(usage), "outputs": outputs_view(outputs)}


def _failure(code: FailedCode | None, reason: str | None) -> dict[str, Any]:
    return {"failedCode": code, "failedReason": reason and without_tokens(reason)}
