"""Liveness, readiness and metrics, without authentication."""

from typing import Final, Literal

from fastapi import Request
from pydantic import Field
from starlette.responses import JSONResponse, PlainTextResponse, Response

from labrats.api.http.errors import ApiError
from labrats.api.openapi import answers
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.services import Services
from labrats.files.full_disk import RETRY_SECONDS, problem_of_full_disk
from labrats.logs import LOG
from labrats.model.core_resources import Secret
from labrats.model.job import Job
from labrats.model.phases import Phase

router = api_router("Health")

EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
EXAMPLE_METRICS: Final = """\
# HELP labrats_slots_in_use Slots in use
# TYPE labrats_slots_in_use gauge
labrats_slots_in_use{model="opus",provider="claude"} 2.0
"""


class Ok(ResponseBody):
    """A healthy status."""

    status: Literal["ok"] = Field(examples=["ok"])


@router.get("/health", response_model=None, responses=answers(200, Ok, "Alive"), summary="Liveness")
async def health() -> Response:
    """Return 200 while the engine runs."""
    return JSONResponse({"status": "ok"})


@router.get("/ready", response_model=None, responses=answers(200, Ok, "Ready", 503), summary="Readiness")
async def ready(request: Request) -> Response:
    """Return 200 once all caches have synced, so that lists and keys are complete, and while the disk is not full."""
    services = services_of(request)
    if not all(synced.is_set() for synced in services.watches.values()):
        message = "the engine is still reading its stored data"
        raise ApiError(503, "not_ready", message, headers={"Retry-After": "1"})
    # On a cluster, where jobs are stored elsewhere, the API can still answer, and all replicas share the volume.
    if services.settings.backend == "embedded" and (full := problem_of_full_disk(services.settings.data_dir)):
        raise ApiError(503, "disk_full", full, headers={"Retry-After": str(RETRY_SECONDS)})
    return JSONResponse({"status": "ok"})


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=answers(200, None, "Prometheus' text format", text={"text/plain": EXAMPLE_METRICS}),
    summary="Metrics",
)
async def metrics(request: Request) -> Response:
    """Return counters and gauges for Prometheus."""
    services = services_of(request)
    await _update_gauges(services)
    return Response(services.metrics.exposition(), headers={"Content-Type": EXPOSITION})


async def _update_gauges(services: Services) -> None:
    """Set the gauges to the current state."""
    gauges = services.metrics
    gauges.log_lines_lost(LOG.lost)
    gauges.disk_full.set(problem_of_full_disk(services.settings.data_dir) is not None)
    for gauge in (gauges.jobs, gauges.queue_depth, gauges.slots_used):
        gauge.clear()
    for row in await services.job_index.counts_by_group():
        labels = gauges.job_labels(row.type, row.provider, row.model)
        gauges.jobs.labels(row.status, *labels).inc(row.count)
    for gauge, phase in ((gauges.queue_depth, Phase.PENDING), (gauges.slots_used, Phase.RUNNING)):
        for (provider, model), count in services.job_index.counts_by_model(phase).items():
            gauge.labels(*gauges.model_labels(provider, model)).inc(count)
    for watch, synced in services.watches.items():
        gauges.watch_synced.labels(watch).set(synced.is_set())
    for watch, kind in (("jobs", Job), ("keys", Secret)):
        gauges.watch_silence.labels(watch).set(services.store.silent_seconds(kind))
