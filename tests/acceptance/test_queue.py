"""The reason why a job waits, and the queues of all models."""

import secrets
from typing import Any

from tests.acceptance.engine import User


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
    await user.run(config=config)  # a job has ended, so that the usual run time is known
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
        "estimateSeconds": None,
    }  # fmt: skip
    assert 0 < places[first]["estimateSeconds"] <= places[last]["estimateSeconds"]
    assert (await user.job(holder))["waiting"] is None


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
