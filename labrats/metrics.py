"""The engine's Prometheus metrics. Labels come from bounded sets, so that callers cannot grow the exposition."""

from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from labrats.model.job import Job, Usage
from labrats.model.phases import API_STATUS, ENDED, Phase

MAX_MODELS: Final = 50
MAX_TYPES: Final = 100
"""Limits on the models and the job types (each with its provider and model) that have series of their own.

Further ones count as `other`: callers choose the names, and each has some fifty series.
"""

OTHER: Final = "other"

TOKEN_KINDS: Final = ("input", "output", "cache_read")

_SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 10800)
_LATENCIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

# They would add a second series to each counter and histogram.
disable_created_metrics()  # type: ignore[no-untyped-call]


class BoundedLabels:
    """Sets of label values whose last value callers choose. Beyond the first `limit` sets, it becomes `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[tuple[str, ...]] = set()

    def __call__(self, *values: str) -> tuple[str, ...]:
        if values in self._known or len(self._known) < self._limit:
            self._known.add(values)
            return values
        return (*values[:-1], OTHER)


class Metrics:
    """The engine's metrics. `api/routes/health.py` sets the gauges that mirror the job index at each scrape."""

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
        self.jobs = Gauge("labrats_jobs", "Jobs retained, by status", ("status", *job), registry=self.registry)
        self.queue_depth = Gauge("labrats_queue_depth", "Jobs waiting", ("provider", "model"), registry=self.registry)
        self.slots_used = Gauge("labrats_slots_in_use", "Slots in use", ("provider", "model"), registry=self.registry)
        self._http_seconds = Histogram(
            "labrats_http_request_seconds", "Time to the response's first byte", ("method", "route", "status"),
            buckets=_LATENCIES, registry=self.registry,
        )  # fmt: skip
        self._http_series: dict[tuple[str, str, int], Histogram] = {}
        self.store_errors = Counter("labrats_store_errors", "Store calls that failed", registry=self.registry)
        self.disk_full = Gauge(
            "labrats_disk_full", "1 if the disk of the data folder is full, so that writes are refused",
            registry=self.registry,
        )  # fmt: skip
        self.watch_synced = Gauge(
            "labrats_watch_synced", "1 once a watch of the store has delivered all existing resources", ("watch",),
            registry=self.registry,
        )  # fmt: skip
        self.degraded = Gauge(
            "labrats_degraded", "1 if the cluster lacks something that the engine relies on, as tested by the leader",
            ("what",), registry=self.registry,
        )  # fmt: skip
        self.history_bytes = Gauge(
            "labrats_history_bytes", "Bytes of all jobs in a cluster's etcd, estimated by the leader",
            registry=self.registry,
        )  # fmt: skip
        self.watch_silence = Gauge(
            "labrats_watch_silence_seconds", "Silence of a watch of the store; a watch of keys is stale beyond 30",
            ("watch",), registry=self.registry,
        )  # fmt: skip
        self._refused_hosts = Counter(
            "labrats_refused_hosts", "Hosts that network rules have refused to agents, each once per attempt",
            registry=self.registry,
        )  # fmt: skip
        self._callbacks = Counter(
            "labrats_callbacks", "Callbacks attempted: delivered, retried, or given up", ("outcome",),
            registry=self.registry,
        )  # fmt: skip
        self._reports = Counter(
            "labrats_reports", "Reports to GitHub: written, refused in part, retried, or given up", ("outcome",),
            registry=self.registry,
        )  # fmt: skip
        self._deliveries = Counter(
            "labrats_webhook_deliveries", "Webhook deliveries received, by outcome", ("outcome",),
            registry=self.registry,
        )  # fmt: skip
        self.log_streams = Gauge("labrats_log_streams", "Log streams open", registry=self.registry)
        self._lost_log_lines = Counter(
            "labrats_log_lines_lost", "Lines of the engine's own log that could not be written", registry=self.registry
        )

    def log_lines_lost(self, total: int) -> None:
        """Count the log lines that have been lost since the last call. total: since the start of the process."""
        self._lost_log_lines.inc(total - self._lost_before)
        self._lost_before = total

    def job_submitted(self, job: Job) -> None:
        self._submitted.labels(*self._job_labels(job)).inc()

    def job_moved(self, before: Job, after: Job, now: datetime) -> None:
        """Record a change of phase: the start of a job, the end of an attempt or of the job."""
        labels = self.model_labels(after.resolved.provider, after.resolved.model)
        if after.phase is Phase.RUNNING:
            self._create_series(after, labels)
        if after.phase is Phase.RUNNING and before.status.attempts == 0:
            self._queue_wait.labels(*labels).observe(max(0.0, (now - before.created_at).total_seconds()))
        if before.phase is Phase.RUNNING and before.status.started_at:
            self._run_time.labels(*labels).observe(max(0.0, (now - before.status.started_at).total_seconds()))
            self._count_usage(before.status.usage, after.status.usage, labels)
            self._refused_hosts.inc(len(after.status.outputs.refused_hosts))
        if after.ended:
            self._finished.labels(API_STATUS[after.phase], *self._job_labels(after)).inc()

    def _create_series(self, job: Job, labels: tuple[str, ...]) -> None:
        """Expose the counters that the end of the job may raise, before it does.

        Prometheus sees no increase in a counter that it first scrapes after the increase.
        """
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
        """Record an answered request. route: the pattern of the path, not the path."""
        key = (method, route, status)
        if (series := self._http_series.get(key)) is None:
            series = self._http_series[key] = self._http_seconds.labels(method, route, str(status))
        series.observe(seconds)

    def callback_tried(self, outcome: str) -> None:
        """Record a callback: `delivered`, `retried` (another attempt will follow) or `given_up`."""
        self._callbacks.labels(outcome).inc()

    def report_tried(self, outcome: str) -> None:
        """Record a report of a job's end: `written`, `refused` in part, `retried` (postponed) or `given_up`."""
        self._reports.labels(outcome).inc()

    def delivery_received(self, outcome: str) -> None:
        """Record a delivery: `started` jobs, `unmatched` by any trigger, `ignored` by its source, a `command`, `ping`,
        or `refused`, for its signature or with another error.
        """
        self._deliveries.labels(outcome).inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def model_labels(self, provider: str, model: str) -> tuple[str, ...]:
        """Return the values of the labels `provider` and `model`."""
        return self._models(provider, model)

    def job_labels(self, job_type: str, provider: str, model: str) -> tuple[str, ...]:
        """Return the values of the labels `type`, `provider` and `model`."""
        known_provider, known_model = self._models(provider, model)
        provider, model, job_type = self._types(known_provider, known_model, job_type)
        return job_type, provider, model

    def _job_labels(self, job: Job) -> tuple[str, ...]:
        return self.job_labels(job.spec.type, job.resolved.provider, job.resolved.model)
