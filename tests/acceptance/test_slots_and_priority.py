"""Slots and priorities: the order in which jobs start, and the number that run at once."""

import asyncio
from collections import Counter
from datetime import datetime
from typing import Any

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, Engine, User
from tests.support.waiting import poll_intervals

moment = datetime.fromisoformat


async def a_paused_model(admin: User, name: str, model: str) -> None:
    """Create an AiModel without slots, on which no job starts until its slots are changed."""
    answer = await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": 0})
    assert answer.status_code == 201, answer.text


async def set_slots(admin: User, name: str, slots: int) -> None:
    answer = await admin.http.patch(f"/api/ai-models/{name}", json={"slots": slots})
    assert answer.status_code == 200, answer.text


async def order_of_starts(user: User, job_ids: list[str]) -> list[str]:
    """Wait for the jobs to end, and return them in the order in which they started."""
    details = [await user.wait(job_id) for job_id in job_ids]
    return [detail["id"] for detail in sorted(details, key=lambda detail: moment(detail["processedAt"]))]


def peak_slots(details: list[dict[str, Any]]) -> int:
    """Return the largest number of slots that these jobs occupied at the same time."""
    allocated = [(moment(detail["processedAt"]), 1) for detail in details]
    released = [(moment(detail["finishedAt"]), -1) for detail in details]
    occupied = peak = 0
    for _, step in sorted(allocated + released):
        occupied += step
        peak = max(peak, occupied)
    return peak


async def test_jobs_start_by_priority_number_and_then_in_order_of_submission(
    user: User, admin: User, name: str, model: str
) -> None:
    """The default priority is 2: the job without a priority starts between those with 2, in order of submission."""
    await a_paused_model(admin, name, model)
    submitted: list[dict[str, Any]] = [
        {"priority": 5},
        {"priority": 2},
        {"priority": -1},
        {},
        {"priority": 2},
        {"priority": 0.5},
    ]
    job_ids = [await user.submit(config={"model": model}, **each) for each in submitted]

    await set_slots(admin, name, 1)

    priorities = [each.get("priority", 2) for each in submitted]
    expected = [job_id for _, job_id in sorted(zip(priorities, job_ids, strict=True), key=lambda pair: pair[0])]
    assert await order_of_starts(user, job_ids) == expected


async def test_model_runs_at_most_as_many_jobs_as_it_has_slots(user: User, admin: User, name: str, model: str) -> None:
    await a_paused_model(admin, name, model)
    job_ids = [await user.submit({"sleepMs": 20}, config={"model": model}) for _ in range(5)]

    await set_slots(admin, name, 2)

    assert peak_slots([await user.wait(job_id) for job_id in job_ids]) == 2


async def test_model_without_an_ai_model_has_four_slots(user: User, model: str) -> None:
    job_ids = [await user.submit({"sleepMs": 50}, config={"model": model}) for _ in range(6)]

    details = [await user.wait(job_id) for job_id in job_ids]

    assert peak_slots(details) == 4
    assert {detail["accountName"] for detail in details} == {f"mock/{model}"}


async def test_changed_slots_apply_while_jobs_run_and_wait(user: User, admin: User, name: str, model: str) -> None:
    await a_paused_model(admin, name, model)
    job_ids = [await user.submit({"hang": True}, config={"model": model}) for _ in range(4)]

    async def active() -> int:
        view = (await admin.get(f"/api/ai-models/{name}")).json()
        assert view["active"] + view["queued"] == 4
        return int(view["active"])

    assert await active() == 0
    for slots in (1, 3):
        await set_slots(admin, name, slots)
        for job_id in job_ids[:slots]:
            await user.wait(job_id, "active")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await active() < slots:  # the index follows the jobs
                await asyncio.sleep(POLL_SECONDS)
        assert await active() == slots

    await set_slots(admin, name, 0)  # running jobs continue; no further job starts
    await user.cancel(job_ids[0])
    await user.wait(job_ids[0])
    assert [(await user.job(job_id))["status"] for job_id in job_ids[1:]] == ["active", "active", "waiting"]
    assert (await user.job(job_ids[1]))["accountName"] == name


async def test_full_model_does_not_delay_jobs_of_other_models(user: User, admin: User, name: str, model: str) -> None:
    await a_paused_model(admin, name, model)
    waiting = await user.submit(config={"model": model}, priority=-10)

    assert (await user.run(config={"model": f"{model}-2"}, priority=10))["status"] == "completed"
    assert (await user.job(waiting))["status"] == "waiting"


async def test_many_jobs_submitted_at_once_all_complete(
    engine: Engine, user: User, admin: User, name: str, model: str
) -> None:
    many = engine.many_jobs
    await a_paused_model(admin, name, model)
    await set_slots(admin, name, engine.many_slots)
    pace = asyncio.Semaphore(50)

    async def submit(number: int) -> str:
        async with pace:
            return await user.submit({"result": number}, config={"model": model})

    job_ids = await asyncio.gather(*(submit(number) for number in range(many)))

    assert len(set(job_ids)) == many
    pause = poll_intervals()
    async with asyncio.timeout(PATIENCE_SECONDS * 3):
        while (await user.get("/api/jobs", status="completed", limit=1)).json()["total"] < many:
            await asyncio.sleep(next(pause))
    pages = [(await user.get("/api/jobs", page=page, limit=100)).json()["jobs"] for page in range(1, many // 100 + 2)]
    jobs = [job for page in pages for job in page]
    assert Counter(job["status"] for job in jobs) == {"completed": many}
    assert sorted(job["result"] for job in jobs) == list(range(many))
    assert {job["attempts"] for job in jobs} == {1}
