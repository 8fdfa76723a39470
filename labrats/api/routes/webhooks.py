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
    fingerprint_of_event,
    generic_event,
    github_event,
    is_body_of,
)
from labrats.intake.delivery_log import PAYLOAD_BYTES
from labrats.intake.event_intake import Result, record_of
from labrats.intake.events import IncomingEvent
from labrats.intake.signatures import HUB_HEADER, STANDARD_HEADER, Signature, hub_signature, standard_signature
from labrats.model.errors import LabratsError, NotFound
from labrats.model.record import encode
from labrats.model.webhook_source import (
    GITHUB,
    REFUSED,
    DeliveryRecord,
    WebhookSource,
)

T = TypeVar("T")

router = api_router("Webhooks")

EVENT_HEADER: Final = "x-github-event"
DELIVERY_HEADER: Final = "x-github-delivery"
_FORM: Final = "application/x-www-form-urlencoded"
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
    fingerprint = fingerprint_of_event(source, event) or fingerprint_of(source, body, signature.id)
    delivery = Delivery(source, event, fingerprint, delivery_id)
    with _errors_recorded(services, source, event, stored_payload):
        result = Result(PING) if event.name == PING else await services.event_intake.take(delivery)
    services.deliveries.add(source.name, record_of(services.clock.now(), event, result), stored_payload)
    services.metrics.delivery_received(result.outcome)
    return json_response(_answer(result))


def _answer(result: Result) -> dict[str, Any]:
    answer: dict[str, Any] = {"ok": True}
    if result.outcome == PING:
        return answer
    if result.ignored:
        answer["ignored"] = result.ignored
    if result.command:
        answer["command"] = result.command
    return answer | event_jobs_view(result.jobs)


@contextmanager
def _errors_recorded(
    services: Services, source: WebhookSource, event: IncomingEvent | None = None, payload: bytes = b""
) -> Iterator[None]:
    """Record the delivery as refused if the block raises the error with which it is answered."""
    try:
        yield
    except LabratsError as error:
        services.deliveries.add(
            source.name, record_of(services.clock.now(), event, Result(REFUSED, ignored=str(error))), payload
        )
        services.metrics.delivery_received(REFUSED)
        raise


def _refused(services: Services, reason: str) -> DeliveryRecord:
    return record_of(services.clock.now(), None, Result(REFUSED, ignored=reason))


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
            services.deliveries.add(sources[0].name, _refused(services, reason))
        raise ApiError(401, "unauthorized", "the signature does not match the body and the secret of a webhook source")
    return received


def _unsigned(request: Request, sources: Sequence[WebhookSource]) -> ApiError:
    """Record a request without a valid signature header. Return the error, which is the same for all sources.

    Neither the body nor a secret is read for it. A receiver records only the requests to its own source.
    """
    services = services_of(request)
    services.metrics.delivery_received(REFUSED)
    if len(sources) == 1 and services.settings.webhook_source in (None, sources[0].name):
        services.deliveries.add(sources[0].name, _refused(services, _why_unsigned(request, sources[0])))
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


async def _parse(body: bytes, parse: Callable[[], T]) -> T:
    return await asyncio.to_thread(parse) if len(body) > _LARGE_BYTES else parse()
