"""The attempts, prompt, whole result, plain log and patches of a job."""

import asyncio
from typing import Any

from tests.acceptance.engine import PATIENCE_SECONDS, User

FAIL_ONCE = [
    {"log": "line {n}", "times": 2},
    {"onAttempt": 1, "steps": [{"write": {"path": "first.txt", "text": "1"}}, {"fail": "not yet"}]},
    {"usage": {"inputTokens": 7, "turns": 1}},
    {"write": {"path": "second.txt", "text": "2"}},
    {"result": "done"},
]


async def test_each_attempt_has_its_outcome_and_usage(user: User) -> None:
    job = await user.run(*FAIL_ONCE, config={"maxAttempts": 2})

    first, second = (await user.get(f"/api/jobs/{job['id']}/attempts")).json()["attempts"]

    assert (first["attempt"], first["status"], first["failedCode"]) == (1, "failed", "agent_error")
    assert (first["failedReason"], first["usage"]["inputTokens"]) == ("not yet", 0)
    assert (second["attempt"], second["status"], second["failedCode"]) == (2, "completed", None)
    assert second["usage"]["inputTokens"] == 7
    assert second["finishedAt"] == job["finishedAt"]
    assert first["startedAt"] < first["finishedAt"] <= second["startedAt"] < second["finishedAt"]
    assert second["executorPodName"] == job["executorPodName"]


async def test_running_and_cancelled_attempts_are_listed(user: User) -> None:
    job_id = await user.submit({"usage": {"inputTokens": 3}}, {"log": "on"}, {"hang": True})
    async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as lines:
        await anext(lines)

    (running,) = await attempts(user, job_id)
    await user.cancel(job_id)
    await user.wait(job_id)
    (cancelled,) = await attempts(user, job_id)

    assert (running["status"], running["finishedAt"], running["usage"]["inputTokens"]) == ("active", None, 3)
    assert (cancelled["status"], cancelled["failedCode"]) == ("cancelled", None)
    assert cancelled["finishedAt"] > running["startedAt"]


async def attempts(user: User, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await user.get(f"/api/jobs/{job_id}/attempts")).json()["attempts"]
    return found


async def test_each_attempt_has_its_patch(user: User) -> None:
    job = await user.run(*FAIL_ONCE, config={"maxAttempts": 2})

    latest = await user.get(f"/api/jobs/{job['id']}/patch")
    first = await user.get(f"/api/jobs/{job['id']}/patch", attempt=1)
    missing = await user.get(f"/api/jobs/{job['id']}/patch", attempt=3)

    assert ("first.txt" in first.text, "second.txt" in first.text) == (True, False)
    assert ("first.txt" in latest.text, "second.txt" in latest.text) == (False, True)
    assert missing.status_code == 404
    assert "no attempt 3" in missing.json()["error"]


async def test_log_can_be_read_as_plain_text(user: User) -> None:
    job = await user.run(*FAIL_ONCE, config={"maxAttempts": 2})

    log = await user.get(f"/api/jobs/{job['id']}/logs", format="text")

    assert log.headers["content-type"] == "text/plain; charset=utf-8"
    assert log.text == "line 1\nline 2\n" * 2


async def test_prompt_is_shown_with_the_instructions_of_the_agent(user: User, admin: User, name: str) -> None:
    agent = {"name": name, "triggerName": name, "defaultProvider": "mock"}
    await admin.post("/api/instructions", {"name": name, "content": "Be brief."})
    created = await admin.post("/api/agents", agent | {"instructions": [name]})
    assert created.status_code == 201, created.text
    plain = await user.submit(prompt="Say hello.")
    with_agent = await user.submit(prompt="Say it again.", agentRole=name)

    assert (await user.get(f"/api/jobs/{plain}/prompt")).json() == {"prompt": "Say hello.", "instructions": None}
    shown = (await user.get(f"/api/jobs/{with_agent}/prompt")).json()
    assert shown["prompt"] == "Say it again."
    assert "Be brief." in shown["instructions"]


async def test_large_result_can_be_read_apart_from_the_detail(user: User) -> None:
    large = "x" * 50_000
    job_id = (await user.run({"result": large}))["id"]

    detail = (await user.get(f"/api/jobs/{job_id}", omit="result")).json()

    assert not {"result", "returnvalue"} & set(detail)
    assert (await user.get(f"/api/jobs/{job_id}/result")).json() == {"result": large}


async def test_job_without_a_result_has_none(user: User) -> None:
    job_id = (await user.run({"fail": "no"}))["id"]

    assert (await user.get(f"/api/jobs/{job_id}/result")).json() == {"result": None}
