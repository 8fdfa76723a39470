"""Webhooks: signed deliveries from GitHub and other sources, which start agents."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qs

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.body_bounds import DELIVERY
from labrats.api.http.errors import ApiError
from labrats.api.http.idempotency import Intent
from labrats.api.http.json_body import json_response, parse_json
from labrats.api.http.signed_body import receive_signed
from labrats.api.openapi import answers
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.schemas.event_jobs import EventsJob, event_jobs_view
from labrats.api.services import Services
from labrats.intake.deliveries import (
    PING,
    Delivery,
    fingerprint_of,
    generic_event,
    github_event,
    is_body_of,
    store_fingerprint,
    stored_fingerprint,
)
from labrats.intake.delivery_log import PAYLOAD_BYTES
from labrats.intake.event_authorization import reason_to_ignore
from labrats.intake.event_requests import event_requests
from labrats.intake.event_starts import release_starts, reserve_starts, thread_of
from labrats.intake.events import IncomingEvent, why_no_agent
from labrats.intake.forge import ThreadEvent
from labrats.intake.signatures import HUB_HEADER, STANDARD_HEADER, Signature, hub_signature, standard_signature
from labrats.intake.thread_requests import add_request
from labrats.model.errors import Invalid, LabratsError, NoSandbox, NotFound
from labrats.model.record import encode
from labrats.model.webhook_source import (
    COMMAND,
    GITHUB,
    IGNORED,
    LONGEST_NOTE,
    REFUSED,
    STARTED,
    UNMATCHED,
    DeliveryRecord,
    WebhookSource,
)

T = TypeVar("T")

router = api_router("Webhooks")

EVENT_HEADER: Final = "x-github-event"
DELIVERY_HEADER: Final = "x-github-delivery"
_FORM: Final = "application/x-www-form-urlencoded"
MOST_JOBS: Final = 10
"""Jobs that the record of a delivery names."""

_NO_SANDBOX: Final = (
    "No agent was started: the engine's machine has no working sandbox, and only its administrators may run agents "
    "without one. An administrator can install bubblewrap, or allow this with `LABRATS_SANDBOX=false`."
)

_TOO_MANY: Final = (
    "Not every agent was started: events may start {} jobs for an issue or pull request within an hour. Agents may be "
    "starting each other. An administrator can change the limit, `LABRATS_EVENT_JOBS_PER_THREAD`."
)

_LARGE_BYTES: Final = 2**20
"""A larger body is parsed in a thread, so that other requests do not wait for it."""

_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": "The event. It is parsed only once its signature is verified.",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {"action": "labeled", "issue": {"number": 7}, "label": {"name": "ai"}},
            }
        },
    }
}


class Received(ResponseBody):
    """The result of a delivery. GitHub shows it with the delivery."""

    ok: bool = Field(default=True, examples=[True])
    matched: int = Field(default=0, description="The number of agents that the event started.", examples=[1])
    jobs: list[EventsJob] = []
    ignored: str | None = Field(default=None, description="Why the event starts no agent.")
    command: str | None = Field(
        default=None, description="The command in the comment, which is carried out soon.", examples=["retry"]
    )


@router.post(
    "/api/webhooks/github",
    openapi_extra=_BODY,
    responses=answers(200, Received, "The jobs are on stable storage", 400, 413, 415, 422, 429),
    summary="Receive a webhook of GitHub",
)
async def receive_from_github(request: Request) -> Response:
    """Receive a delivery for the WebhookSource of type `github` whose secret has signed it.

    The answer to a redelivery, under any id, has the jobs of the first delivery.
    """
    sources = [each for each in services_of(request).catalog.webhook_sources if each.spec.type == GITHUB]
    enabled = [each for each in sources if each.spec.enabled]
    signature = hub_signature(request.headers)
    if signature is None:
        raise _unsigned(request, enabled)
    return await _receive(request, signature, enabled)


@router.post(
    "/webhooks/{name}",
    openapi_extra=_BODY,
    responses=answers(200, Received, "The jobs are on stable storage", 400, 404, 413, 415, 422, 429),
    summary="Receive a webhook of one source",
)
async def receive(
    request: Request, name: Annotated[str, Field(description="The WebhookSource's name.", examples=["github"])]
) -> Response:
    """Receive a delivery for the WebhookSource `name`. A disabled source answers 404."""
    services = services_of(request)
    source = services.catalog.webhook_source(name)
    enabled = [source] if source and source.spec.enabled else []
    signature = hub_signature(request.headers) or standard_signature(request.headers, services.clock.now())
    if signature is None:
        raise _unsigned(request, enabled)
    if not enabled:
        raise NotFound(f"there is no webhook source {name!r}, or it is disabled")
    return await _receive(request, signature, enabled)


async def _receive(request: Request, signature: Signature, sources: Sequence[WebhookSource]) -> Response:
    services = services_of(request)
    source, body = await _received(request, signature, sources)
    with _errors_recorded(services, source):
        payload = await _parse(body, partial(_payload, body, request.headers.get("content-type", "")))
        event = replace(_event(request, source, payload), size=len(body))
    is_stored = services.deliveries.stores_payloads and len(body) <= PAYLOAD_BYTES
    stored_payload = encode(payload) if is_stored else b""
    delivery_id = request.headers.get(DELIVERY_HEADER) if source.spec.type == GITHUB else None
    delivery = Delivery(source, event, fingerprint_of(source, body, signature.id), delivery_id)
    with _errors_recorded(services, source, event, stored_payload):
        answer: dict[str, Any] = {"ok": True}
        outcome = PING
        if event.name != PING:
            answer, outcome = await _start_agents(services, delivery)
    reason = f"it has the command `{answer['command']}`" if "command" in answer else answer.get("ignored")
    jobs = tuple(job["jobId"] for job in answer.get("jobs", ()))[:MOST_JOBS]
    services.deliveries.add(source.name, _record(services, outcome, event, reason, jobs), stored_payload)
    services.metrics.delivery_received(outcome)
    return json_response(answer)


@contextmanager
def _errors_recorded(
    services: Services, source: WebhookSource, event: IncomingEvent | None = None, payload: bytes = b""
) -> Iterator[None]:
    """Record the delivery as refused if the block raises the error with which it is answered."""
    try:
        yield
    except LabratsError as error:
        services.deliveries.add(source.name, _record(services, REFUSED, event, str(error)), payload)
        services.metrics.delivery_received(REFUSED)
        raise


def _record(
    services: Services,
    outcome: str,
    event: IncomingEvent | None = None,
    reason: str | None = None,
    jobs: tuple[str, ...] = (),
) -> DeliveryRecord:
    name, repo = (event.name, event.text("repository", "full_name")) if event else (None, None)
    return DeliveryRecord(
        at=services.clock.now(),
        outcome=outcome,
        event=name and name[:LONGEST_NOTE],
        repo=repo and repo[:LONGEST_NOTE],
        reason=reason and reason[:LONGEST_NOTE],
        jobs=jobs,
    )


async def _received(
    request: Request, signature: Signature, sources: Sequence[WebhookSource]
) -> tuple[WebhookSource, bytes]:
    """Return the source whose secret has signed the body, and the body. Raises 401 if there is none.

    The body is not received if none of the sources has a secret.
    """
    services = services_of(request)
    if not services.catalog.synced.is_set():
        raise ApiError(503, "unavailable", "the engine is still reading its webhook sources", {"Retry-After": "1"})
    secrets = [(source, await services.signing_secrets.of(source)) for source in sources]
    candidates = [(source, signature.verifier(secret)) for source, secret in secrets if secret is not None]
    if not candidates:
        services.metrics.delivery_received(REFUSED)
        raise ApiError(401, "unauthorized", "no enabled webhook source with a secret receives deliveries here")
    received = await receive_signed(request, candidates, services.unverified_bodies)
    if received is None:
        services.metrics.delivery_received(REFUSED)
        if len(sources) == 1:
            reason = "the signature does not match the body and the secret"
            services.deliveries.add(sources[0].name, _record(services, REFUSED, reason=reason))
        raise ApiError(401, "unauthorized", "the signature does not match the body and the secret of a webhook source")
    return received


def _unsigned(request: Request, sources: Sequence[WebhookSource]) -> ApiError:
    """Record a request without a valid signature header. Return the error, which is the same for all sources.

    Neither the body nor a secret is read for it. A receiver records only the requests to its own source.
    """
    services = services_of(request)
    services.metrics.delivery_received(REFUSED)
    if len(sources) == 1 and services.settings.webhook_source in (None, sources[0].name):
        services.deliveries.add(sources[0].name, _record(services, REFUSED, reason=_why_unsigned(request, sources[0])))
    message = "sign the body with the source's secret: `X-Hub-Signature-256: sha256=` and its HMAC-SHA256 in hex"
    return ApiError(401, "unauthorized", message)


def _why_unsigned(request: Request, source: WebhookSource) -> str:
    if HUB_HEADER in request.headers or (source.spec.type != GITHUB and STANDARD_HEADER in request.headers):
        return "its signature is malformed, repeated or out of date"
    remedy = "enter the source's secret at GitHub" if source.spec.type == GITHUB else "sign it with the source's secret"
    return f"it is not signed: {remedy}"


def _payload(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the event in the body: JSON, or GitHub's other format, a form with the JSON in its field `payload`."""
    match content_type.partition(";")[0].strip().lower():
        case "application/json":
            text = body
        case media_type if media_type == _FORM:
            text = _field_of_form(body)
        case _:
            message = f"the body must be JSON, with Content-Type: application/json, or {_FORM} with a field `payload`"
            raise ApiError(415, "unsupported_media_type", message)
    payload = parse_json(text, DELIVERY.values)
    if not isinstance(payload, dict):
        raise ApiError(400, "malformed", "the body must be a JSON object")
    return payload


def _field_of_form(body: bytes) -> bytes:
    """Return the field `payload` of a form. Raises 400 unless it is the only field."""
    try:
        fields = parse_qs(body.decode(), max_num_fields=1)
    except ValueError:
        fields = {}
    if not (payload := fields.get("payload")):
        raise ApiError(400, "malformed", "the form must have one field, `payload`, with the JSON of the event")
    return payload[0].encode()


def _event(request: Request, source: WebhookSource, payload: Mapping[str, Any]) -> IncomingEvent:
    if source.spec.type != GITHUB:
        return generic_event(source, payload)
    name = request.headers.get(EVENT_HEADER, "")
    if not name:
        raise ApiError(400, "malformed", "X-GitHub-Event must name the event")
    if name == PING:  # it starts no agent, whatever its body is
        return github_event(name, {})
    if not is_body_of(name, payload):
        raise ApiError(400, "malformed", f"the body does not match the event in X-GitHub-Event, {name[:100]!r}")
    return github_event(name, payload)


async def _start_agents(services: Services, delivery: Delivery) -> tuple[dict[str, Any], str]:
    """Store the jobs. Return the answer, and the outcome as a label of the metric."""
    source, event = delivery.source, delivery.event
    thread_event = services.forge.thread_event(event, source, services.catalog, delivery.fingerprint)
    if thread_event and not thread_event.is_reply:
        return await _take(services, source, thread_event)
    if source.spec.type == GITHUB and (reason := await _reason_to_ignore(services, delivery)):
        if thread_event:  # a comment alone does not show whether its pull request is from a fork
            return await _take(services, source, thread_event)
        return {"ok": True, "ignored": reason} | event_jobs_view({}), IGNORED
    requests = await event_requests(event, services.catalog, delivery.owner, source)
    first_fingerprint = await stored_fingerprint(services.store, delivery)
    wanted = len(requests)
    requests = requests[: await _reserve(services, delivery, first_fingerprint, wanted)]
    intent = Intent(first_fingerprint, first_fingerprint)
    try:
        jobs = await services.admission.admit_all(requests, intent.job_names)
    except Invalid as error:
        if thread := _thread_with_limit(source, event):
            await release_starts(services.store, source, thread, first_fingerprint)
        if not isinstance(error, NoSandbox):
            raise
        return await _refuse_without_sandbox(services, source, event, error)
    if jobs:
        await store_fingerprint(services.store, delivery, next(iter(jobs.values())))
        return {"ok": True} | event_jobs_view(jobs), STARTED
    if thread_event:
        return await _take(services, source, thread_event)
    if wanted:
        return {"ok": True, "ignored": _too_many(services)} | event_jobs_view({}), IGNORED
    return {"ok": True, "ignored": why_no_agent(event, services.catalog.agents)} | event_jobs_view({}), UNMATCHED


async def _reason_to_ignore(services: Services, delivery: Delivery) -> str | None:
    """Return why an event of GitHub starts no agent, as a sentence; None if it may start some."""
    source, event, forge = delivery.source, delivery.event, services.forge
    if (reason := reason_to_ignore(event, source.spec)) or source.spec.credentials_ref is None:
        return reason
    if not forge.may_be_own(event):
        return None
    stored = await services.store.get(WebhookSource, source.name)  # the catalog may be older than the write
    return forge.reason_of_own_event(event, stored)


async def _reserve(services: Services, delivery: Delivery, fingerprint: str, wanted: int) -> int:
    """Return how many of the wanted jobs the event may start. If these are fewer, a comment in its thread says so."""
    source, event, most = delivery.source, delivery.event, services.settings.event_jobs_per_thread
    if not wanted or (thread := _thread_with_limit(source, event)) is None:
        return wanted
    now = services.clock.now()
    granted = await reserve_starts(services.store, source, thread, fingerprint, wanted, most, now)
    notice = services.forge.notice(event, source, f"too-many-jobs {thread}", _TOO_MANY.format(most))
    if granted < wanted and notice:
        await add_request(services.store, source, notice)
    return granted


def _thread_with_limit(source: WebhookSource, event: IncomingEvent) -> str | None:
    """Return the thread of an event, if the number of jobs that events start for it is limited."""
    return thread_of(event) if source.spec.type == GITHUB else None


def _too_many(services: Services) -> str:
    most = services.settings.event_jobs_per_thread
    reason = f"events have started {most} jobs for this issue or pull request within an hour"
    return f"{reason} (LABRATS_EVENT_JOBS_PER_THREAD)"


async def _refuse_without_sandbox(
    services: Services, source: WebhookSource, event: IncomingEvent, error: NoSandbox
) -> tuple[dict[str, Any], str]:
    """Say in the thread of the event why it starts no agent. Return what `_start_agents` does."""
    if notice := services.forge.notice(event, source, "no-sandbox", _NO_SANDBOX):
        await add_request(services.store, source, notice)
    return {"ok": True, "ignored": f"no agent may run: {error}"} | event_jobs_view({}), IGNORED


async def _take(services: Services, source: WebhookSource, thread_event: ThreadEvent) -> tuple[dict[str, Any], str]:
    """Store the requests of an event in a thread. Return what `_start_agents` does."""
    for request in thread_event.requests:
        await add_request(services.store, source, request)
    if thread_event.command:
        return {"ok": True, "command": thread_event.command} | event_jobs_view({}), COMMAND
    outcome = UNMATCHED if thread_event.requests else IGNORED
    return {"ok": True, "ignored": thread_event.note} | event_jobs_view({}), outcome


async def _parse(body: bytes, parse: Callable[[], T]) -> T:
    return await asyncio.to_thread(parse) if len(body) > _LARGE_BYTES else parse()
