"""The activities of running jobs, in lists and in the feed of changes."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from labrats.api.activities import LINGER_SECONDS, MOST_JOBS
from labrats.model.caller import ADMIN, Caller
from labrats.model.job import Job
from tests.api.conftest import Api, a_submission, api_in_memory
from tests.fakes.clock import VirtualTimeLoop

ADMINISTRATOR = Caller("admin", frozenset({ADMIN}))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_in_memory(tmp_path, handles_files=False) as api:
        yield api


def a_talking_job(*lines: str, pause_ms: int = 2_000) -> dict[str, Any]:
    steps = [step for line in lines for step in ({"log": line}, {"sleepMs": pause_ms})]
    return a_submission(metadata={"mock": {"steps": [*steps, {"result": "done"}]}})


async def submit(client: httpx2.AsyncClient, body: dict[str, Any]) -> str:
    answer = await client.post("/api/jobs/submit", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["jobId"])


async def activity_in_list(client: httpx2.AsyncClient) -> Any:
    (item,) = (await client.get("/api/jobs")).json()["jobs"]
    return item["activity"]


@pytest.fixture
def reads(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the attempts whose activity was read."""
    names: list[str] = []
    runner = api.services.runner
    read = runner.activity

    async def recorded(name: Any) -> str | None:
        names.append(str(name))
        return await read(name)

    monkeypatch.setattr(runner, "activity", recorded)
    return names


async def test_list_and_detail_show_the_activity_of_a_running_job(api: Api, user: httpx2.AsyncClient) -> None:
    job_id = await submit(user, a_talking_job('first "quoted"', "second"))
    await api.clock.sleep(1)
    assert await activity_in_list(user) == 'first "quoted"'
    await api.clock.sleep(2.5)
    assert await activity_in_list(user) == "second"
    assert (await user.get(f"/api/jobs/{job_id}")).json()["activity"] == "second"
    await api.clock.sleep(10)
    assert await activity_in_list(user) is None
    assert (await user.get(f"/api/jobs/{job_id}")).json()["activity"] is None


async def test_output_is_read_once_a_second_while_somebody_looks(
    api: Api, user: httpx2.AsyncClient, reads: list[str]
) -> None:
    await submit(user, a_talking_job("on", pause_ms=600_000))
    await api.clock.sleep(1)
    assert reads == []
    for _ in range(100):
        await activity_in_list(user)
    assert len(reads) == 1
    await api.clock.sleep(10)
    assert 8 <= len(reads) <= 12
    await api.clock.sleep(LINGER_SECONDS)
    seen = len(reads)
    await api.clock.sleep(60)
    assert len(reads) == seen


async def test_feed_carries_the_activity_without_a_write(api: Api, user: httpx2.AsyncClient) -> None:
    writes: list[str] = []
    update = api.store.update

    async def recorded(resource: Any) -> Any:
        if isinstance(resource, Job):
            writes.append(resource.phase)
        return await update(resource)

    api.store.update = recorded  # type: ignore[method-assign]
    shown: list[str] = []
    async with aclosing(api.services.change_feed.read(ADMINISTRATOR, None)) as frames:
        await anext(frames)
        await submit(user, a_talking_job(*map(str, range(40)), pause_ms=100))
        async for frame in frames:
            (data,) = [line for line in frame.decode().splitlines() if line.startswith("data: ")]
            change = json.loads(data.removeprefix("data: "))
            items, activities = change["jobs"], change.get("activities", {})
            shown += [item["activity"] for item in items if item["activity"]] + list(activities.values())
            if any(item["status"] == "completed" for item in items):
                break
    assert 3 <= len(shown) <= 6, "of 40 lines in 4 seconds, one a second is shown"
    assert shown == sorted(shown, key=int)
    assert writes == ["Running", "Succeeded"]


async def test_number_of_observed_jobs_is_bounded(api: Api, user: httpx2.AsyncClient) -> None:
    await submit(user, a_talking_job("on", pause_ms=600_000))
    await api.clock.sleep(1)
    await activity_in_list(user)
    (name,) = [each.attempt for each in api.services.activities._observed.values()]
    for number in range(MOST_JOBS):
        await api.services.activities.of(type(name)(f"ir-{number:08x}", 1), "owner")
    observed = api.services.activities._observed
    assert len(observed) == MOST_JOBS
    assert name.job_id not in observed
