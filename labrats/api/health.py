"""Liveness, readiness and metrics: no key needed."""

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from labrats.api.engine import Engine
from labrats.api.errors import ErrorBody, error_response
from labrats.api.routing import engine_of
from labrats.model.phases import API_STATUS, Phase

router = APIRouter(tags=["Health"])

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Ok(BaseModel):
    """All is well."""

    status: str = "ok"


@router.get("/health", summary="Liveness")
async def health() -> Ok:
    """The engine answers."""
    return Ok()


@router.get(
    "/ready",
    response_model=None,
    responses={200: {"model": Ok, "description": "Ready"}, 503: {"model": ErrorBody, "description": "Not ready yet"}},
    summary="Readiness",
)
async def ready(request: Request) -> Response:
    """Whether the caches have synced, so that lists and keys are complete."""
    engine = engine_of(request)
    if not (engine.cache.synced.is_set() and engine.keys.synced.is_set()):
        return error_response(
            503, "not_ready", "the engine is still reading what it has stored", headers={"Retry-After": "1"}
        )
    return JSONResponse({"status": "ok"})


@router.get(
    "/metrics",
    response_model=None,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
    summary="Metrics",
)
async def metrics(request: Request) -> Response:
    """Counters and gauges for Prometheus."""
    engine = engine_of(request)
    _mirror_cache(engine)
    return Response(engine.metrics.exposition(), headers={"Content-Type": EXPOSITION})


def _mirror_cache(engine: Engine) -> None:
    """Set the gauges that say what there is right now."""
    gauges = engine.metrics
    for gauge in (gauges.jobs, gauges.queue_depth, gauges.slots_used):
        gauge.clear()
    for row in engine.cache.counts():
        gauges.jobs.labels(row.status, gauges.type_label(row.type), row.provider, row.model).inc(row.count)
    for gauge, phase in ((gauges.queue_depth, Phase.PENDING), (gauges.slots_used, Phase.RUNNING)):
        for (provider, model), count in engine.cache.count_by_model(API_STATUS[phase]).items():
            gauge.labels(provider, model).set(count)
