"""Metrics: every promised family is exposed, by Prometheus' naming conventions."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.acceptance.engine import Engine, LocalEngine, User
from tests.chart.engine import InstalledEngine

UNITS = ("_seconds", "_bytes", "_usd")


@pytest.fixture(scope="module")
def engine(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that has run few models, so that the models of these tests have series of their own."""
    if isinstance(engine, InstalledEngine):
        yield engine
    else:
        with LocalEngine(tmp_path_factory.mktemp("metrics")) as own:
            yield own


async def families(engine: Engine) -> dict[str, Metric]:
    """Scrape all processes of the engine. Return the metric families by name."""
    found: dict[str, list[Metric]] = defaultdict(list)
    for answer in await engine.scrapes():
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        for family in text_string_to_metric_families(answer.text):
            found[family.name].append(family)
    return {name: combined(parts) for name, parts in found.items()}


def combined(parts: Sequence[Metric]) -> Metric:
    """Combine the same family of several processes: sum counters and histograms, and take the maximum of gauges."""
    values: dict[Any, list[Sample]] = defaultdict(list)
    for sample in (sample for family in parts for sample in family.samples):
        values[sample.name, frozenset(sample.labels.items())].append(sample)
    combine = max if parts[0].type == "gauge" else sum
    family = Metric(parts[0].name, parts[0].documentation, parts[0].type)
    family.samples = [each[0]._replace(value=combine(one.value for one in each)) for each in values.values()]
    return family


def value(family: Metric, **labels: str) -> float:
    """Return the sum of the samples with these labels; for a histogram, the sum of the counts."""
    wanted = (family.name, f"{family.name}_total", f"{family.name}_count")
    found = [each for each in family.samples if each.name in wanted and labels.items() <= each.labels.items()]
    return sum(sample.value for sample in found)


@pytest.fixture
async def measured(engine: Engine, user: User, model: str) -> AsyncIterator[dict[str, Metric]]:
    """A scrape during which one job of this test's model runs and two have ended."""
    usage = {"usage": {"inputTokens": 10, "outputTokens": 5, "costUsd": 0.25}}
    kind: dict[str, Any] = {"config": {"model": model}, "type": "measured"}
    await asyncio.gather(user.run(usage, **kind), user.run({"fail": "no"}, **kind))
    running = await user.submit({"log": "on"}, {"hang": True}, **kind)
    async with user.log_stream(running) as events:
        await anext(events)
        yield await families(engine)
    await user.cancel(running)
    await user.wait(running)


async def test_every_promised_metric_family_is_exposed(measured: dict[str, Metric], model: str) -> None:
    where = {"provider": "mock", "model": model}

    jobs = measured["labrats_jobs"]
    assert value(jobs, status="completed", type="measured", **where) == 1
    assert value(jobs, status="failed", type="measured", **where) == 1
    assert value(jobs, status="active", type="measured", **where) == 1
    assert value(measured["labrats_jobs_submitted"], type="measured", **where) == 3
    assert value(measured["labrats_jobs_finished"], status="completed", type="measured", **where) == 1
    assert value(measured["labrats_jobs_finished"], status="failed", type="measured", **where) == 1
    assert value(measured["labrats_queue_wait_seconds"], **where) == 3
    assert value(measured["labrats_run_seconds"], **where) == 2
    assert value(measured["labrats_slots_in_use"], **where) == 1
    assert "labrats_queue_depth" in measured
    assert value(measured["labrats_tokens"], kind="input", **where) == 10
    assert value(measured["labrats_tokens"], kind="output", **where) == 5
    assert value(measured["labrats_cost_usd"], **where) == 0.25
    assert value(measured["labrats_http_request_seconds"], method="POST", route="/api/jobs/submit", status="201") >= 3
    assert measured.keys() >= {"labrats_store_errors", "labrats_callbacks", "labrats_webhook_deliveries"}
    assert {sample.labels["watch"] for sample in measured["labrats_watch_synced"].samples if sample.value == 1} >= {
        "jobs", "keys", "sessions",
    }  # fmt: skip
    assert value(measured["labrats_log_streams"]) >= 1


async def test_queue_depth_is_the_number_of_waiting_jobs(
    engine: Engine, user: User, admin: User, name: str, model: str
) -> None:
    await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": 0})
    for _ in range(3):
        await user.submit(config={"model": model})

    async with asyncio.timeout(10):
        while value((await families(engine))["labrats_queue_depth"], model=model) != 3:
            await asyncio.sleep(0.01)


async def test_job_cancelled_while_waiting_counts_as_finished(
    engine: Engine, user: User, admin: User, name: str, model: str
) -> None:
    await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": 0})
    await user.cancel(await user.submit(config={"model": model}))

    assert value((await families(engine))["labrats_jobs_finished"], status="cancelled", model=model) == 1


async def test_metric_names_follow_the_conventions_of_prometheus(measured: dict[str, Metric]) -> None:
    for name, family in measured.items():
        assert name.startswith("labrats_")
        assert family.documentation
        for sample in family.samples:
            assert not sample.name.endswith("_created")
            if family.type == "counter":
                assert sample.name == f"{name}_total"
            if family.type == "histogram":
                assert name.endswith(UNITS)


async def test_requests_to_unknown_paths_share_one_route_label(engine: Engine, user: User) -> None:
    for number in range(5):
        await user.get(f"/api/made-up-{number}")
        await user.get(f"/api/jobs/ir-0000000{number}")

    family = (await families(engine))["labrats_http_request_seconds"]
    routes = {sample.labels["route"] for sample in family.samples}
    assert not [route for route in routes if "made-up" in route or "ir-" in route]
    assert {"unknown", "/api/jobs/{job_id}"} <= routes
