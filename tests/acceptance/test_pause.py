"""The pause of the whole engine, and the end of all its work."""

import asyncio
from typing import Any

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, User


async def pause(admin: User, paused: bool, **body: Any) -> dict[str, Any]:
    answer = await admin.http.put("/api/pause", json={"paused": paused} | body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_paused_engine_starts_no_attempt_until_it_is_resumed_also_after_a_restart(
    start_engine: EngineFactory,
) -> None:
    engine = start_engine()
    async with engine.admin() as admin, engine.user() as user:
        running = await user.submit({"hang": True})
        await user.wait(running, "active")

        paused = await pause(admin, True, reason="the bill")
        waiting = await user.submit()
        reason = (await user.wait(waiting, "waiting"))["waiting"]["reason"]
        engine.stop()
        engine.start()
        after = (await admin.get("/api/pause")).json()
        still = (await user.job(waiting))["waiting"]
        goes_on = (await user.job(running))["status"]
        refused = await user.http.put("/api/pause", json={"paused": False})
        resumed = await pause(admin, False)

        assert (paused["paused"], paused["reason"], paused["by"]) == (True, "the bill", after["by"])
        assert after == paused
        assert paused["since"]
        assert paused["by"]
        assert reason == still["reason"] == "paused_by_admin"
        assert still["estimateSeconds"] is None
        assert goes_on == "active"
        assert refused.status_code == 403
        assert resumed == {"paused": False, "reason": "", "by": None, "since": None}
        assert (await user.wait(waiting))["status"] == "completed"


async def test_pause_holds_new_jobs_on_every_backend_and_a_cancelled_one_names_the_caller(
    user: User, admin: User
) -> None:
    await pause(admin, True, reason="the bill")
    try:
        waiting, cancelled = await user.submit(), await user.submit()
        reason = (await user.wait(waiting, "waiting"))["waiting"]["reason"]
        named = (await user.cancel(cancelled))["cancelledBy"]
    finally:
        await pause(admin, False)

    assert reason == "paused_by_admin"
    assert named == user.key_id
    assert (await user.wait(waiting))["status"] == "completed"


async def test_everything_stops_by_a_pause_and_a_bulk_cancel_which_jobs_record(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.admin() as admin, engine.user() as user:
        jobs = [await user.submit({"hang": True}), await user.submit({"hang": True})]
        for job_id in jobs:
            await user.wait(job_id, "active")
        by = (await pause(admin, True))["by"]
        jobs.append(await user.submit())
        body = {"action": "cancel", "filter": {"status": ["waiting", "active"]}, "expected": 3}

        async with asyncio.timeout(PATIENCE_SECONDS):
            while (answer := await admin.post("/api/jobs/bulk", body)).status_code == 409:
                await asyncio.sleep(POLL_SECONDS)  # until the index has the last job

        assert answer.status_code == 202, answer.text
        ended = [await user.wait(job_id) for job_id in jobs]
        assert [(job["status"], job["cancelledBy"]) for job in ended] == [("cancelled", by)] * 3


async def test_resuming_an_engine_without_settings_changes_nothing(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.admin() as admin:
        assert (await pause(admin, False))["paused"] is False
        answer = await admin.http.put("/api/config/defaults", json={"effort": "low"})
        assert answer.status_code == 200, answer.text
        assert (await admin.run())["status"] == "completed"
