"""Agents and events: an event starts the agents whose triggers match."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import User


@pytest.fixture
async def agent(admin: User) -> AsyncIterator[dict[str, Any]]:
    """A new agent with its own trigger source and instruction, whose jobs run on the mock provider."""
    name = f"agent-{uuid4().hex[:8]}"
    instruction = {"name": f"{name}-rules", "content": "Three short words."}
    body = {
        "name": name,
        "defaultProvider": "mock",
        "instructions": [instruction["name"]],
        "eventTriggers": [{"source": name, "events": ["thing.*"], "filters": {"size": [1, 2]}}],
    }
    assert (await admin.post("/api/instructions", instruction)).status_code == 201
    answer = await admin.post("/api/agents", body)
    assert answer.status_code == 201, answer.text
    yield answer.json()
    await admin.http.delete(f"/api/agents/{name}")
    await admin.http.delete(f"/api/instructions/{instruction['name']}")


def an_event(agent: dict[str, Any], size: int = 1) -> dict[str, Any]:
    return {"source": agent["name"], "event": "thing.happened", "payload": {"size": size}}


async def test_job_with_an_agent_role_gets_the_agents_instructions_and_settings(
    user: User, agent: dict[str, Any]
) -> None:
    submission = {"source": "manual", "type": "t", "prompt": "Two words", "agentRole": agent["triggerName"]}
    answer = await user.post("/api/jobs/submit", submission)

    detail = await user.wait(answer.json()["jobId"])

    assert detail["result"] == (
        "The mock provider read a prompt of 2 words, and instructions of 3 words, and did nothing else."
    )
    assert (detail["agentRole"], detail["configOrigins"]["provider"]) == (agent["triggerName"], "agent")


async def test_event_starts_only_agents_whose_triggers_match(user: User, agent: dict[str, Any]) -> None:
    answer = await user.post("/api/events/ingest", an_event(agent))

    assert answer.status_code == 200, answer.text
    (job,) = answer.json()["jobs"]
    assert (answer.json()["matched"], job["agent"]) == (1, agent["name"])
    assert (await user.wait(job["jobId"]))["status"] == "completed"
    assert (await user.post("/api/events/ingest", an_event(agent, size=3))).json() == {"matched": 0, "jobs": []}


async def test_event_sent_twice_with_the_same_idempotency_key_creates_one_job(
    user: User, agent: dict[str, Any]
) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    first, second = [(await user.post("/api/events/ingest", an_event(agent), **key)).json() for _ in range(2)]
    assert first == second
    assert (await user.get("/api/jobs", agentRole=agent["triggerName"])).json()["total"] == 1


async def test_acknowledged_changes_to_agents_and_settings_survive_a_kill(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.admin() as admin:
        assert (await admin.post("/api/agents/seed")).json() == {"seeded": 5}
        assert (await admin.http.delete("/api/agents/ai-triager")).status_code == 204
        await admin.http.patch("/api/agents/ai-reviewer", json={"enabled": False})
        await admin.http.put("/api/config/defaults", json={"effort": "high"})
    engine.kill()
    engine.start()
    async with engine.admin() as admin:
        agents = {each["name"]: each["enabled"] for each in (await admin.get("/api/agents")).json()["agents"]}
        assert "ai-triager" not in agents
        assert (len(agents), agents["ai-reviewer"]) == (4, False)
        assert (await admin.get("/api/config/defaults")).json()["effort"] == "high"
