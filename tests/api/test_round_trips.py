"""The response of a GET can be sent back: read-only fields are ignored if they are equal to the stored ones."""

from typing import Any

import httpx2
import pytest

from tests.api.conftest import Api
from tests.support.deliveries import SECRET

TRIGGER = {
    "source": "github",
    "events": ["issues.*"],
    "instruction": "conduct",
    "config": {"model": "opus", "maxTurns": 3, "mcpServers": {"docs": {"command": "docs", "args": ["-v"]}}},
    "filters": {"label.name": ["ai"]},
    "next": {"agentTriggerName": "reviewer", "condition": "always"},
}
RESOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "agent": (
        "agents",
        {
            "name": "developer",
            "defaultModel": "opus",
            "eventTriggers": [TRIGGER],
            "instructions": ["conduct"],
            "mcpServers": {"wiki": {"url": "https://wiki.example.com/mcp", "credentialsRef": "wiki"}},
        },
    ),
    "agent with defaults": ("agents", {"name": "plain"}),
    "instruction": ("instructions", {"name": "style", "content": "Be brief.", "priority": 3, "scope": "global"}),
    "model": (
        "ai-models",
        {"name": "opus", "provider": "claude", "model": "opus", "slots": 2, "prices": {"input": 5, "output": 25}},
    ),
    "model with defaults": ("ai-models", {"name": "any", "provider": "mock", "model": "mock", "slots": 1}),
    "GitHub source": (
        "webhook-sources",
        {
            "name": "github",
            "type": "github",
            "secret": SECRET,
            "host": "hooks.example.com",
            "defaults": {"effort": "high"},
            "repoOverrides": {"octo/cat": {"enabled": False, "model": "haiku"}},
        },
    ),
    "generic source": ("webhook-sources", {"name": "ci", "type": "generic", "secret": SECRET}),
}


@pytest.fixture
async def admin(api: Api) -> Any:
    async with api.client("admin") as admin:
        await admin.post("/api/instructions", json={"name": "conduct", "content": "Behave."})
        yield admin


@pytest.mark.parametrize(("plural", "body"), RESOURCES.values(), ids=RESOURCES)
async def test_a_resource_can_be_sent_back(admin: httpx2.AsyncClient, plural: str, body: dict[str, Any]) -> None:
    created = await admin.post(f"/api/{plural}", json=body)
    assert created.status_code == 201, created.text
    path = f"/api/{plural}/{created.json()['id']}"
    read = (await admin.get(path)).json()

    answer = await admin.patch(path, json=read)

    assert answer.status_code == 200, answer.text
    volatile = {"resourceVersion", "conditions", "warnings"}
    assert {k: v for k, v in answer.json().items() if k not in volatile} == {
        k: v for k, v in read.items() if k not in volatile
    }


async def test_the_default_settings_can_be_sent_back(admin: httpx2.AsyncClient) -> None:
    await admin.put("/api/config/defaults", json={"model": "sonnet", "providers": {"codex": {"model": "o3"}}})
    read = (await admin.get("/api/config/defaults")).json()
    answer = await admin.put("/api/config/defaults", json=read)
    assert answer.status_code == 200, answer.text
    assert answer.json() | {"resourceVersion": ""} == read | {"resourceVersion": ""}


@pytest.mark.parametrize(("plural", "body"), RESOURCES.values(), ids=RESOURCES)
async def test_read_only_field_with_another_value_is_refused(
    admin: httpx2.AsyncClient, plural: str, body: dict[str, Any]
) -> None:
    stored = (await admin.post(f"/api/{plural}", json=body)).json()
    resource = f"/api/{plural}/{stored['id']}"
    read_only = {"id", "name", "url", "conditions", "deliveries", "active", "queued", "pausedUntil", "warnings"}

    refused = {name: await admin.patch(resource, json={name: "other"}) for name in read_only & stored.keys()}
    equal = await admin.patch(resource, json={name: stored[name] for name in refused})

    assert {"id", "name"} <= refused.keys()
    for name, answer in refused.items():
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, name)
    assert equal.status_code == 200, equal.text
