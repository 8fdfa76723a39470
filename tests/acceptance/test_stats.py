"""Statistics: counts and time series, from stored jobs and from a real Prometheus."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import Engine, LocalEngine, User
from tests.support.loopback import free_port
from tests.support.prometheus import Prometheus, program, running_prometheus

USAGE = {"usage": {"inputTokens": 10, "outputTokens": 5, "costUsd": 0.25}}

QUEUED: Mapping[str, Any] = {"concurrency": {"key": "stats"}}
"""Part of a job that is queued before it starts. Other jobs may start with the write that stores them."""


async def series(user: User, metric: str) -> dict[str, list[float]]:
    """Return the non-zero values of each series of the last hour, by its label."""
    answer = await user.get("/api/stats/timeseries", metric=metric, window="1h", step="5m")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["metric"], body["window"], body["step"]) == (metric, "1h", "5m")
    return {
        "".join(each["labels"].values()): [value for _, value in each["points"] if value] for each in body["series"]
    }


async def test_jobs_are_counted_by_type_model_and_repository(
    engine: Engine, user: User, admin: User, model: str
) -> None:
    kind: dict[str, Any] = {"type": model, "config": {"model": model}}
    await user.run(**kind, metadata={"repo": f"octocat/{model}"})
    await user.run({"fail": "no"}, **kind)
    expected = {"waiting": 0, "active": 0, "completed": 1, "failed": 1, "cancelled": 0}

    stats = (await admin.get("/api/stats")).json()

    assert stats["byType"][model] == stats["byModel"][model] == expected
    assert stats["byRepo"][f"octocat/{model}"] == expected | {"failed": 0}
    assert stats["totals"].keys() == expected.keys()
    assert all(stats["totals"][status] >= count for status, count in expected.items())


async def test_ended_jobs_are_compared_by_a_field(user: User, admin: User, model: str) -> None:
    for step in (USAGE, USAGE, {"fail": "no"}):
        metadata = {"repo": f"octocat/{model}", "mock": {"steps": [step]}}
        await user.run(type=model, config={"model": model}, metadata=metadata)

    answers = [await admin.get("/api/stats/breakdown", by=by) for by in ("model", "type", "repo")]
    earliest = await admin.get("/api/stats/breakdown", to="0001-01-03T00:00:00Z")
    assert (earliest.status_code, earliest.json()["from"], earliest.json()["rows"]) == (200, "0001-01-01T00:00:00Z", [])
    later = await admin.get("/api/stats/breakdown", **{"from": "2999-01-01T00:00:00Z", "to": "2999-01-02T00:00:00Z"})

    for answer, value in zip(answers, (model, model, f"octocat/{model}"), strict=True):
        (row,) = [each for each in answer.json()["rows"] if each["value"] == value]
        assert (row["completed"], row["failed"], row["cancelled"]) == (2, 1, 0)
        assert (row["inputTokens"], row["outputTokens"], row["costUsd"]) == (20, 10, 0.5)
        assert 0 < row["medianSeconds"] <= row["p95Seconds"] < 60
    assert later.json()["rows"] == []


async def test_comparison_counts_the_jobs_whose_cost_is_unknown(user: User, admin: User, model: str) -> None:
    unknown = {"usage": {"inputTokens": 10, "costUsd": None}}
    for step in (USAGE, unknown, {"fail": "before an answer of the model"}):
        await user.run(step, config={"model": model})
    await user.run(unknown, config={"model": f"{model}-unknown"})

    rows = (await admin.get("/api/stats/breakdown", by="model")).json()["rows"]

    costs = {row["value"]: (row["costUsd"], row["unknownCosts"]) for row in rows}
    assert costs[model] == (0.25, 1)
    assert costs[f"{model}-unknown"] == (None, 1)


async def test_compared_jobs_can_be_listed_by_their_end(user: User, admin: User, model: str) -> None:
    first = await user.run(config={"model": model})
    last = await user.run({"fail": "no"}, config={"model": model})
    begin, end = first["finishedAt"], last["finishedAt"]
    ended = {"endedFrom": begin, "endedTo": end}

    breakdown = await admin.get("/api/stats/breakdown", model=model, by="model", **{"from": begin, "to": end})
    listed = (await admin.get("/api/jobs", model=model, **ended)).json()
    later = (await admin.get("/api/jobs", model=model, cursor="", endedFrom=end)).json()
    facets = (await admin.get("/api/jobs/facets", model=model, **ended)).json()

    assert [row["completed"] + row["failed"] for row in breakdown.json()["rows"]] == [listed["total"]] == [1]
    assert [job["id"] for job in listed["jobs"]] == [first["id"]]
    assert [job["id"] for job in later["jobs"]] == [last["id"]]
    assert facets["status"] == [{"value": "completed", "count": 1}]


async def test_series_can_be_told_apart_by_a_field(user: User, admin: User, model: str) -> None:
    await user.run(USAGE, type=model, config={"model": model})
    await user.run({"fail": "no"}, type=model, config={"model": model})

    async def values(metric: str) -> list[float]:
        # Only the types with the most jobs have a series, so others' jobs are left out.
        which = {"window": "1h", "step": "5m", "by": "type", "model": model}
        answer = await admin.get("/api/stats/timeseries", metric=metric, **which)
        assert answer.status_code == 200, answer.text
        found = [each["points"] for each in answer.json()["series"] if each["labels"] == {"type": model}]
        return [value for points in found for _, value in points if value]

    assert sum(await values("jobs")) == 2
    assert sum(await values("tokens")) == 15
    assert sum(await values("cost")) == 0.25
    assert all(0 < mean < 60 for mean in await values("duration"))


async def test_metrics_cover_the_jobs_that_match_the_filters(user: User, admin: User, model: str) -> None:
    kind: dict[str, Any] = {"type": model, "config": {"model": model}}
    await user.run(USAGE, **kind, metadata={"repo": f"octocat/{model}", "mock": {"steps": [USAGE]}})
    await user.run({"fail": "no"}, **kind, source=model)

    async def total(metric: str, **filters: Any) -> float:
        answer = await admin.get("/api/stats/timeseries", metric=metric, window="1h", step="5m", **filters)
        assert answer.status_code == 200, answer.text
        return float(sum(value for each in answer.json()["series"] for _, value in each["points"]))

    async def rows(**filters: Any) -> list[int]:
        answer = await admin.get("/api/stats/breakdown", by="type", **filters)
        return [row["completed"] + row["failed"] for row in answer.json()["rows"]]

    filters: dict[str, list[dict[str, Any]]] = {
        "both": [{"type": model}, {"model": model}, {"owner": user.key_id}, {"type": model, "provider": "mock"}],
        "first": [{"repo": f"octocat/{model}"}, {"type": model, "status": "completed"}],
        "second": [{"source": model}, {"model": model, "failedCode": "agent_error"}],
        "none": [{"type": model, "agentRole": "nobody"}],
    }
    expected = {"both": (2, 15), "first": (1, 15), "second": (1, 0), "none": (0, 0)}
    for matching, cases in filters.items():
        jobs, tokens = expected[matching]
        for each in cases:
            assert (await total("jobs", **each), await total("tokens", **each)) == (jobs, tokens), each
            assert await total("jobs", by="model", **each) == jobs, each
            assert sum(await rows(**each)) == jobs, each
    assert (await admin.get("/api/stats/timeseries", status="waiting")).status_code == 422


async def test_series_without_a_prometheus_come_from_stored_jobs(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.admin() as admin:
        for _ in range(2):
            await admin.run(USAGE, **QUEUED)
        await admin.run({"fail": "no"}, **QUEUED)
        engine.restart()

        assert await series(admin, "jobs") == {"completed": [2], "failed": [1], "cancelled": []}
        assert await series(admin, "tokens") == {"input": [20], "output": [10], "cache_read": []}
        assert await series(admin, "cost") == {"": [0.5]}
        for metric in ("duration", "queueWait"):
            ((mean,),) = (await series(admin, metric)).values()
            assert 0 < mean < 60


@pytest.fixture
def scraped(start_engine: EngineFactory) -> LocalEngine:
    """The engine that `prometheus` scrapes."""
    return start_engine()


@pytest.fixture
def prometheus(scraped: LocalEngine, tmp_path: Path) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path, scraped.url) as prometheus:
        yield prometheus


@pytest.fixture
def querying(prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    """An engine without jobs that queries `prometheus`."""
    with LocalEngine(tmp_path_factory.mktemp("querying"), PROMETHEUS_URL=prometheus.url) as engine:
        yield engine


async def test_series_with_a_prometheus_come_from_its_data(
    scraped: LocalEngine, prometheus: Prometheus, querying: LocalEngine
) -> None:
    async with scraped.admin() as user, querying.admin() as admin:
        await run_scraped(user, prometheus)

        jobs, tokens = await series(admin, "jobs"), await series(admin, "tokens")
        (cost,) = (await series(admin, "cost")).values()
        (duration,) = (await series(admin, "duration")).values()
        (queue_wait,) = (await series(admin, "queueWait")).values()

    assert sum(jobs["completed"]) in (2, 3)
    assert jobs["failed"] == jobs["cancelled"] == []
    assert 20 <= sum(tokens["input"]) <= 31
    assert tokens["cache_read"] == []
    assert 0.5 <= sum(cost) <= 0.8
    assert duration
    assert queue_wait
    assert all(0 < mean < 60 for mean in duration + queue_wait)


async def test_filtered_series_come_from_stored_jobs_also_with_a_prometheus(querying: LocalEngine) -> None:
    async with querying.admin() as admin:
        await admin.run(type="wanted")
        await admin.run(type="other")
        answer = await admin.get("/api/stats/timeseries", window="1h", step="5m", type="wanted")
    points = [value for each in answer.json()["series"] for _, value in each["points"]]
    assert sum(points) == 1


async def run_scraped(user: User, prometheus: Prometheus) -> None:
    """Run three jobs, and wait until Prometheus has enough samples to see their number rise from 1 to 3."""
    finished = "labrats_jobs_finished_total{status='completed'}"
    await user.run(USAGE, **QUEUED)
    await prometheus.wait(finished, 1)
    await user.run(USAGE, **QUEUED)
    await user.run(USAGE, **QUEUED)
    await prometheus.wait(finished, 3)
    await prometheus.wait(f"count_over_time({finished}[5m])", 60)


async def test_unreachable_prometheus_is_reported_without_its_address(start_engine: EngineFactory) -> None:
    port = free_port()
    engine = start_engine(PROMETHEUS_URL=f"http://127.0.0.1:{port}")
    async with engine.admin() as admin:
        answer = await admin.get("/api/stats/timeseries")

        assert answer.status_code == 503
        assert answer.json()["code"] == "prometheus_unavailable"
        assert answer.headers["retry-after"]
        assert str(port) not in answer.text
        assert (await admin.get("/api/stats")).status_code == 200


@pytest.fixture
def promtool() -> Path:
    return program("promtool")


async def test_promtool_finds_no_problem_in_the_metrics(engine: Engine, user: User, promtool: Path) -> None:
    await user.run(USAGE)
    exposition = (await user.get("/metrics")).content

    checked = await anyio.run_process([promtool, "check", "metrics"], input=exposition, check=False)

    assert checked.stderr.decode() == ""
    assert checked.returncode == 0


@pytest.mark.parametrize("window", ["1h", "90d"])
async def test_shortest_and_longest_window_are_accepted(admin: User, window: str) -> None:
    answer = await admin.get("/api/stats/timeseries", window=window)

    assert answer.status_code == 200
    points = [len(each["points"]) for each in answer.json()["series"]]
    assert 30 <= min(points) <= max(points) <= 200
