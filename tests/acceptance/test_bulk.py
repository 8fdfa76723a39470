"""Actions on all jobs that match a filter."""

import asyncio
from typing import Any

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, User


async def listed(user: User, number: int, **query: Any) -> list[dict[str, Any]]:
    """Return the jobs that match, once the list has that many."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(found := (await user.get("/api/jobs", **query)).json()["jobs"]) != number:
            await asyncio.sleep(POLL_SECONDS)
    return list(found)


async def test_all_matching_jobs_are_cancelled(user: User, admin: User, model: str) -> None:
    await admin.post("/api/ai-models", {"name": "bulk-paused", "provider": "mock", "model": model, "slots": 0})
    for kind in ("wanted", "wanted", "other"):
        await user.submit(type=kind, config={"model": model})
    foreign = await admin.submit(type="wanted", config={"model": model})
    await listed(user, 2, type="wanted")
    body = {"action": "cancel", "filter": {"type": "wanted"}, "expected": 2}

    answer = await user.post("/api/jobs/bulk", body)

    assert (answer.status_code, answer.json()) == (202, {"jobs": 2})
    await listed(user, 2, type="wanted", status="cancelled")
    assert [job["status"] for job in await listed(user, 1, type="other")] == ["waiting"]
    assert (await admin.job(foreign))["status"] == "waiting"


async def test_failed_jobs_are_retried(user: User) -> None:
    steps = [{"onAttempt": 1, "steps": [{"fail": "no"}]}, {"result": "done"}]
    for _ in range(3):
        await user.run(*steps, type="bulk-retry")
    await listed(user, 3, type="bulk-retry", status="failed")

    answer = await user.post(
        "/api/jobs/bulk", {"action": "retry", "filter": {"failedCode": "agent_error"}, "expected": 3}
    )

    assert answer.status_code == 202
    assert {job["attempts"] for job in await listed(user, 3, type="bulk-retry", status="completed")} == {2}


async def test_another_number_of_jobs_than_expected_changes_nothing(user: User) -> None:
    job_id = (await user.run({"fail": "no"}))["id"]
    await listed(user, 1, status="failed")

    answer = await user.post("/api/jobs/bulk", {"action": "retry", "filter": {}, "expected": 2})

    assert answer.status_code == 409
    assert "is 1 by now, not 2" in answer.json()["error"]
    assert (await user.job(job_id))["status"] == "failed"


async def test_invalid_filter_is_refused(user: User) -> None:
    filters: list[dict[str, Any]] = [{"to": {}}, {"from": 1}, {"from": "yesterday"}, {"statuss": []}]
    for wrong in filters:
        answer = await user.post("/api/jobs/bulk", {"action": "retry", "filter": wrong, "expected": 1})

        assert answer.status_code == 422
        assert answer.json()["details"][0]["field"] == f"filter.{next(iter(wrong))}"
