"""Actions on many jobs: a job that cannot be changed stops neither the action nor the engine."""

import asyncio
from typing import Any

import httpx2
import pytest

from labrats.api import bulk_actions
from labrats.api.bulk_actions import RETENTION
from labrats.model.core_resources import TYPE_LABEL, Secret
from labrats.model.errors import BecameUnreadable, Invalid, NotFound, Problem, RetryLater
from labrats.model.job import Job
from labrats.model.record import Metadata
from tests.api.conftest import Api, a_submission
from tests.support.builders import an_ai_model


async def hold_back_jobs(api: Api) -> None:
    """Let no job start: its model has no slots."""
    await api.store.create(an_ai_model("mock", model="mock", slots=0))


async def cancel_all(user: httpx2.AsyncClient, expected: int) -> str:
    """Start the cancellation of all jobs of the user. Return the path of its progress."""
    answer = await user.post("/api/jobs/bulk", json={"action": "cancel", "filter": {}, "expected": expected})
    return f"/api/jobs/bulk/{answer.json()['id']}"


async def test_action_leaves_out_an_invalid_job_and_repeats_a_failed_write(
    api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hold_back_jobs(api)
    jobs = [(await user.post("/api/jobs/submit", json=a_submission())).json()["jobId"] for _ in range(3)]
    invalid, unlucky, _ = jobs
    errors = {invalid: Invalid(Problem("spec.title", "is too long")), unlucky: RetryLater("the disk is full")}
    update = api.store.update

    async def failing(resource: Any) -> Any:
        if isinstance(resource, Job) and (error := errors.pop(resource.id, None)):
            raise error
        return await update(resource)

    monkeypatch.setattr(api.store, "update", failing)
    await api.clock.sleep(1)  # until the index has the jobs
    path = await cancel_all(user, 3)
    await api.clock.sleep(5)

    assert not errors
    progress = (await user.get(path)).json()
    assert (progress["done"], progress["changed"]) == (3, 2)
    statuses = [(await user.get(f"/api/jobs/{job_id}")).json()["status"] for job_id in jobs]
    assert statuses == ["waiting", "cancelled", "cancelled"]


@pytest.mark.parametrize("error", [RetryLater("a policy refuses it"), BecameUnreadable("it has become invalid")])
async def test_job_that_can_never_be_written_stops_no_other(
    api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: RetryLater
) -> None:
    await hold_back_jobs(api)
    refused, other = [(await user.post("/api/jobs/submit", json=a_submission())).json()["jobId"] for _ in range(2)]
    update = api.store.update

    async def refusing(resource: Any) -> Any:
        if isinstance(resource, Job) and resource.id == refused:
            raise error
        return await update(resource)

    monkeypatch.setattr(api.store, "update", refusing)
    await api.clock.sleep(1)  # until the index has the jobs
    path = await cancel_all(user, 2)
    await api.clock.sleep(20)

    progress = (await user.get(path)).json()
    assert (progress["done"], progress["changed"]) == (2, 1)
    assert progress["finishedAt"]
    assert (await user.get(f"/api/jobs/{other}")).json()["status"] == "cancelled"


async def test_outage_loses_no_progress(api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    await hold_back_jobs(api)
    for _ in range(3):
        await user.post("/api/jobs/submit", json=a_submission())
    update, refusals_left = api.store.update, 8
    changed: list[str] = []

    async def failing_after_two_jobs(resource: Any) -> Any:
        nonlocal refusals_left
        if len(changed) == 2 and refusals_left:
            refusals_left -= 1
            raise RetryLater("the disk is full")
        changed.extend([resource.id] if isinstance(resource, Job) else [])
        return await update(resource)

    monkeypatch.setattr(api.store, "update", failing_after_two_jobs)
    await api.clock.sleep(1)  # until the index has the jobs
    path = await cancel_all(user, 3)
    await api.clock.sleep(30)

    assert refusals_left == 0
    progress = (await user.get(path)).json()
    assert (progress["done"], progress["changed"]) == (3, 3)


async def test_action_in_progress_shows_how_far_it_is(
    api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hold_back_jobs(api)
    for _ in range(3):
        await user.post("/api/jobs/submit", json=a_submission())
    update, released = api.store.update, asyncio.Event()
    changed: list[str] = []

    async def slow(resource: Any) -> Any:
        if isinstance(resource, Job):
            if len(changed) == 2:
                await released.wait()
            changed.append(resource.id)
        return await update(resource)

    monkeypatch.setattr(api.store, "update", slow)
    await api.clock.sleep(1)  # until the index has the jobs
    path = await cancel_all(user, 3)
    await api.clock.sleep(1)
    halfway = (await user.get(path)).json()
    released.set()
    await api.clock.sleep(1)

    assert (halfway["jobs"], halfway["done"], halfway["finishedAt"]) == (3, 2, None)
    assert (await user.get(path)).json()["done"] == 3


async def test_action_is_deleted_an_hour_after_its_end(api: Api, user: httpx2.AsyncClient) -> None:
    await hold_back_jobs(api)
    await user.post("/api/jobs/submit", json=a_submission())
    await api.clock.sleep(1)  # until the index has the job
    path = await cancel_all(user, 1)
    while (await user.get(path)).json()["finishedAt"] is None:
        await api.clock.sleep(0.1)
    api.clock.step(RETENTION.total_seconds())

    assert (await user.get(path)).status_code == 404
    await api.clock.sleep(1)  # until the index has the end of the job
    body = {"action": "cancel", "filter": {"status": ["cancelled"]}, "expected": 1}
    assert (await user.post("/api/jobs/bulk", json=body)).status_code == 202
    with pytest.raises(NotFound):
        await api.store.get(Secret, path.rpartition("/")[2])


async def test_latest_actions_of_a_caller_are_stored(
    api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_actions, "MOST_STORED", 3)
    await user.post("/api/jobs/submit", json=a_submission())
    while (await user.get("/api/jobs", params={"status": "completed"})).json()["total"] == 0:
        await api.clock.sleep(0.05)
    body: dict[str, Any] = {"action": "cancel", "filter": {"status": ["completed"]}, "expected": 1}

    paths: list[str] = []
    for _ in range(5):
        paths.append(f"/api/jobs/bulk/{(await user.post('/api/jobs/bulk', json=body)).json()['id']}")
        while (await user.get(paths[-1])).json()["finishedAt"] is None:
            await api.clock.sleep(0.05)

    assert [(await user.get(path)).status_code for path in paths] == [404, 404, 200, 200, 200]
    assert len([each for each in await api.store.list(Secret) if each.name.startswith("bulk-action-")]) == 3


async def test_caller_with_many_unfinished_actions_has_to_wait(
    api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_actions, "MOST_STORED", 2)
    await hold_back_jobs(api)
    await user.post("/api/jobs/submit", json=a_submission())
    await api.clock.sleep(1)  # until the index has the job
    read, released = api.store.get, asyncio.Event()

    async def slow(kind: Any, name: str) -> Any:
        if kind is Job:
            await released.wait()
        return await read(kind, name)

    monkeypatch.setattr(api.store, "get", slow)
    body: dict[str, Any] = {"action": "cancel", "filter": {}, "expected": 1}
    answers = [await user.post("/api/jobs/bulk", json=body) for _ in range(3)]
    async with api.client("admin") as admin:
        answers.append(await admin.post("/api/jobs/bulk", json=body))
    released.set()

    assert [answer.status_code for answer in answers] == [202, 202, 429, 202]
    assert answers[2].headers["Retry-After"] == "5"


@pytest.mark.parametrize("action", ["archive", "cancel"])
async def test_record_of_another_version_is_ignored_and_deleted_after_an_hour(
    api: Api, user: httpx2.AsyncClient, action: str
) -> None:
    await hold_back_jobs(api)
    job_id = (await user.post("/api/jobs/submit", json=a_submission())).json()["jobId"]
    data = {"action": f'{{"action":"{action}","targets":[["{job_id}",null]],"owner":null}}'}
    labels = {TYPE_LABEL: "bulk-action"}
    await api.store.create(Secret(metadata=Metadata(name="bulk-action-0", labels=labels), data=data))
    await api.clock.sleep(1)  # until the index has the job
    assert (await user.get(f"/api/jobs/{job_id}")).json()["status"] == "waiting"
    assert (await user.get("/api/jobs/bulk/bulk-action-0")).status_code == 404

    api.clock.step(RETENTION.total_seconds())
    path = await cancel_all(user, 1)
    await api.clock.sleep(5)

    assert (await user.get(path)).json()["changed"] == 1
    with pytest.raises(NotFound):
        await api.store.get(Secret, "bulk-action-0")
