"""The queue: the load of each model, and the reason why a job waits."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.schemas.job import WaitReason
from labrats.api.services import Services
from labrats.index.queues import Queue
from labrats.model.ai_model import AiModel, Slots, ai_models_in_use, slots_for
from labrats.model.caller import Caller
from labrats.model.job import Job
from labrats.model.queue_order import Group

router = api_router("AI models")


class QueueView(ResponseBody):
    """The load of one provider and model."""

    provider: str = Field(examples=["claude"])
    model: str = Field(examples=["opus"])
    ai_model: str | None = Field(description="The AiModel; null for a model that is not configured.")
    slots: int = Field(examples=[4])
    active: int = Field(description="Number of jobs that hold a slot.", examples=[4])
    waiting: int = Field(examples=[12])
    oldest_created_at: datetime | None = Field(
        description="Creation of the job that has waited longest.", examples=["2030-01-01T12:00:00Z"]
    )
    paused_until: datetime | None = Field(description="The end of a pause after a rate limit or an overload.")
    usual_seconds: float | None = Field(
        description="Median run time of its latest jobs; null before the first has ended.", examples=[372.5]
    )


class QueueList(ResponseBody):
    """The queues of all configured models, and of others on which a job waits or runs."""

    queues: list[QueueView]


@router.get("/api/queue", responses=answers(200, QueueList, "The queues"), summary="List the queues of all models")
async def list_queues(request: Request) -> Response:
    """List the load of each model, by provider and name. A model without an AiModel has the default slots."""
    services = services_of(request)
    configured = ai_models_in_use(await services.store.list(AiModel))
    loads = {(each.provider, each.model): each for each in await services.job_index.queues()}
    groups = sorted(configured.keys() | loads.keys())
    return json_response(
        {"queues": [_view(group, configured.get(group), loads.get(group), services) for group in groups]}
    )


def _view(group: Group, ai_model: AiModel | None, load: Queue | None, services: Services) -> dict[str, Any]:
    oldest = load.oldest if load else None
    return {
        "provider": group[0],
        "model": group[1],
        "aiModel": ai_model.name if ai_model else None,
        "slots": ai_model.spec.slots if ai_model else services.settings.default_model_slots,
        "active": load.active if load else 0,
        "waiting": load.waiting if load else 0,
        "oldestCreatedAt": datetime.fromtimestamp(oldest, UTC) if oldest is not None else None,
        "pausedUntil": services.job_index.paused_until(*group, services.clock.now()),
        "usualSeconds": load.usual_seconds if load else None,
    }


async def waiting_view(services: Services, job: Job, caller: Caller) -> dict[str, Any]:
    """Return the JSON that WaitingView describes, for a Pending job."""
    now = services.clock.now()
    slots = slots_for(job, ai_models_in_use(await services.store.list(AiModel)), services.settings.default_model_slots)
    place = await services.job_index.place_of(job, services.settings.priority_aging_seconds, now)
    paused_until = services.job_index.paused_until(job.resolved.provider, job.resolved.model, now)
    starts_after = max(filter(None, (paused_until, job.status.not_before)), default=now)
    return {
        "reason": _reason(job, slots, place.position, len(place.holders), paused_until, now),
        "position": place.position,
        "slots": slots.count,
        "active": len(place.holders),
        "holders": [job_id for job_id, owner in place.holders if caller.may_see(owner)],
        "pausedUntil": paused_until,
        "estimateSeconds": _estimate(place.position, slots, place.usual_seconds, max(starts_after - now, timedelta())),
    }


def _reason(
    job: Job, slots: Slots, position: int, active: int, paused_until: datetime | None, now: datetime
) -> WaitReason:
    if not job.is_resolved:
        return "unresolved"
    if slots.count == 0:
        return "no_slots"
    if paused_until:
        return "paused"
    if job.status.not_before and job.status.not_before > now:
        return "requeued"
    return "slots_busy" if active + position > slots.count else "starting"


def _estimate(position: int, slots: Slots, usual_seconds: float | None, delay: timedelta) -> int | None:
    """Return the seconds until the job starts, if jobs run as long as usual; None if that is unknown."""
    if usual_seconds is None or slots.count == 0:
        return None
    return math.ceil(delay.total_seconds() + usual_seconds * position / slots.count)
