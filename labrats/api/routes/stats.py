"""Stats: how many jobs there are of what, and how they went over time."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Annotated, Any, Final

from fastapi import Query, Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.errors import ApiError
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.schemas.patterns import SPAN
from labrats.model.errors import Invalid, Problem
from labrats.model.phases import API_STATUS
from labrats.model.series import Metric, Steps, series_of

router = api_router("Stats")

MAX_NAMES: Final = 1000
MAX_POINTS: Final = 1000
DEFAULT_POINTS: Final = 200

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_UNITS: Final = {"m": _MINUTE, "h": _HOUR, "d": _DAY}
_SHORTEST_WINDOW, _LONGEST_WINDOW = _HOUR, 90 * _DAY
_USUAL_STEPS: Final = ("1m", "5m", "15m", "1h", "6h", "1d")


class StatusCounts(ResponseBody):
    """How many jobs have each status."""

    waiting: int = Field(examples=[3])
    active: int = Field(examples=[1])
    completed: int = Field(examples=[40])
    failed: int = Field(examples=[2])
    cancelled: int = Field(examples=[0])


_SOME: Final = {"waiting": 3, "active": 1, "completed": 40, "failed": 2, "cancelled": 0}


def _counts_by_name(example: str) -> Any:
    return Field(description=f"The {MAX_NAMES} names with the most jobs.", examples=[{example: _SOME}])


class Stats(ResponseBody):
    """How many jobs are kept, by what they are."""

    by_type: dict[str, StatusCounts] = _counts_by_name("code-review")
    by_model: dict[str, StatusCounts] = _counts_by_name("opus")
    by_repo: dict[str, StatusCounts] = _counts_by_name("octocat/hello-world")
    totals: StatusCounts


class SeriesView(ResponseBody):
    """One series."""

    labels: dict[str, str] = Field(examples=[{"status": "completed"}])
    points: list[tuple[int, int | float]] = Field(
        description="The end of each step in Unix seconds, and what the step came to.", examples=[[[1893499200, 4]]]
    )


class Timeseries(ResponseBody):
    """How a metric went over time."""

    metric: Metric = Field(examples=["jobs"])
    window: str = Field(examples=["24h"])
    step: str = Field(examples=["15m"])
    series: list[SeriesView]


@router.get("/api/stats", responses=answers(200, Stats, "How many jobs there are"), summary="Count jobs")
async def get_stats(request: Request) -> Response:
    """The jobs that are kept, by type, model and repository (`metadata.repo`), each by status."""
    cache = services_of(request).job_index
    groups = cache.counts_by_group()
    return json_response(
        {
            "byType": _by_name((group.type, group.status, group.count) for group in groups),
            "byModel": _by_name((group.model, group.status, group.count) for group in groups),
            "byRepo": _by_name(cache.counts_by_repo()),
            "totals": {status: cache.count_in(phase) for phase, status in API_STATUS.items()},
        }
    )


@router.get(
    "/api/stats/timeseries",
    responses=answers(200, Timeseries, "How it went", 400, 422),
    summary="A metric over time",
)
async def get_timeseries(
    request: Request,
    metric: Annotated[
        Metric,
        Query(
            description="`jobs`: how many ended, by status. `duration`: how long those ran that ended, in seconds on "
            "average. `queueWait`: how long those waited that started, likewise. `tokens`: used, by kind. `cost`: in "
            "US dollars.",
            examples=["jobs"],
        ),
    ] = Metric.JOBS,
    window: Annotated[
        str, Query(pattern=SPAN, description="How far back, from 1h to 90d: minutes (m), hours (h) or days (d).")
    ] = "24h",
    step: Annotated[
        str | None,
        Query(
            pattern=SPAN,
            description=f"The time between two points: from 1m to the window, at most {MAX_POINTS} points in all. "
            f"Default: one with no more than {DEFAULT_POINTS} points.",
            examples=["15m"],
        ),
    ] = None,
    query: Annotated[str | None, Query(include_in_schema=False)] = None,
) -> Response:
    """From Prometheus, where PROMETHEUS_URL names one, or else from the jobs that are kept. Steps in which nothing
    happened count 0, and have no average. What Prometheus says is an estimate from its scrapes."""
    if query is not None:
        raise ApiError(400, "no_queries", "raw PromQL is not accepted: say with `metric` what is wanted")
    services = services_of(request)
    step = step or _usual_step(window)
    steps = Steps.until(services.clock.now(), _seconds(step), _points_in(window, step))
    if services.prometheus:
        values = await services.prometheus.values(metric, steps)
    else:
        values = services.job_index.series.values(metric, steps)
    series = [{"labels": each.labels, "points": each.points} for each in series_of(metric, steps, values)]
    return json_response({"metric": metric, "window": window, "step": step, "series": series})


def _by_name(counts: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    """Counts by name and status, the names with the most jobs first."""
    by_name: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, status, count in counts:
        by_name[name][status] += count
    most = sorted(by_name, key=lambda name: (-by_name[name].total(), name))[:MAX_NAMES]
    return {name: {status: by_name[name][status] for status in API_STATUS.values()} for name in most}


def _points_in(window: str, step: str) -> int:
    """How many steps the window has. Raises Invalid when it, or they, are too short or too long."""
    if not _SHORTEST_WINDOW <= _seconds(window) <= _LONGEST_WINDOW:
        raise Invalid(Problem("window", "must be from 1h to 90d"))
    if _seconds(step) > _seconds(window):
        raise Invalid(Problem("step", "must not be longer than the window"))
    if (points := _seconds(window) // _seconds(step)) > MAX_POINTS:
        raise Invalid(Problem("step", f"must be longer: {window} has {points} such steps, and may have {MAX_POINTS}"))
    return points


def _usual_step(window: str) -> str:
    return next((each for each in _USUAL_STEPS if _seconds(window) // _seconds(each) <= DEFAULT_POINTS), "1d")


def _seconds(span: str) -> int:
    return int(span[:-1]) * _UNITS[span[-1]]
