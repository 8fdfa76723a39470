"""The latest deliveries of webhook sources."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Query, Request
from pydantic import Field, StringConstraints
from starlette.responses import Response

from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.resources import get_resource
from labrats.api.routes.webhook_sources import SourceName
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.schemas.patterns import DELIVERY_ID
from labrats.intake.delivery_log import KEPT, PAYLOAD_KEY
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import NotFound
from labrats.model.webhook_source import GITHUB, DeliveryRecord, WebhookSource, id_of_delivery, payload_name
from labrats.ports import Store

router = api_router("Webhook sources")

_EXAMPLE_ID: Final = "0659d1f5a2b3c49e107f"

DeliveryOutcome = Literal["started", "unmatched", "ignored", "command", "ping", "refused"]
DeliveryId = Annotated[str, Field(description="The delivery's id.", examples=[_EXAMPLE_ID])]


class DeliveryView(ResponseBody):
    """A delivery."""

    id: str = Field(examples=[_EXAMPLE_ID])
    at: datetime = Field(examples=["2030-01-01T12:00:00Z"])
    outcome: DeliveryOutcome = Field(examples=["started"])
    event: str | None = Field(description="Null if its signature or body was refused.", examples=["issues.labeled"])
    repo: str | None = Field(examples=["octocat/hello-world"])
    reason: str | None = Field(description="Why it started no agent, or the error of the answer.")
    jobs: list[str] = Field(description="The jobs that it started, at most 10.", examples=[["ir-3ab1c2d4"]])
    has_payload: bool = Field(description="True if its payload is stored.", examples=[True])


class DeliveryList(ResponseBody):
    """The latest deliveries of a source, newest first: of 200 in all, with at most 20 refused ones among them."""

    deliveries: list[DeliveryView]
    next: str | None = Field(description="The cursor of the next page; null on the last one.")


class DeliveryDetail(DeliveryView):
    """A delivery with its payload."""

    source: str = Field(description="The source of its event, as triggers name it.", examples=["github"])
    payload: dict[str, Any] | None = Field(
        description="The event; null if it is not stored: on a cluster, if its signature was refused, and if it is "
        "larger than 256 KiB, or older than the latest 8 MiB of the source.",
        examples=[{"action": "labeled", "label": {"name": "ai"}}],
    )


@router.get(
    "/api/webhook-sources/{name}/deliveries",
    responses=answers(200, DeliveryList, "The deliveries", 404, 422),
    summary="List a source's latest deliveries",
)
async def list_deliveries(
    request: Request,
    name: SourceName,
    outcome: Annotated[DeliveryOutcome | None, Query(description="Only deliveries with this outcome.")] = None,
    cursor: Annotated[
        str | None, StringConstraints(pattern=DELIVERY_ID), Query(description="`next` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=KEPT, description="Deliveries per page.")] = 100,
) -> Response:
    """List what became of the latest deliveries, updated every few seconds."""
    source = await get_resource(services_of(request), WebhookSource, name)
    found = [
        record
        for record in sorted(source.status.recent_deliveries, key=id_of_delivery, reverse=True)
        if outcome in (None, record.outcome) and (cursor is None or id_of_delivery(record) < cursor)
    ]
    has_more = len(found) > limit
    return json_response(
        {
            "deliveries": [_view(each) for each in found[:limit]],
            "next": id_of_delivery(found[limit - 1]) if has_more else None,
        }
    )


@router.get(
    "/api/webhook-sources/{name}/deliveries/{delivery_id}",
    responses=answers(200, DeliveryDetail, "The delivery", 404),
    summary="Get a delivery with its payload",
)
async def get_delivery(request: Request, name: SourceName, delivery_id: DeliveryId) -> Response:
    """Get one of the latest deliveries. `POST /api/events/test` shows what its event would start today."""
    services = services_of(request)
    source = await get_resource(services, WebhookSource, name)
    record = next((each for each in source.status.recent_deliveries if id_of_delivery(each) == delivery_id), None)
    if record is None:
        raise NotFound(f"the webhook source {name!r} has no delivery {delivery_id!r}, or no longer")
    payload = await _payload(services.store, record) if record.payload_bytes else None
    event_source = GITHUB if source.spec.type == GITHUB else source.name
    return json_response(_view(record) | {"source": event_source, "payload": payload})


async def _payload(store: Store, record: DeliveryRecord) -> Any:
    try:
        return msgspec.json.decode((await store.get(ConfigMap, payload_name(record.id))).data[PAYLOAD_KEY])
    except (NotFound, KeyError):  # it has just been deleted
        return None


def _view(record: DeliveryRecord) -> dict[str, Any]:
    return {
        "id": id_of_delivery(record),
        "at": record.at,
        "outcome": record.outcome,
        "event": record.event,
        "repo": record.repo,
        "reason": record.reason,
        "jobs": record.jobs,
        "hasPayload": record.payload_bytes > 0,
    }
