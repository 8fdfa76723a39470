"""Stats: counts of jobs, and metrics over time."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import Query, Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.errors import ApiError
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.job_filters import EndedJobs
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody, Time
from labrats.api.schemas.patterns import SPAN
from labrats.index.breakdown import MOST_SERIES, Row
from labrats.model.errors import Invalid, Problem
from labrats.model.phases import API_STATUS
from labrats.model.series import Metric, Series, Steps, points_of, series_of

router = api_router("Stats")

MAX_NAMES: Final = 1000
MAX_POINTS: Final = 1000
DEFAULT_POINTS: Final = 200

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_UNITS: Final = {"m": _MINUTE, "h": _HOUR, "d": _DAY}
_MIN_WINDOW, _MAX_WINDOW = _HOUR, 90 * _DAY
_DEFAULT_PERIOD: Final = timedelta(days=7)
_FIRST_TIME: Final = datetime.min.replace(tzinfo=UTC)
_DEFAULT_STEPS: Final = ("1m", "5m", "15m", "1h", "6h", "1d")


class StatusCounts(ResponseBody):
    """Number of jobs by status."""

    waiting: int = Field(examples=[3])
    active: int = Field(examples=[1])
    completed: int = Field(examples=[40])
    failed: int = Field(examples=[2])
    cancelled: int = Field(examples=[0])


_EXAMPLE_COUNTS: Final = {"waiting": 3, "active": 1, "completed": 40, "failed": 2, "cancelled": 0}


def _counts_by_name(example: str) -> Any:
    return Field(description=f"The {MAX_NAMES} names with the most jobs.", examples=[{example: _EXAMPLE_COUNTS}])


class Stats(ResponseBody):
    """Number of stored jobs by type, model and repository."""

    by_type: dict[str, StatusCounts] = _counts_by_name("code-review")
    by_model: dict[str, StatusCounts] = _counts_by_name("opus")
    by_repo: dict[str, StatusCounts] = _counts_by_name("octocat/hello-world")
    totals: StatusCounts


class SeriesView(ResponseBody):
    """One series."""

    labels: dict[str, str] = Field(examples=[{"status": "completed"}])
    points: list[tuple[int, int | float]] = Field(
        description="The end of each step in Unix seconds, and the value of the step.", examples=[[[1893499200, 4]]]
    )


GroupField = Literal["model", "agentRole", "repo", "type"]


class BreakdownRow(ResponseBody):
    """The ended jobs with one value of the field."""

    value: str | None = Field(description="Null for jobs without one.", examples=["opus"])
    completed: int = Field(examples=[40])
    failed: int = Field(examples=[2])
    cancelled: int = Field(examples=[0])
    input_tokens: int = Field(examples=[120_000])
    output_tokens: int = Field(examples=[34_000])
    cache_read_tokens: int = Field(examples=[800_000])
    cost_usd: float | None = Field(description="Sum of the known costs; null if none is known.", examples=[1.25])
    unknown_costs: int = Field(
        description="Number of jobs whose cost is unknown. `costUsd` leaves them out.", examples=[2]
    )
    median_seconds: float | None = Field(description="Median of the run times.", examples=[41.7])
    p95_seconds: float | None = Field(description="95th percentile of the run times.", examples=[312.0])


class Breakdown(ResponseBody):
    """Ended jobs by the values of a field: at most 100 values."""

    by: GroupField
    from_: datetime = Field(alias="from", examples=["2030-01-01T12:00:00Z"])
    to: datetime = Field(examples=["2030-01-08T12:00:00Z"])
    rows: list[BreakdownRow]


class Timeseries(ResponseBody):
    """A metric over time."""

    metric: Metric = Field(examples=["jobs"])
    window: str = Field(examples=["24h"])
    step: str = Field(examples=["15m"])
    series: list[SeriesView]


@router.get("/api/stats", responses=answers(200, Stats, "The counts"), summary="Count jobs")
async def get_stats(request: Request) -> Response:
    """Count the stored jobs by type, model and repository (`metadata.repo`), each by status."""
    job_index = services_of(request).job_index
    groups = await job_index.counts_by_group()
    return json_response(
        {
            "byType": _by_name((group.type, group.status, group.count) for group in groups),
            "byModel": _by_name((group.model, group.status, group.count) for group in groups),
            "byRepo": _by_name(await job_index.counts_by_repo()),
            "totals": {status: job_index.count_in(phase) for phase, status in API_STATUS.items()},
        }
    )


@router.get(
    "/api/stats/breakdown",
    responses=answers(200, Breakdown, "The rows", 422),
    summary="Compare jobs by a field",
)
async def get_breakdown(
    request: Request,
    wanted: EndedJobs,
    by: Annotated[GroupField, Query(description="The field.")] = "model",
    since: Annotated[Time | None, Query(alias="from", description="Earliest end. Default: a week before.")] = None,
    until: Annotated[Time | None, Query(alias="to", description="Time before which they ended. Default: now.")] = None,
) -> Response:
    """Count the ended jobs by the values of a field, with their tokens, cost and run times; the most frequent first."""
    services = services_of(request)
    end = until or services.clock.now()
    begin = since or max(end, _FIRST_TIME + _DEFAULT_PERIOD) - _DEFAULT_PERIOD
    rows = await services.job_index.breakdown(by, begin, end, wanted)
    return json_response({"by": by, "from": begin, "to": end, "rows": [_row_view(row) for row in rows]})


def _row_view(row: Row) -> dict[str, Any]:
    return {
        "value": row.value,
        "completed": row.completed,
        "failed": row.failed,
        "cancelled": row.cancelled,
        "inputTokens": row.input_tokens,
        "outputTokens": row.output_tokens,
        "cacheReadTokens": row.cache_read_tokens,
        "costUsd": row.cost_usd,
        "unknownCosts": row.unknown_costs,
        "medianSeconds": row.median_seconds,
        "p95Seconds": row.p95_seconds,
    }


@router.get(
    "/api/stats/timeseries",
    responses=answers(200, Timeseries, "The series", 400, 422),
    summary="Get a metric over time",
)
async def get_timeseries(
    request: Request,
    wanted: EndedJobs,
    metric: Annotated[
        Metric,
        Query(
            description="`jobs`: ended jobs, by status. `duration`: average seconds that ended jobs ran. `queueWait`: "
            "average seconds that started jobs waited. `tokens`: used tokens, by kind. `cost`: in US dollars.",
            examples=["jobs"],
        ),
    ] = Metric.JOBS,
    window: Annotated[
        str,
        Query(
            pattern=SPAN, description="Length of the time range, from 1h to 90d, in minutes (m), hours (h) or days (d)."
        ),
    ] = "24h",
    step: Annotated[
        str | None,
        Query(
            pattern=SPAN,
            description=f"Time between two points, from 1m to the window, with at most {MAX_POINTS} points in total. "
            f"Default: a step that gives at most {DEFAULT_POINTS} points.",
            examples=["15m"],
        ),
    ] = None,
    by: Annotated[
        GroupField | None, Query(description=f"A series for each of the {MOST_SERIES} most frequent values of a field.")
    ] = None,
    query: Annotated[str | None, Query(include_in_schema=False)] = None,
) -> Response:
    """Get a metric from Prometheus if PROMETHEUS_URL is set; without it, with `by` or with a filter, from stored jobs.

    A step without jobs counts 0 and has no average. Values from Prometheus are estimates from its scrapes.
    """
    if query is not None:
        raise ApiError(400, "no_queries", "raw PromQL is not accepted; set `metric`")
    services = services_of(request)
    step = step or _default_step(window)
    steps = Steps.until(services.clock.now(), _seconds(step), _points_in(window, step))
    if by:
        found = await services.job_index.series_by(by, metric, steps, wanted)
        series = [Series({by: name}, points_of(metric, steps, values)) for name, values in found.items()]
    elif services.prometheus and not wanted.conditions:
        series = series_of(metric, steps, await services.prometheus.values(metric, steps))
    else:
        series = series_of(metric, steps, await services.job_index.series(metric, steps, wanted))
    views = [{"labels": each.labels, "points": each.points} for each in series]
    return json_response({"metric": metric, "window": window, "step": step, "series": views})


def _by_name(counts: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    """Return counts by name and status, for the MAX_NAMES names with the most jobs."""
    by_name: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, status, count in counts:
        by_name[name][status] += count
    most = sorted(by_name, key=lambda name: (-by_name[name].total(), name))[:MAX_NAMES]
    return {name: {status: by_name[name][status] for status in API_STATUS.values()} for name in most}


def _points_in(window: str, step: str) -> int:
    """Return the number of steps in the window. Raises Invalid if the window or the step is too short or too long."""
    if not _MIN_WINDOW <= _seconds(window) <= _MAX_WINDOW:
        raise Invalid(Problem("window", "must be from 1h to 90d"))
    if _seconds(step) > _seconds(window):
        raise Invalid(Problem("step", "must not be longer than the window"))
    if (points := _seconds(window) // _seconds(step)) > MAX_POINTS:
        raise Invalid(
            Problem("step", f"must be longer: {window} has {points} such steps, and the maximum is {MAX_POINTS}")
        )
    return points


def _default_step(window: str) -> str:
    return next((each for each in _DEFAULT_STEPS if _seconds(window) // _seconds(each) <= DEFAULT_POINTS), "1d")


def _seconds(span: str) -> int:
    return int(span[:-1]) * _UNITS[span[-1]]
