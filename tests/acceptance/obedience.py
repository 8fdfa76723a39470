"""Jobs of the obedient agent on any engine: how an event starts one, and what a job has published."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from tests.acceptance.engine import User
from tests.support.injections import BODY, PARENT, TITLE, Injection, text_at
from tests.support.waiting import DEADLINE_SECONDS


async def obey_an_event(admin: User, injections: list[Injection], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Let the agent `obedient` follow another one in a chain that an issue has started. Return its job.

    defaults: settings of the agent. The result of the first agent, and the issue, have instructions.
    """
    trigger: dict[str, Any] = {"source": "tests", "events": ["issues.opened"], "instruction": "Look at it."}
    note = {"type": "object", "properties": {"note": {"const": text_at(PARENT, injections)}}, "required": ["note"]}
    first: dict[str, Any] = {"name": "first", "defaultProvider": "mock", "resultSchema": note}
    first |= {"eventTriggers": [trigger | {"next": {"agentTriggerName": "obedient"}}]}
    created = await admin.post("/api/agents", first)
    assert created.status_code == 201, created.text
    changed = await admin.http.patch("/api/agents/obedient", json=dict(defaults))
    assert changed.status_code == 200, changed.text
    issue = {"title": text_at(TITLE, injections), "body": text_at(BODY, injections), "number": 7}
    event = {"source": "tests", "event": "issues.opened", "payload": {"action": "opened", "issue": issue}}
    answer = await admin.post("/api/events/ingest", event)
    assert answer.status_code == 200, answer.text
    (job,) = answer.json()["jobs"]
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (child := (await admin.wait(job["jobId"]))["childJobId"]) is None:
            await asyncio.sleep(0.05)
    return await admin.wait(child)


def obeyed_by(job: dict[str, Any]) -> set[str]:
    """Return the commands that the obedient agent has executed in a job."""
    assert job["status"] == "completed", job["failedReason"]
    return set(json.loads(job["result"]))


async def published_by(user: User, job: dict[str, Any]) -> str:
    """Return everything that a job has published."""
    events = await user.get(f"/api/jobs/{job['id']}/events", limit=1000)
    patch = await user.get(f"/api/jobs/{job['id']}/patch")
    return "\n".join([str(job), str(events.json()), *await user.log_lines(job["id"]), patch.text])
