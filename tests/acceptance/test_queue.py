"""The reason why a job waits, and the queues of all models."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, User


async def waiting(user: User, job_id: str) -> dict[str, Any]:
    return dict((await user.job(job_id))["waiting"])


async def a_model(admin: User, model: str, slots: int) -> str:
    """Configure an AiModel, and return its name."""
    name = f"queue-{secrets.token_hex(4)}"
    answer = await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": slots})
    assert answer.status_code == 201, answer.text
    return name


async def test_job_behind_others_shows_its_place_and_the_holders(user: User, admin: User, model: str) -> None:
    await a_model(admin, model, slots=1)
    config = {"model": model}
    for _ in range(5):
        await user.run(config=config)
    holder = await user.submit({"hang": True}, config=config)
    await user.wait(holder, "active")
    second = await user.submit(config=config)
    last = await user.submit(config=config, priority=5)
    first = await user.submit(config=config, priority=1)

    places = {job: await waiting(user, job) for job in (first, second, last)}

    assert [place["position"] for place in places.values()] == [1, 2, 3]
    assert {place["reason"] for place in places.values()} == {"slots_busy"}
    assert places[last] | {"estimateSeconds": None} == {
        "reason": "slots_busy", "position": 3, "slots": 1, "active": 1, "holders": [holder], "pausedUntil": None,
        "estimateSeconds": None, "waitsFor": None, "debouncedUntil": None, "startsAfter": None,
    }  # fmt: skip
    assert (await user.job(holder))["waiting"] is None


async def test_no_start_is_estimated_while_the_holder_has_run_longer_than_all_others(
    user: User, admin: User, model: str
) -> None:
    await a_model(admin, model, slots=1)
    config = {"model": model}
    for _ in range(5):
        await user.run(config=config)
    holder = await user.submit({"hang": True}, config=config)
    await user.wait(holder, "active")
    behind = await user.submit(config=config)

    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await waiting(user, behind))["estimateSeconds"] is not None:
            await asyncio.sleep(POLL_SECONDS)


async def test_holders_of_other_callers_are_counted_but_not_named(user: User, admin: User, model: str) -> None:
    await a_model(admin, model, slots=1)
    holder = await admin.submit({"hang": True}, config={"model": model})
    await admin.wait(holder, "active")
    behind = await user.submit(config={"model": model})

    place = await waiting(user, behind)

    assert (place["reason"], place["active"], place["holders"]) == ("slots_busy", 1, [])
    assert (await waiting(admin, behind))["holders"] == [holder]


async def test_model_without_slots_is_the_reason(user: User, admin: User, model: str) -> None:
    await a_model(admin, model, slots=0)

    place = await waiting(user, await user.submit(config={"model": model}))

    assert (place["reason"], place["slots"], place["estimateSeconds"]) == ("no_slots", 0, None)


@pytest.mark.parametrize("slots", [0, 1])
async def test_job_waits_until_its_time(user: User, admin: User, model: str, slots: int) -> None:
    await a_model(admin, model, slots)
    time = datetime.now(UTC) + timedelta(seconds=4)
    job_id = await user.submit(config={"model": model}, notBefore=time.isoformat())
    job = await user.job(job_id)
    place = job["waiting"]
    assert place["reason"] == "notBefore"
    assert datetime.fromisoformat(place["startsAfter"]) == datetime.fromisoformat(job["notBefore"]) == time
    if slots:
        assert datetime.fromisoformat((await user.wait(job_id))["processedAt"]) >= time


async def test_queues_have_the_models_that_jobs_use_and_those_configured(user: User, admin: User, model: str) -> None:
    name = await a_model(admin, model, slots=1)
    await a_model(admin, f"{model}-unused", slots=7)
    holder = await user.submit({"hang": True}, config={"model": model})
    behind = await user.job(await user.submit(config={"model": model}))
    implicit = await user.submit({"hang": True}, config={"model": f"{model}-implicit"})
    await user.wait(holder, "active")
    await user.wait(implicit, "active")

    answer = await admin.get("/api/queue")
    queues = {each["model"]: each for each in answer.json()["queues"]}

    assert queues[model] == {
        "provider": "mock", "model": model, "aiModel": name, "slots": 1, "active": 1, "waiting": 1,
        "oldestCreatedAt": behind["createdAt"], "pausedUntil": None, "usualSeconds": None,
    }  # fmt: skip
    assert (queues[f"{model}-unused"]["slots"], queues[f"{model}-unused"]["active"]) == (7, 0)
    assert (queues[f"{model}-implicit"]["aiModel"], queues[f"{model}-implicit"]["active"]) == (None, 1)


async def test_places_of_many_jobs_come_in_one_answer(user: User, admin: User, model: str) -> None:
    await a_model(admin, model, slots=1)
    await a_model(admin, f"{model}-none", slots=0)
    holder = await user.submit({"hang": True}, config={"model": model})
    await user.wait(holder, "active")
    second, first = [await user.submit(config={"model": model}, priority=priority) for priority in (5, 1)]
    never = await user.submit(config={"model": f"{model}-none"})
    foreign = await admin.submit(config={"model": model}, priority=9)
    await listed_as_waiting(admin, {first, second, never, foreign})
    wanted = [second, never, holder, foreign, "ir-unknown", first]

    places = {each["id"]: each for each in (await user.get("/api/queue/jobs", id=wanted)).json()["jobs"]}

    assert {job: (each["reason"], each["position"], each["active"]) for job, each in places.items()} == {
        first: ("slots_busy", 1, 1), second: ("slots_busy", 2, 1), never: ("no_slots", 1, 0),
    }  # fmt: skip
    for job, place in places.items():
        detail = await waiting(user, job)
        assert place | {"holders": detail["holders"], "estimateSeconds": None} == {
            "id": job, **detail, "estimateSeconds": None,
        }  # fmt: skip
    assert (await admin.get("/api/queue/jobs", id=foreign)).json()["jobs"][0]["position"] == 3


async def test_too_many_places_are_refused(user: User) -> None:
    answer = await user.get("/api/queue/jobs", id=[f"ir-{number}" for number in range(101)])

    assert answer.status_code == 422
    assert answer.json()["details"][0]["field"] == "id"


async def listed_as_waiting(user: User, jobs: set[str]) -> None:
    """Wait until the index has the jobs."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not jobs <= {each["id"] for each in (await user.get("/api/jobs", status="waiting")).json()["jobs"]}:
            await asyncio.sleep(POLL_SECONDS)
