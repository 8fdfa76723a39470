"""Deliveries to a running engine: answered once the job is kept, and known again after a crash."""

import asyncio
from typing import Any

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine, User
from tests.deliveries import SECRET, an_issue_event, github_headers, json_body

GITHUB = "/api/webhooks/github"
SCRIPTED: dict[str, Any] = {
    "name": "developer",
    "eventTriggers": [{"source": "github", "events": ["issues.labeled"]}],
    "defaultProvider": "mock",
}
SOURCE: dict[str, Any] = {"name": "github", "type": "github", "secret": SECRET}


@pytest.fixture
def receiver(start_engine: EngineFactory) -> LocalEngine:
    return start_engine()


async def set_up(admin: User) -> None:
    for path, body in (("/api/agents", SCRIPTED), ("/api/webhook-sources", SOURCE)):
        assert (await admin.post(path, body)).status_code == 201


async def deliver(engine: LocalEngine, payload: Any, delivery: str = "one", path: str = GITHUB) -> dict[str, Any]:
    body = json_body(payload)
    async with engine.client() as github:
        answer = await github.post(path, content=body, headers=github_headers("issues", body, delivery=delivery))
    assert answer.status_code == 200, answer.text
    received: dict[str, Any] = answer.json()
    return received


def an_issue(**fields: Any) -> dict[str, Any]:
    """One whose repository nobody clones."""
    payload = an_issue_event(**fields)
    del payload["repository"]["clone_url"]
    return payload


async def test_a_delivery_becomes_a_job_that_runs(receiver: LocalEngine) -> None:
    async with receiver.admin() as admin:
        await set_up(admin)
        (made,) = (await deliver(receiver, an_issue(), path="/webhooks/github"))["jobs"]
        detail = await admin.wait(made["jobId"])
        source = (await admin.get("/api/webhook-sources/github")).json()
    assert (detail["status"], detail["agentRole"], detail["source"]) == ("completed", "developer", "github")
    assert source["url"] == f"{receiver.url}/webhooks/github"
    assert SECRET not in receiver.log


async def test_a_replay_is_known_after_a_crash_and_answered_with_the_job_it_made(receiver: LocalEngine) -> None:
    async with receiver.admin() as admin:
        await set_up(admin)
        first = await deliver(receiver, an_issue())
        receiver.kill()
        receiver.start()
        again = await asyncio.gather(*(deliver(receiver, an_issue(), f"id-{number}") for number in range(20)))
        assert again == [first] * 20
        assert (await admin.get("/api/jobs")).json()["total"] == 1
        await admin.wait(first["jobs"][0]["jobId"])


async def test_a_delivery_is_answered_before_its_job_can_run(receiver: LocalEngine) -> None:
    async with receiver.admin() as admin:
        await set_up(admin)
        await admin.post("/api/ai-models", {"name": "none", "provider": "mock", "model": "mock", "slots": 0})
        (made,) = (await deliver(receiver, an_issue()))["jobs"]
        assert (await admin.job(made["jobId"]))["status"] == "waiting"
