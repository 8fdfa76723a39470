"""The texts of a job: its prompt with the agent's instructions, its whole result, and its log as plain text."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

from fastapi import Request
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from labrats.api.http.json_body import json_response
from labrats.api.http.large_answer import LargeAnswer
from labrats.api.openapi import answers
from labrats.api.routes.job_access import JobId, own_job
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.services import Services
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import NotFound
from labrats.model.job import Job, KeyReference
from labrats.model.protocol import LogEvent, events_in

router = api_router("Jobs")

EXAMPLE_LOG: Final = "reading the issue\nrunning the tests\n"


class PromptView(ResponseBody):
    """The texts for the agent."""

    prompt: str = Field(examples=["Add a --version flag to the command line."])
    instructions: str | None = Field(description="The agent's instructions; null without an agent.")


class ResultView(ResponseBody):
    """The agent's answer."""

    result: Any = Field(description="Null if the job has no result.", examples=["Done, see the branch."])


class PlainLog(StreamingResponse):
    """The lines of a log."""

    media_type = "text/plain"


@router.get(
    "/api/jobs/{job_id}/prompt",
    responses=answers(200, PromptView, "The prompt", 403, 404),
    summary="Get a job's prompt",
)
async def get_prompt(request: Request, job_id: JobId) -> Response:
    """Return the job's prompt, with the event or the parent's result in it, and the instructions of its agent."""
    services, job = services_of(request), await own_job(request, job_id)
    prompt = job.spec.prompt if job.prompt_ref is None else await _text(services, job.prompt_ref)
    if prompt is None:
        raise NotFound(f"the job {job_id} has no prompt yet, or its prompt was deleted")
    instructions = job.instructions_ref and await _text(services, job.instructions_ref)
    return json_response({"prompt": prompt, "instructions": instructions})


async def _text(services: Services, reference: KeyReference) -> str | None:
    """Return the text in a ConfigMap; None if it is not there."""
    try:
        return (await services.store.get(ConfigMap, reference.name)).data.get(reference.key)
    except NotFound:
        return None


@router.get(
    "/api/jobs/{job_id}/result",
    responses=answers(200, ResultView, "The result", 403, 404),
    summary="Get a job's result",
)
async def get_result(request: Request, job_id: JobId) -> Response:
    """Return the agent's whole answer, which may be large. Lists and `omit=result` leave it out."""
    services, job = services_of(request), await own_job(request, job_id)

    async def answer() -> Response:
        try:
            return json_response({"result": await result_of(services, job)})
        except NotFound as error:
            raise NotFound(f"the result of the job {job_id} was deleted with its output, or is too large") from error

    return await with_result_of(job, request, answer)


async def with_result_of(job: Job, request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
    """Return an answer that contains the whole result of a job. A caller gets one with a large result at a time."""
    if not job.status.result_cut:
        return await answer()
    return LargeAnswer(answer, services_of(request).large_answers, caller_of(request).id)


async def result_of(services: Services, job: Job) -> Any:
    """Return the whole result of a job. Raises NotFound if it was too large for the job, and is no longer retained."""
    return await services.runner.result(job.attempt_name) if job.status.result_cut else job.status.result


def plain_log(services: Services, job: Job) -> Response:
    """Return the log of all attempts so far as text, one line for each event."""
    return PlainLog(_lines(services, job))


async def _lines(services: Services, job: Job) -> AsyncGenerator[str]:
    for number in range(1, job.status.attempts + 1):
        async with aclosing(services.runner.read(AttemptName(job.id, number), follow=False)) as batches:
            async for lines in batches:
                if text := "".join(f"{each.text}\n" for each in events_in(lines) if isinstance(each, LogEvent)):
                    yield text
                await asyncio.sleep(0)  # also when nothing is sent, which would let other requests run
