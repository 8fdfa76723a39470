"""Limits on what an attempt may use of its machine or pod. The engine's limit is 40 processes."""

from typing import Any

from tests.acceptance.engine import User

CHILD: dict[str, Any] = {"fork": {"seconds": 60}}


async def test_an_attempt_with_too_many_processes_fails_and_is_not_repeated(user: User) -> None:
    job = await user.run(*[CHILD] * 50, {"hang": True}, config={"maxAttempts": 2})
    assert (job["failedCode"], job["attempts"]) == ("process_limit", 1)
    assert "over LABRATS_AGENT_PROCESSES (40): raise the limit" in job["failedReason"]


async def test_an_attempt_with_fewer_processes_is_not_ended(user: User) -> None:
    job = await user.run(*[CHILD] * 20, {"sleepMs": 500}, {"result": "done"})
    assert (job["status"], job["result"]) == ("completed", "done")
