"""What Prometheus is told. Labels come from bounded sets, so that a caller cannot grow the exposition."""

from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from labrats.model.job import Job, Usage
from labrats.model.phases import API_STATUS, ENDED, Phase

MAX_MODELS: Final = 25
MAX_TYPES: Final = 50
"""Bounds on the models and on the job types, each with its provider, that have series of their own. Further ones are
counted as `other`: callers choose their names, and each has some fifty series.
"""

OTHER: Final = "other"

TOKEN_KINDS: Final = ("input", "output", "cache_read")

_SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 10800)
_LATENCIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

# A second series for each counter and histogram, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class BoundedLabels:
    """Sets of labels whose last one callers choose: the first ones as they are, in the others that one is `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[tuple[str, ...]] = set()

    def __call__(self, *values: str) -> tuple[str, ...]:
        if values in self._known or len(self._known) < self._most:
            self._known.add(values)
            return values
        return (*values[:-1], OTHER)


class Metrics:
    """The engine's counters. Gauges that mirror the caches are set at each scrape by `api/health.py`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lost_before = 0
        self._models, self._types = BoundedLabels(MAX_MODELS), BoundedLabels(MAX_TYPES)
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
        self._http_seconds = Histogram(
            "labrats_http_request_seconds", "Time to the response's first byte", ("method", "route", "status"),
            buckets=_LATENCIES, registry=self.registry,
        )  # fmt: skip
        self.store_errors = Counter("labrats_store_errors", "Store calls that failed", registry=self.registry)
        self.watch_synced = Gauge(
            "labrats_watch_synced", "1 once a watch of the store has brought all that existed", ("watch",),
            registry=self.registry,
        )  # fmt: skip
        self.degraded = Gauge(
            "labrats_degraded", "1 where the cluster does not do what the engine relies on, as its leader has found",
            ("what",), registry=self.registry,
        )  # fmt: skip
        self.watch_silence = Gauge(
            "labrats_watch_silence_seconds", "How long a watch of the store has heard nothing; beyond 150 it is stale",
            ("watch",), registry=self.registry,
        )  # fmt: skip
        self._callbacks = Counter(
            "labrats_callbacks", "Tries to tell a caller: delivered, retried, or given up", ("outcome",),
            registry=self.registry,
        )  # fmt: skip
        self._deliveries = Counter(
            "labrats_webhook_deliveries", "Webhooks received: what they started, or why nothing", ("outcome",),
            registry=self.registry,
        )  # fmt: skip
        self.log_streams = Gauge("labrats_log_streams", "Log streams open", registry=self.registry)
        self._lost_log_lines = Counter(
            "labrats_log_lines_lost", "Lines of the engine's own log that could not be written", registry=self.registry
        )

    def log_lines_lost(self, in_all: int) -> None:
        """Count the lines of the log that have been lost since the last call, given how many that are in all."""
        self._lost_log_lines.inc(in_all - self._lost_before)
        self._lost_before = in_all

    def job_submitted(self, job: Job) -> None:
        self._submitted.labels(*self._job_labels(job)).inc()

    def job_moved(self, before: Job, after: Job, now: datetime) -> None:
        """A job has changed its phase: it started, or an attempt ended, or it never will start."""
        labels = self.model_labels(after.resolved.provider, after.resolved.model)
        if after.phase is Phase.RUNNING:
            self._show_what_may_come(after, labels)
        if after.phase is Phase.RUNNING and before.status.attempts == 0:
            self._queue_wait.labels(*labels).observe(max(0.0, (now - before.created_at).total_seconds()))
        if before.phase is Phase.RUNNING and before.status.started_at:
            self._run_time.labels(*labels).observe(max(0.0, (now - before.status.started_at).total_seconds()))
            self._count_usage(before.status.usage, after.status.usage, labels)
        if after.ended:
            self._finished.labels(API_STATUS[after.phase], *self._job_labels(after)).inc()

    def _show_what_may_come(self, job: Job, labels: tuple[str, ...]) -> None:
        """Show the counters that the job's end may raise, as they are: a counter that Prometheus first meets when it
        has been raised has not risen, to Prometheus."""
        for status in (API_STATUS[phase] for phase in ENDED):
            self._finished.labels(status, *self._job_labels(job))
        for kind in TOKEN_KINDS:
            self._tokens.labels(kind, *labels)
        for each in (self._run_time, self._cost):
            each.labels(*labels)

    def _count_usage(self, before: Usage, after: Usage, labels: tuple[str, ...]) -> None:
        for kind in TOKEN_KINDS:
            if used := getattr(after, f"{kind}_tokens") - getattr(before, f"{kind}_tokens"):
                self._tokens.labels(kind, *labels).inc(used)
        if (cost := (after.known_cost_usd or 0.0) - (before.known_cost_usd or 0.0)) > 0:
            self._cost.labels(*labels).inc(cost)

    def http_answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. route: the path's pattern, not the path."""
        self._http_seconds.labels(method, route, str(status)).observe(seconds)

    def callback_tried(self, outcome: str) -> None:
        """A caller was told, or was not: `delivered`, `retried` (it will be tried again) or `given_up`."""
        self._callbacks.labels(outcome).inc()

    def delivery_received(self, outcome: str) -> None:
        """A webhook came: `started` jobs, `unmatched` by any trigger, `ignored` by its source, `ping`, or `refused`."""
        self._deliveries.labels(outcome).inc()

    def exposition(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)

    def model_labels(self, provider: str, model: str) -> tuple[str, ...]:
        """Return the labels `provider` and `model`."""
        return self._models(provider, model)

    def job_labels(self, job_type: str, provider: str, model: str) -> tuple[str, ...]:
        """Return the labels `type`, `provider` and `model`."""
        known_provider, known_model = self._models(provider, model)
        provider, model, job_type = self._types(known_provider, known_model, job_type)
        return job_type, provider, model

    def _job_labels(self, job: Job) -> tuple[str, ...]:
        return self.job_labels(job.spec.type, job.resolved.provider, job.resolved.model)
