"""The queue: the load of each model, and the reason why a job waits."""

import math
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import Query, Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.system import controller_view
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.schemas.job import QueuePlace
from labrats.api.services import Services
from labrats.index.queues import Position, Queue
from labrats.intake.stored_jobs import existing_jobs
from labrats.model.ai_model import AiModel, Slots, ai_models_in_use, slots_for
from labrats.model.caller import Caller
from labrats.model.job import Job, without_large_fields
from labrats.model.phases import Phase
from labrats.model.queue_order import Group, group_of
from labrats.model.waiting import WaitReason, reason_of

router = api_router("AI models")

MOST_IDS: Final = 100
"""Jobs in one request for their places."""


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


class WaitingJob(QueuePlace):
    """A waiting job and its place."""

    id: str = Field(examples=["ir-3ab1c2d4"])


class WaitingJobs(ResponseBody):
    """The waiting jobs among the wanted ones."""

    jobs: list[WaitingJob]


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


@router.get(
    "/api/queue/jobs", responses=answers(200, WaitingJobs, "The waiting jobs", 422), summary="Show why jobs wait"
)
async def list_waiting_jobs(
    request: Request,
    job_ids: Annotated[
        list[str],
        Query(alias="id", min_length=1, max_length=MOST_IDS, description="A job's id. Repeat it for several."),
    ],
) -> Response:
    """Return the reason why each of the jobs waits, and its place in the queue of its model.

    Jobs that do not wait, do not exist, or belong to another caller, are left out.
    """
    services, caller = services_of(request), caller_of(request)
    jobs = [
        without_large_fields(job)
        async for job in existing_jobs(services.store, list(dict.fromkeys(job_ids)))
        if job.phase is Phase.PENDING and caller.may_see(job.spec.owner)
    ]
    positions = await services.job_index.positions_of(
        [job.id for job in jobs], services.settings.priority_aging_seconds, services.clock.now()
    )
    places = [(job, positions[job.id]) for job in jobs if job.id in positions]
    views = await _place_views(services, places)
    return json_response({"jobs": [{"id": job.id, **view} for (job, _), view in zip(places, views, strict=True)]})


async def waiting_view(services: Services, job: Job, caller: Caller) -> dict[str, Any]:
    """Return the JSON that WaitingView describes, for a Pending job."""
    now = services.clock.now()
    place = await services.job_index.place_of(job, services.settings.priority_aging_seconds, now)
    position = Position(place.position, len(place.holders), place.run_times)
    (view,) = await _place_views(services, [(job, position)])
    return view | {"holders": [job_id for job_id, owner in place.holders if caller.may_see(owner)]}


async def _place_views(services: Services, places: Sequence[tuple[Job, Position]]) -> list[dict[str, Any]]:
    """Return the JSON that QueuePlace describes, for Pending jobs and their positions."""
    configured, default = ai_models_in_use(await services.store.list(AiModel)), services.settings.default_model_slots
    blockers = await services.job_index.blockers_of([job for job, _ in places])
    views = [
        _place_view(services, job, position, slots_for(job, configured, default), blockers.get(job.id))
        for job, position in places
    ]
    is_any_due = any(view["reason"] in _DUE for view in views)
    if not is_any_due or (await controller_view(services))["alive"] is not False:
        return views
    return [view | {"reason": WaitReason.NO_CONTROLLER} if view["reason"] in _DUE else view for view in views]


_DUE: Final[Collection[WaitReason]] = (WaitReason.UNRESOLVED, WaitReason.STARTING)
"""The reasons of jobs that wait for nothing but the controller."""

_WAITS_FOR_SLOT: Final[Collection[WaitReason]] = (WaitReason.SLOTS_BUSY, WaitReason.STARTING)
"""The reasons of jobs that could start if others ended, and if nobody had paused the engine."""


def _place_view(services: Services, job: Job, position: Position, slots: Slots, blocker: str | None) -> dict[str, Any]:
    """Return the JSON that QueuePlace describes. blocker: the job of the same concurrency key that must end first."""
    now = services.clock.now()
    provider, model = group_of(job)
    paused_until = services.job_index.paused_until(provider, model, now)
    starts_after = max(filter(None, (paused_until, job.starts_after)), default=now)
    reason = reason_of(
        job, slots, active=position.active, position=position.position, blocker=blocker, paused_until=paused_until,
        now=now,
    )  # fmt: skip
    is_paused = services.catalog.pause is not None
    if is_paused and reason in _WAITS_FOR_SLOT:
        reason = WaitReason.PAUSED_BY_ADMIN
    delay = max(starts_after - now, timedelta())
    return {
        "reason": reason,
        "position": position.position,
        "slots": slots.count,
        "active": position.active,
        "pausedUntil": paused_until,
        "waitsFor": blocker,
        "debouncedUntil": job.debounced_until if reason is WaitReason.DEBOUNCE else None,
        "startsAfter": job.starts_after if job.starts_after and job.starts_after > now else None,
        "estimateSeconds": None if blocker or is_paused else _estimate(position, slots, delay),
    }


def _estimate(position: Position, slots: Slots, delay: timedelta) -> int | None:
    """Return the seconds until the job starts, if jobs run as long as usual; None if that is unknown."""
    seconds = position.run_times.seconds_until_start(position.position, slots.count)
    return None if seconds is None else math.ceil(max(seconds, delay.total_seconds()))
