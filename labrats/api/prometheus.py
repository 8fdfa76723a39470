"""Reads time series of the metrics in labrats/metrics.py from the Prometheus that scrapes the engine."""

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Final

import httpx2
import msgspec
import structlog

from labrats.api.http.errors import ApiError
from labrats.model.series import LABEL, Metric, Steps, Value
from labrats.net.tls import verifying_tls

log = structlog.get_logger()

RESPONSE_SECONDS: Final = 15.0
RETRY_SECONDS: Final = "10"

_QUERIES: Final[Mapping[Metric, str]] = {
    Metric.JOBS: "sum by (status) (increase(labrats_jobs_finished_total[{step}s]))",
    Metric.DURATION: "sum(increase(labrats_run_seconds_sum[{step}s]))"
    " / sum(increase(labrats_run_seconds_count[{step}s]))",
    Metric.QUEUE_WAIT: "sum(increase(labrats_queue_wait_seconds_sum[{step}s]))"
    " / sum(increase(labrats_queue_wait_seconds_count[{step}s]))",
    Metric.TOKENS: "sum by (kind) (increase(labrats_tokens_total[{step}s]))",
    Metric.COST: "sum(increase(labrats_cost_usd_total[{step}s]))",
}


class _Series(msgspec.Struct):
    """One series. The values of its points are strings, since JSON has no NaN."""

    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Data(msgspec.Struct):
    result: list[_Series]


class _Response(msgspec.Struct):
    data: _Data


class PrometheusClient:
    """Client of the Prometheus at `url`."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/query_range"
        self._tls = verifying_tls()

    async def values(self, metric: Metric, steps: Steps) -> list[Value]:
        """Return the known values of the metric, per step. Raises ApiError 503 if Prometheus does not answer."""
        query = _QUERIES[metric].format(step=steps.seconds)
        parameters = {"query": query, "start": steps.ends[0], "end": steps.end, "step": steps.seconds}
        try:
            return _values_in(await self._query(parameters), metric)
        except (msgspec.DecodeError, ValueError) as error:
            raise _unavailable("its response is not a Prometheus query result", str(error)) from error

    async def _query(self, parameters: Mapping[str, Any]) -> bytes:
        try:
            async with (
                asyncio.timeout(RESPONSE_SECONDS),
                httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=RESPONSE_SECONDS) as client,
            ):
                response = await client.post(self._url, data=parameters)
        except (httpx2.HTTPError, TimeoutError) as error:
            raise _unavailable("it cannot be reached", str(error) or type(error).__name__) from error
        if response.status_code != httpx2.codes.OK:
            raise _unavailable(f"it answers with status {response.status_code}", response.text[:500])
        return response.content


def _values_in(body: bytes, metric: Metric) -> list[Value]:
    name, _ = LABEL.get(metric, ("", ()))
    return [
        Value(series.metric.get(name, ""), round(time), value)
        for series in msgspec.json.decode(body, type=_Response).data.result
        for time, text in series.values
        if math.isfinite(value := float(text))
    ]


def _unavailable(reason: str, detail: str) -> ApiError:
    """Return the error for the caller, and log the detail: only operators may see Prometheus' address and response."""
    log.warning("Prometheus query failed", reason=reason, detail=detail)
    message = f"cannot query the Prometheus in PROMETHEUS_URL at present: {reason}"
    return ApiError(503, "prometheus_unavailable", message, {"Retry-After": RETRY_SECONDS})
