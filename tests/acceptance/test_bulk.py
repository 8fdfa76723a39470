"""Actions on all jobs that match a filter."""

import asyncio
from typing import Any

from labrats.backends.embedded.store import EmbeddedStore
from labrats.model.job import Job
from labrats.model.phases import Phase
from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, User, a_submission

MANY = 500


async def listed(user: User, number: int, **query: Any) -> list[dict[str, Any]]:
    """Return the jobs that match, once the list has that many."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(found := (await user.get("/api/jobs", **query)).json()["jobs"]) != number:
            await asyncio.sleep(POLL_SECONDS)
    return list(found)


async def finished(user: User, action_id: str) -> dict[str, Any]:
    """Return the progress of an action, once it is done."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (progress := (await user.get(f"/api/jobs/bulk/{action_id}")).json())["finishedAt"] is None:
            await asyncio.sleep(POLL_SECONDS)
    return dict(progress)


async def test_all_matching_jobs_are_cancelled(user: User, admin: User, name: str, model: str) -> None:
    await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": 0})
    for kind in ("wanted", "wanted", "other"):
        await user.submit(type=kind, config={"model": model})
    foreign = await admin.submit(type="wanted", config={"model": model})
    await listed(user, 2, type="wanted")
    body = {"action": "cancel", "filter": {"type": "wanted"}, "expected": 2}

    answer = await user.post("/api/jobs/bulk", body)

    assert (answer.status_code, answer.json()["jobs"]) == (202, 2)
    progress = await finished(user, answer.json()["id"])
    assert progress | {"finishedAt": None} == {
        "id": answer.json()["id"], "action": "cancel", "jobs": 2, "done": 2, "changed": 2, "finishedAt": None,
    }  # fmt: skip
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


async def test_progress_counts_the_jobs_that_an_action_leaves_out(user: User) -> None:
    await user.run({"fail": "no"}, type="left-out")
    await user.run(type="left-out")
    await listed(user, 1, type="left-out", status="failed")
    await listed(user, 1, type="left-out", status="completed")
    filters = {"type": "left-out", "status": ["failed", "completed"]}

    answer = await user.post("/api/jobs/bulk", {"action": "retry", "filter": filters, "expected": 2})

    progress = await finished(user, answer.json()["id"])
    assert (progress["jobs"], progress["done"], progress["changed"]) == (2, 2, 1)


async def test_progress_belongs_to_the_caller_who_started_the_action(user: User, admin: User, name: str) -> None:
    await user.run({"fail": "no"}, type=name)
    await listed(user, 1, type=name, status="failed")
    body = {"action": "retry", "filter": {"type": name}, "expected": 1}
    own = (await user.post("/api/jobs/bulk", body)).json()["id"]
    await finished(admin, own)
    await listed(user, 1, type=name, status="failed")
    of_all = (await admin.post("/api/jobs/bulk", body)).json()["id"]
    await finished(admin, of_all)

    assert (await user.get(f"/api/jobs/bulk/{own}")).status_code == 200
    assert (await user.get(f"/api/jobs/bulk/{of_all}")).status_code == 403
    unknown = await user.get("/api/jobs/bulk/bulk-action-0")
    assert (unknown.status_code, unknown.json()["error"]) == (
        404, "there is no action bulk-action-0; an action is deleted at latest an hour after its end",
    )  # fmt: skip


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


async def test_action_ends_with_the_engine_and_is_sent_again(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.admin() as admin:
        await admin.post("/api/ai-models", {"name": "paused", "provider": "mock", "model": "paused", "slots": 0})
        body = a_submission(config={"model": "paused"})
        await asyncio.gather(*(admin.post("/api/jobs/submit", body) for _ in range(MANY)))
        await listed(admin, 1, status="waiting", limit=1)
        while (await admin.get("/api/jobs", limit=1)).json()["total"] < MANY:
            await asyncio.sleep(POLL_SECONDS)

        answer = await admin.post("/api/jobs/bulk", {"action": "cancel", "filter": {}, "expected": MANY})
        engine.kill()
        async with EmbeddedStore.open(engine.data_dir / "labrats.db") as store:
            phases = [job.phase for job in await store.list(Job)]
        engine.start()

        assert answer.status_code == 202
        left = phases.count(Phase.PENDING)
        assert left > 0, "the action was done before the engine was killed"
        interrupted = await admin.get(f"/api/jobs/bulk/{answer.json()['id']}")
        assert (interrupted.status_code, interrupted.json()["error"]) == (
            404,
            f"the action {answer.json()['id']} ended when its engine stopped; send it again for the rest",
        )
        await listed(admin, 1, status="waiting", limit=1)
        assert (await admin.get("/api/jobs", status="waiting", limit=1)).json()["total"] == left

        body = {"action": "cancel", "filter": {}, "expected": left}
        again = (await admin.post("/api/jobs/bulk", body)).json()["id"]
        progress = await finished(admin, again)
        assert (progress["jobs"], progress["changed"]) == (left, left)
