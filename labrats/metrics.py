"""What Prometheus is told. Labels come from bounded sets, so that a caller cannot grow the exposition."""

from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from labrats.model.job import Job
from labrats.model.phases import API_STATUS, JobEvent, next_phase

MAX_TYPES: Final = 100
"""Job types told apart; any further one is counted as `other`."""

_SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 10800)
_LATENCIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """The engine's counters. Gauges that mirror the cache are set at each scrape by `api/health.py`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        job = ("type", "provider", "model")
        self._submitted = Counter("labrats_jobs_submitted", "Jobs accepted", job, registry=self.registry)
        self._finished = Counter("labrats_jobs_finished", "Jobs that ended", ("status", *job), registry=self.registry)
        self._queue_wait = Histogram(
            "labrats_queue_wait_seconds", "From creation to the first start", ("provider", "model"),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._run_time = Histogram(
            "labrats_run_seconds", "From an attempt's start to its end", ("provider", "model"),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._tokens = Counter("labrats_tokens", "Tokens used", ("kind", "provider", "model"), registry=self.registry)
        self._cost = Counter("labrats_cost_usd", "US dollars spent", ("provider", "model"), registry=self.registry)
        self.jobs = Gauge("labrats_jobs", "Jobs kept, by status", ("status", *job), registry=self.registry)
        self.queue_depth = Gauge("labrats_queue_depth", "Jobs waiting", ("provider", "model"), registry=self.registry)
        self.slots_used = Gauge("labrats_slots_in_use", "Slots in use", ("provider", "model"), registry=self.registry)
        self.http_seconds = Histogram(
            "labrats_http_request_seconds", "Time to the response's first byte", ("method", "route", "status"),
            buckets=_LATENCIES, registry=self.registry,
        )  # fmt: skip
        self.store_errors = Counter("labrats_store_errors", "Store calls that failed", registry=self.registry)
        self.log_streams = Gauge("labrats_log_streams", "Log streams open", registry=self.registry)
        self._types: set[str] = set()

    def job_submitted(self, job: Job) -> None:
        self._submitted.labels(self.type_label(job.spec.type), *_model_labels(job)).inc()

    def job_moved(self, job: Job, event: JobEvent, now: datetime) -> None:
        """`job` (as it was before) was moved by `event`."""
        labels = _model_labels(job)
        if event is JobEvent.START and job.status.attempts == 0:
            self._queue_wait.labels(*labels).observe(max(0.0, (now - job.created_at).total_seconds()))
        elif event is not JobEvent.START and job.status.started_at:
            self._run_time.labels(*labels).observe(max(0.0, (now - job.status.started_at).total_seconds()))
        if event not in (JobEvent.START, JobEvent.REQUEUE, JobEvent.RETRY):
            status = API_STATUS[next_phase(job.phase, event)]
            self._finished.labels(status, self.type_label(job.spec.type), *labels).inc()

    def job_used(self, job: Job, input_tokens: int, output_tokens: int, cost_usd: float) -> None:
        """One attempt of `job` consumed this."""
        labels = _model_labels(job)
        for kind, count in (("input", input_tokens), ("output", output_tokens)):
            if count:
                self._tokens.labels(kind, *labels).inc(count)
        if cost_usd:
            self._cost.labels(*labels).inc(cost_usd)

    def type_label(self, job_type: str) -> str:
        """`job_type`, or `other` once MAX_TYPES are known."""
        if job_type in self._types or len(self._types) < MAX_TYPES:
            self._types.add(job_type)
            return job_type
        return "other"

    def exposition(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


def _model_labels(job: Job) -> tuple[str, str]:
    return job.resolved.provider, job.resolved.model
