"""Events from callers. Each starts the agents whose triggers match."""

import asyncio
from dataclasses import replace
from typing import Any, Final

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.readiness import readiness_for
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Label, RequestBody, ResponseBody
from labrats.api.schemas.concurrency import ConcurrencyView, concurrency_view
from labrats.api.schemas.event_jobs import EventsJob, event_jobs_view
from labrats.api.schemas.job import ChainNext, ConfigView, WorkspaceSetupView, chain_next
from labrats.api.schemas.report import ReportView
from labrats.api.schemas.workspace_setup import setup_view
from labrats.api.services import Services
from labrats.intake.event_authorization import reason_to_ignore
from labrats.intake.event_requests import agent_name, event_requests
from labrats.intake.event_verdicts import Verdict, verdicts
from labrats.intake.events import IncomingEvent, Mismatch
from labrats.intake.job_spec import PreparedJob
from labrats.intake.request import JobRequest
from labrats.model.agent import AiAgent
from labrats.model.errors import Invalid, NoSandbox, NotFound, Problem, TooLarge
from labrats.model.git_repo import without_tokens
from labrats.model.outside_text import shortened
from labrats.model.thread_requests import ThreadAction, ThreadRequest
from labrats.model.webhook_source import GITHUB, WebhookSource

router = api_router("Events")


class Event(RequestBody):
    """An event from outside."""

    source: Label = Field(description="The origin of the event, as in triggers.", examples=["github"])
    event: Label = Field(description="The name of the event, as in triggers.", examples=["pull_request.opened"])
    payload: dict[str, Any] = Field(
        default={},
        description="The source's description of the event. Jobs clone the repository in it, if in GitHub's format.",
        examples=[{"repository": {"full_name": "octocat/hello-world"}}],
    )


class Ingested(ResponseBody):
    """The result of an event."""

    matched: int = Field(description="The number of agents that the event started.", examples=[1])
    jobs: list[EventsJob]
    ignored: str | None = Field(default=None, description="Why the event starts no agent although a trigger matches.")


@router.post(
    "/api/events/ingest",
    responses=answers(200, Ingested, "The jobs are on stable storage", 400, 409, 413, 415, 422, 429),
    summary="Send an event",
)
async def ingest(request: Request, body: Event, idempotency_key: IdempotencyKey = None) -> Response:
    """Create a job for each agent with an enabled trigger for the event: for all of them, or for none after a failure.
    With an Idempotency-Key, jobs created before a failure stay, and the same request creates the rest.

    An event without a matching trigger is not an error. A body may have 25 MiB; agents get the beginning of an event
    that is too long for a prompt.
    """
    services, caller = services_of(request), caller_of(request)
    intent = Intent.of(idempotency_key, caller.id, body)
    event = await _event(request, body)
    requests = await event_requests(event, services.catalog, caller.id)
    requests = [replace(each, continues_admin=caller.is_admin) for each in requests]
    try:
        jobs = await services.admission.admit_all(requests, intent.job_names if intent else None)
    except NoSandbox as error:
        return json_response(event_jobs_view({}) | {"ignored": f"no agent may run: {error}"})
    return json_response(event_jobs_view(jobs))


async def _event(request: Request, body: Event) -> IncomingEvent:
    return IncomingEvent(body.source, body.event, body.payload, size=len(await request.body()))


PREVIEW_BYTES: Final = 64 * 1024
"""The part of a prompt that a test shows."""


_FINGERPRINT: Final = "of-a-test"
"""Stands for the fingerprint of a delivery."""


class EventTest(Event):
    """An event to test. It starts nothing."""

    agent: Label | None = Field(default=None, description="Test only the agent with this name.")
    webhook_source: Label | None = Field(
        default=None, description="The WebhookSource whose conditions and settings apply, as if it had delivered it."
    )


class FailedFilterView(ResponseBody):
    """The first filter that does not hold."""

    path: str = Field(examples=["label.name"])
    wanted: Any = Field(description="The filter's value, list of values, or glob.", examples=["ai"])
    found: list[Any] = Field(description="The values at that path; empty if there is none.", examples=[["bug"]])


class TriggerVerdict(ResponseBody):
    """The verdict on one trigger, in the order of `eventTriggers`."""

    matches: bool
    mismatch: Mismatch | None = Field(
        description="The first reason why it does not start the agent. `earlier_trigger`: another one of it does.",
        examples=["filter"],
    )
    failed_filter: FailedFilterView | None


class JobPreview(ResponseBody):
    """The job that the event would create."""

    type: str = Field(examples=["implement-issue"])
    config: ConfigView
    config_origins: dict[str, str]
    prompt: str = Field(description="Its beginning, if it is longer than 64 KiB.")
    workspace_setup: WorkspaceSetupView | None
    metadata: dict[str, Any]
    chain_next: ChainNext | None
    report: ReportView | None = Field(description="The report of the job to GitHub; null if there is none.")
    concurrency: ConcurrencyView | None
    failure: str | None = Field(
        description="What the job would fail with, as its provider cannot run it yet; null if nothing is known.",
        examples=["no credentials are stored"],
    )


class AgentVerdict(ResponseBody):
    """The verdict on one agent."""

    agent: str = Field(examples=["developer"])
    starts: bool
    triggers: list[TriggerVerdict]
    job: JobPreview | None
    refused: str | None = Field(description="Why the job would be refused.")


class ThreadRequestView(ResponseBody):
    """A request in the event, which the engine carries out beside its triggers or instead of them."""

    action: ThreadAction = Field(
        description="`cancel`, `retry`, `run` and `help` are commands in comments, or buttons of checks. `reply` is a"
        " follow-up, and `repair` of failed checks, if a job made the pull request. `mention` is a follow-up there, and"
        " starts an agent elsewhere.",
        examples=["retry"],
    )
    agent: str | None = Field(description="The `triggerName` of the agent that it names.", examples=["ai-developer"])
    model: str | None = Field(description="The model that it names.")
    answer: str | None = Field(description="The comment that answers it at once, with the commands or what is wrong.")


class EventTested(ResponseBody):
    """The result of a test."""

    matched: int = Field(description="The number of agents that the event would start.", examples=[1])
    ignored: str | None = Field(description="Why the webhook source would ignore the event.")
    requests: list[ThreadRequestView] = Field(
        description="What the event asks of the engine otherwise, if the webhook source is of the type `github`."
    )
    agents: list[AgentVerdict]


@router.post(
    "/api/events/test",
    responses=answers(200, EventTested, "The verdicts", 400, 404, 413, 415, 422),
    summary="Test an event",
)
async def test_event(request: Request, body: EventTest) -> Response:
    """Tell for each agent whether the event would start it, with which job, or why not. Nothing is created."""
    services, caller = services_of(request), caller_of(request)
    event = await _event(request, body)
    source = _source(services, body.webhook_source)
    agents = [each for each in services.catalog.agents if body.agent in (None, each.name)]
    if body.agent and not agents:
        raise NotFound(f"there is no agent {body.agent!r}")
    ignored = reason_to_ignore(event, source.spec) if source and source.spec.type == GITHUB else None
    wanted = await event_requests(event, services.catalog, caller.id, source)
    requests = {agent_name(each): each for each in wanted}
    started = {} if ignored else requests
    thread_event = services.forge.thread_event(event, source, services.catalog, _FINGERPRINT) if source else None
    if thread_event and not (thread_event.is_reply and started):
        started, ignored = {}, None if thread_event.requests and not thread_event.is_refused else thread_event.note
    asked = [] if thread_event is None or thread_event.is_refused or started else thread_event.requests
    views = [await _verdict_view(services, agent, event, started.get(agent.name)) for agent in agents]
    return json_response(
        {
            "matched": sum(view["starts"] for view in views),
            "ignored": ignored,
            "requests": [_request_view(each) for each in asked],
            "agents": views,
        }
    )


def _request_view(request: ThreadRequest) -> dict[str, Any]:
    answer = request.answer.text if request.answer else None
    return {"action": request.action, "agent": request.agent, "model": request.model, "answer": answer}


def _source(services: Services, name: str | None) -> WebhookSource | None:
    if name is None:
        return None
    if (source := services.catalog.webhook_source(name)) is None:
        raise Invalid(Problem("webhookSource", f"there is no webhook source {name!r}"))
    return source


async def _verdict_view(
    services: Services, agent: AiAgent, event: IncomingEvent, wanted: JobRequest | None
) -> dict[str, Any]:
    job, refused = None, None
    if wanted:
        try:
            prepared = await services.admission.preview(wanted)
            readiness = await readiness_for(prepared.resolved.config, services)
            job = _preview(prepared) | {"failure": readiness.advice if readiness else None}
        except (Invalid, TooLarge) as error:
            refused = str(error)
    found = await asyncio.to_thread(verdicts, agent, event) if event.is_large else verdicts(agent, event)
    return {
        "agent": agent.name,
        "starts": job is not None,
        "triggers": [_trigger_view(each) for each in found],
        "job": job,
        "refused": refused,
    }


def _trigger_view(verdict: Verdict) -> dict[str, Any]:
    failed = verdict.failed_filter
    return {
        "matches": verdict.mismatch is None,
        "mismatch": verdict.mismatch,
        "failedFilter": {"path": failed.path, "wanted": failed.wanted, "found": failed.found} if failed else None,
    }


def _preview(prepared: PreparedJob) -> dict[str, Any]:
    wanted, repo = prepared.request, prepared.contents.repo
    return {
        "type": wanted.type,
        "config": prepared.resolved.config,
        "configOrigins": prepared.resolved.origins,
        "prompt": shortened(prepared.texts.prompt, PREVIEW_BYTES),
        "workspaceSetup": repo
        and {
            "gitRepo": without_tokens(repo.url),
            "gitRef": wanted.git_ref,
            "gitDepth": wanted.git_depth,
            "hasCredential": wanted.token_from is not None or repo.has_credential,
            **setup_view(prepared.setup),
        },
        "metadata": wanted.metadata,
        "chainNext": chain_next(wanted.chain),
        "report": prepared.report,
        "concurrency": concurrency_view(prepared.concurrency),
    }
