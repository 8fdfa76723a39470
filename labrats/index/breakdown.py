"""Ended jobs by the value of a field: how many, how long they ran, and what they consumed. See job_table.py."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import apsw

from labrats.index.job_filter import EVERY_JOB, JobFilter, condition_of
from labrats.model.series import Metric, Steps, Value

FIELDS: Final[Mapping[str, str]] = {"model": "model", "agentRole": "agent_role", "repo": "repo", "type": "type"}
"""The fields by which jobs are grouped, and their columns."""

MOST_ROWS: Final = 100
MOST_SERIES: Final = 8
"""Values that are told apart: those with the most jobs. Jobs with other values are left out."""

_SUMS: Final[Mapping[Metric, str]] = {
    Metric.JOBS: "count(*)",
    Metric.DURATION: "avg(ran)",
    Metric.QUEUE_WAIT: "avg(waited)",
    Metric.TOKENS: "sum(input_tokens + output_tokens + cache_read_tokens)",
    Metric.COST: "sum(cost_usd)",
}


class Row(NamedTuple):
    """The ended jobs with one value of the field; None for jobs without one.

    cost_usd:      sum of the known costs; None if none is known.
    unknown_costs: number of jobs whose cost is unknown.
    """

    value: str | None
    completed: int
    failed: int
    cancelled: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cost_usd: float | None
    unknown_costs: int
    median_seconds: float | None
    p95_seconds: float | None


def rows_of(db: apsw.Connection, field: str, begin: float, end: float, wanted: JobFilter = EVERY_JOB) -> list[Row]:
    """Return the jobs that ended from `begin` to before `end`, in Unix seconds, by the most frequent values."""
    condition, values = condition_of(wanted, within_time=True)
    rows = db.execute(
        # Every interpolated text is a constant.
        f"SELECT {FIELDS[field]}, sum(status = 'completed'), sum(status = 'failed'), sum(status = 'cancelled'),"  # noqa: S608
        " sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cost_usd), sum(cost_usd IS NULL),"
        " percentile(ran, 50), percentile(ran, 95) FROM jobs WHERE finished >= ? AND finished < ?"
        f" AND {condition} GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {MOST_ROWS}",
        (begin, end, *values),
    )
    return [Row(*row) for row in rows]


def series_by(
    db: apsw.Connection, field: str, metric: Metric, steps: Steps, wanted: JobFilter = EVERY_JOB
) -> Mapping[str, Sequence[Value]]:
    """Return the metric's values for the steps that have any, for each of the most frequent values of the field."""
    column, time = FIELDS[field], "first_started" if metric is Metric.QUEUE_WAIT else "finished"
    condition, filtered = condition_of(wanted, within_time=True)
    within = f"{time} > ? AND {time} <= ? AND {condition} AND {column} IS NOT NULL"
    bounds = (float(steps.begin), float(steps.end), *filtered)
    names = db.execute(
        f"SELECT {column} FROM jobs WHERE {within} GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {MOST_SERIES}",  # noqa: S608
        bounds,
    )
    values: dict[str, list[Value]] = {str(name): [] for (name,) in names}
    rows = db.execute(
        f"SELECT {column}, cast((? - {time}) / ? AS INTEGER) AS back, {_SUMS[metric]} FROM jobs WHERE {within}"  # noqa: S608
        f" AND {column} IN ({', '.join('?' * len(values))}) GROUP BY 1, 2",
        (float(steps.end), float(steps.seconds), *bounds, *values),
    )
    for name, back, value in rows:
        if value is not None:
            values[str(name)].append(Value("", steps.end - int(back) * steps.seconds, float(value)))
    return values
