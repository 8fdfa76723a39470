"""Time series of jobs: how long they waited and ran, when they ended, and what they consumed.

They cover the jobs that exist: a deleted job no longer counts. All tokens and costs of a job count in the step in which
it ends.
"""

from collections.abc import Mapping
from typing import Final

import apsw

from labrats.index.job_filter import EVERY_JOB, JobFilter, condition_of
from labrats.model.series import Metric, Steps, Value

_TIME_COLUMN: Final = dict.fromkeys(Metric, "finished") | {Metric.QUEUE_WAIT: "first_started"}
_SUMS: Final[Mapping[Metric, Mapping[str, str]]] = {
    Metric.JOBS: {each: f"sum(status = '{each}')" for each in ("completed", "failed", "cancelled")},
    Metric.DURATION: {"": "avg(ran)"},
    Metric.QUEUE_WAIT: {"": "avg(waited)"},
    Metric.TOKENS: {kind: f"sum({kind}_tokens)" for kind in ("input", "output", "cache_read")},
    Metric.COST: {"": "sum(cost_usd)"},
}
"""The SQL aggregate for each label of a metric, over the jobs that fall in a step."""


def values_of(db: apsw.Connection, metric: Metric, steps: Steps, wanted: JobFilter = EVERY_JOB) -> list[Value]:
    """Return the metric's values for the steps that have any. db: the tables of labrats/index/job_table.py."""
    time, sums = _TIME_COLUMN[metric], _SUMS[metric]
    condition, values = condition_of(wanted, within_time=True)
    rows = db.execute(
        # Every interpolated text comes from the constants above.
        f"SELECT cast((? - {time}) / ? AS INTEGER) AS back, {', '.join(sums.values())} FROM jobs"  # noqa: S608
        f" WHERE {time} > ? AND {time} <= ? AND {condition} GROUP BY back",
        (float(steps.end), float(steps.seconds), float(steps.begin), float(steps.end), *values),
    )
    return [
        Value(label, steps.end - back * steps.seconds, value)
        for back, *row in rows
        for label, value in zip(sums, row, strict=True)
        if value is not None
    ]
