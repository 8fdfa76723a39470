"""Series from the Prometheus that scrapes the engine, by queries of our own over what labrats/metrics.py counts."""

import asyncio
import math
import ssl
from collections.abc import Mapping
from typing import Any, Final

import httpx2
import msgspec
import structlog

from labrats.api.http.errors import ApiError
from labrats.model.series import LABEL, Metric, Steps, Value

log = structlog.get_logger()

ANSWER_SECONDS: Final = 15.0
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


class _Found(msgspec.Struct):
    """One series: its labels, and its points, whose values are texts since JSON has no NaN."""

    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Data(msgspec.Struct):
    result: list[_Found]


class _Answer(msgspec.Struct):
    data: _Data


class PrometheusClient:
    """The Prometheus at `url`."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/query_range"
        self._tls = ssl.create_default_context()

    async def values(self, metric: Metric, steps: Steps) -> list[Value]:
        """What each step came to, as far as it knows. Raises ApiError 503 when it does not say."""
        query = _QUERIES[metric].format(step=steps.seconds)
        asked = {"query": query, "start": steps.ends[0], "end": steps.end, "step": steps.seconds}
        try:
            return _values_in(await self._ask(asked), metric)
        except (msgspec.DecodeError, ValueError) as error:
            raise _unavailable("it does not answer as Prometheus does", str(error)) from error

    async def _ask(self, query: Mapping[str, Any]) -> bytes:
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=ANSWER_SECONDS) as client,
            ):
                answer = await client.post(self._url, data=query)
        except (httpx2.HTTPError, TimeoutError) as error:
            raise _unavailable("it cannot be reached", str(error) or type(error).__name__) from error
        if answer.status_code != httpx2.codes.OK:
            raise _unavailable(f"it answers {answer.status_code}", answer.text[:500])
        return answer.content


def _values_in(answer: bytes, metric: Metric) -> list[Value]:
    name, _ = LABEL.get(metric, ("", ()))
    return [
        Value(series.metric.get(name, ""), round(time), value)
        for series in msgspec.json.decode(answer, type=_Answer).data.result
        for time, text in series.values
        if math.isfinite(value := float(text))
    ]


def _unavailable(reason: str, detail: str) -> ApiError:
    """The caller learns what is wrong; where Prometheus is, and what it said, is for whoever runs the engine."""
    log.warning("Prometheus did not answer a query", reason=reason, detail=detail)
    message = f"the Prometheus in PROMETHEUS_URL is of no use at the moment: {reason}"
    return ApiError(503, "prometheus_unavailable", message, {"Retry-After": RETRY_SECONDS})
