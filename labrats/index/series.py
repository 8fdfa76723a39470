"""Time series of jobs: how long they waited and ran, when they ended, and what they consumed.

They cover the jobs that exist: a deleted job no longer counts.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import apsw

from labrats.model.job import Job
from labrats.model.phases import API_STATUS
from labrats.model.series import Metric, Steps, Value

_SCHEMA: Final = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, first_started REAL, waited REAL, finished REAL, status TEXT NOT NULL, ran REAL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cache_read_tokens INTEGER NOT NULL, cost_usd REAL
) WITHOUT ROWID;
CREATE INDEX by_start ON jobs (first_started, waited) WHERE first_started IS NOT NULL;
CREATE INDEX by_end ON jobs (finished, status, ran, input_tokens, output_tokens, cache_read_tokens, cost_usd)
    WHERE finished IS NOT NULL;
"""

_PUT: Final = """
INSERT INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET
    first_started = coalesce(first_started, excluded.first_started), waited = coalesce(waited, excluded.waited),
    finished = excluded.finished, status = excluded.status, ran = excluded.ran, input_tokens = excluded.input_tokens,
    output_tokens = excluded.output_tokens, cache_read_tokens = excluded.cache_read_tokens, cost_usd = excluded.cost_usd
"""

_TIME_COLUMN: Final = dict.fromkeys(Metric, "finished") | {Metric.QUEUE_WAIT: "first_started"}
_SUMS: Final[Mapping[Metric, Mapping[str, str]]] = {
    Metric.JOBS: {each: f"sum(status = '{each}')" for each in ("completed", "failed", "cancelled")},
    Metric.DURATION: {"": "avg(ran)"},
    Metric.QUEUE_WAIT: {"": "avg(waited)"},
    Metric.TOKENS: {kind: f"sum({kind}_tokens)" for kind in ("input", "output", "cache_read")},
    Metric.COST: {"": "sum(cost_usd)"},
}
"""The SQL aggregate for each label of a metric, over the jobs that fall in a step."""


class JobSeries:
    """The metrics of jobs over time. All tokens and costs of a job count in the step in which it ends.

    The wait of a job is known only if `put` was called while its first attempt was the latest.
    """

    def __init__(self) -> None:
        # The indexes hold every column that a query reads: it adds up 100,000 jobs in some 30 ms.
        self._db = apsw.Connection(":memory:")
        self._db.execute(_SCHEMA)

    def put(self, job: Job) -> None:
        """Add a job, or replace it with its current state."""
        status = job.status
        if status.started_at is None and not job.ended:
            return
        is_first = status.started_at is not None and status.attempts == 1
        started, finished = _seconds(status.started_at), _seconds(status.finished_at)
        # A job that was requeued and then cancelled has the start time of an attempt that had ended before.
        ran = finished - started if finished and started and status.slot else None
        waited = started - job.created_at.timestamp() if is_first and started else None
        usage = status.usage
        self._db.execute(
            _PUT,
            (
                job.id, started if is_first else None, waited, finished, API_STATUS[job.phase], ran,
                usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.known_cost_usd,
            ),
        )  # fmt: skip

    def remove(self, job_id: str) -> None:
        self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def values(self, metric: Metric, steps: Steps) -> list[Value]:
        """Return the metric's values for the steps that have any."""
        time, sums = _TIME_COLUMN[metric], _SUMS[metric]
        rows = self._db.execute(
            # Every interpolated text comes from the constants above.
            f"SELECT cast((? - {time}) / ? AS INTEGER) AS back, {', '.join(sums.values())} FROM jobs"  # noqa: S608
            f" WHERE {time} > ? AND {time} <= ? GROUP BY back",
            (float(steps.end), float(steps.seconds), float(steps.begin), float(steps.end)),
        )
        return [
            Value(label, steps.end - back * steps.seconds, value)
            for back, *row in rows
            for label, value in zip(sums, row, strict=True)
            if value is not None
        ]


def _seconds(time: datetime | None) -> float | None:
    return time.timestamp() if time else None
