"""Stats: valid queries, and responses of Prometheus."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from labrats.api.http.errors import ApiError
from labrats.api.prometheus import PrometheusClient
from labrats.api.routes.stats import MAX_NAMES
from labrats.model.phases import Phase
from labrats.model.series import Metric, Steps, Value
from labrats.settings import EngineSettings
from tests.api.conftest import Api, a_submission
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_spec
from tests.support.loopback import QuietHandler, served_by
from tests.support.waiting import eventually

STEPS = Steps.until(NOON, 3600, 3)


async def timeseries(admin: httpx2.AsyncClient, **query: str) -> httpx2.Response:
    return await admin.get("/api/stats/timeseries", params=query)


async def test_promql_is_refused_with_a_hint_at_metric(admin: httpx2.AsyncClient) -> None:
    answer = await timeseries(admin, query="up")

    assert answer.status_code == 400
    assert "`metric`" in answer.json()["error"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"metric": "up"}, "metric"),
        ({"window": "1w"}, "window"),
        ({"window": "59m"}, "window"),
        ({"window": "91d"}, "window"),
        ({"window": "99999d"}, "window"),
        ({"step": "0m"}, "step"),
        ({"step": "1"}, "step"),
        ({"window": "1h", "step": "2h"}, "step"),
        ({"window": "90d", "step": "1m"}, "step"),
    ],
)
async def test_an_invalid_parameter_is_named_in_the_error(
    admin: httpx2.AsyncClient, query: dict[str, str], field: str
) -> None:
    answer = await timeseries(admin, **query)

    assert answer.status_code == 422
    assert [detail["field"] for detail in answer.json()["details"]] == [field]


@pytest.mark.parametrize(("window", "step"), [("1h", "1m"), ("24h", "15m"), ("7d", "1h"), ("30d", "6h"), ("90d", "1d")])
async def test_the_default_step_depends_on_the_window(admin: httpx2.AsyncClient, window: str, step: str) -> None:
    assert (await timeseries(admin, window=window)).json()["step"] == step


async def test_an_empty_engine_has_empty_stats(admin: httpx2.AsyncClient) -> None:
    stats = (await admin.get("/api/stats")).json()

    nothing = dict.fromkeys(("waiting", "active", "completed", "failed", "cancelled"), 0)
    assert stats == {"byType": {}, "byModel": {}, "byRepo": {}, "totals": nothing}


async def test_stats_show_the_names_with_the_most_jobs(api: Api, admin: httpx2.AsyncClient) -> None:
    kinds = [f"once-{number:04}" for number in range(MAX_NAMES)] + ["twice", "twice"]
    for kind in kinds:
        await api.store.create(a_job(Phase.SUCCEEDED, spec=a_spec(type=kind)))
    await eventually(lambda: api.services.job_index.count_in(Phase.SUCCEEDED) == len(kinds))

    by_type = (await admin.get("/api/stats")).json()["byType"]

    assert list(by_type) == ["twice", *kinds[: MAX_NAMES - 1]]


async def test_counters_of_a_job_exist_before_they_increase(api: Api, user: httpx2.AsyncClient) -> None:
    """Otherwise Prometheus would miss the first job with these labels."""
    script = {"mock": {"steps": [{"hang": True}]}}
    await user.post("/api/jobs/submit", json=a_submission(type="first", metadata=script))
    await eventually(lambda: api.services.job_index.count_in(Phase.RUNNING) == 1)

    text = (await user.get("/metrics")).text

    labels = 'model="mock",provider="mock"'
    for status in ("completed", "failed", "cancelled"):
        assert f'labrats_jobs_finished_total{{{labels},status="{status}",type="first"}} 0.0' in text
    for kind in ("input", "output", "cache_read"):
        assert f'labrats_tokens_total{{kind="{kind}",{labels}}} 0.0' in text
    assert f"labrats_cost_usd_total{{{labels}}} 0.0" in text
    assert f"labrats_run_seconds_count{{{labels}}} 0.0" in text


# Prometheus


class ScriptedPrometheus:
    """A Prometheus that responds to every query with `status` and `body`, and records the latest request."""

    url = ""
    status = 200
    body = b"{}"
    path = ""
    query = b""


@pytest.fixture
def scripted() -> Iterator[ScriptedPrometheus]:
    script = ScriptedPrometheus()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            script.path, script.query = self.path, self.body()
            self.answer(script.status, script.body)

    with served_by(Handler) as port:
        script.url = f"http://127.0.0.1:{port}/prefix/"
        yield script


async def test_prometheus_is_queried_below_its_url(scripted: ScriptedPrometheus) -> None:
    scripted.body = b"""{"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {"status": "failed"}, "values": [[1.0, "2"], [2.0, "NaN"], [3.0, "+Inf"]]}]}}"""

    assert await PrometheusClient(scripted.url).values(Metric.JOBS, STEPS) == [Value("failed", 1, 2.0)]
    assert scripted.path == "/prefix/api/v1/query_range"
    assert b"step=3600" in scripted.query


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b"{}"),
        (200, b'{"data": {"result": [{"metric": {}, "values": [[1, 2]]}]}}'),
        (200, b'{"data": {"result": [{"metric": {}, "values": [[1, "many"]]}]}}'),
        (302, b""),
        (400, b'{"status": "error", "error": "a-secret-of-its-own"}'),
        (500, b"a-secret-of-its-own"),
    ],
)
async def test_a_failed_query_is_a_503_without_details_of_prometheus(
    scripted: ScriptedPrometheus, status: int, body: bytes
) -> None:
    scripted.status, scripted.body = status, body

    with pytest.raises(ApiError, match="PROMETHEUS_URL") as refused:
        await PrometheusClient(scripted.url).values(Metric.COST, STEPS)

    assert refused.value.status == 503
    assert "secret" not in str(refused.value)
    assert "127.0.0.1" not in str(refused.value)


@pytest.mark.parametrize("url", ["prometheus:9090", "http://user:password@prometheus:9090", "http://prometheus/?a=b"])
def test_an_invalid_prometheus_url_is_refused_at_start(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="PROMETHEUS_URL"):
        EngineSettings(data_dir=tmp_path, PROMETHEUS_URL=url)
