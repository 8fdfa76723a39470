"""MCP servers in the settings of a job and of its agent."""

from typing import Any

import httpx2
import pytest

from labrats.model.job import Job
from tests.api.conftest import Api, a_submission

PROGRAM = {"command": "npx", "args": ["-y", "docs"], "env": {"LEVEL": "debug"}}
ADDRESS = {"url": "https://mcp.example.com/mcp", "headers": {"X-Team": "red"}}


async def submitted(user: httpx2.AsyncClient, **fields: Any) -> Any:
    """Submit a job. Return its detail."""
    answer = await user.post("/api/jobs/submit", json=a_submission(**fields))
    assert answer.status_code == 201, answer.text
    return (await user.get(f"/api/jobs/{answer.json()['jobId']}")).json()


async def test_a_job_has_the_servers_of_its_submission(user: httpx2.AsyncClient) -> None:
    servers = {"docs": PROGRAM, "web_2": ADDRESS, "bare-one": {"command": "tool"}}

    job = await submitted(user, config={"provider": "mock", "mcpServers": servers})

    assert job["config"]["mcpServers"] == servers
    assert job["configOrigins"]["mcpServers"] == "request"


async def test_an_agents_servers_apply_to_jobs_that_set_none(
    user: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    agent = {"name": "with-tools", "defaultProvider": "mock", "mcpServers": {"docs": PROGRAM}}
    created = await admin.post("/api/agents", json=agent)
    assert created.status_code == 201, created.text
    assert created.json()["mcpServers"] == {"docs": PROGRAM}

    inherited = await submitted(user, agentRole="with-tools")
    own = await submitted(user, agentRole="with-tools", config={"mcpServers": {"web": ADDRESS}})
    none = await submitted(user, agentRole="with-tools", config={"mcpServers": {}})

    assert (inherited["config"]["mcpServers"], inherited["configOrigins"]["mcpServers"]) == ({"docs": PROGRAM}, "agent")
    assert own["config"]["mcpServers"] == {"web": ADDRESS}
    assert none["config"]["mcpServers"] == {}


async def test_a_patch_replaces_and_removes_an_agents_servers(admin: httpx2.AsyncClient) -> None:
    await admin.post("/api/agents", json={"name": "changing", "mcpServers": {"docs": PROGRAM}})

    replaced = await admin.patch("/api/agents/changing", json={"mcpServers": {"web": ADDRESS}})
    unchanged = await admin.patch("/api/agents/changing", json={"enabled": False})
    removed = await admin.patch("/api/agents/changing", json={"mcpServers": None})

    assert replaced.json()["mcpServers"] == unchanged.json()["mcpServers"] == {"web": ADDRESS}
    assert "mcpServers" not in removed.json()


async def test_only_an_agent_may_name_credentials(user: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    servers = {"docs": PROGRAM | {"credentialsRef": "docs-token"}}
    created = await admin.post("/api/agents", json={"name": "trusted", "mcpServers": servers})
    refused = await user.post("/api/jobs/submit", json=a_submission(config={"mcpServers": servers}))
    inherited = await submitted(user, agentRole="trusted", config={"provider": "claude"})

    assert created.json()["mcpServers"] == inherited["config"]["mcpServers"] == servers
    assert refused.json()["details"] == [
        {"field": "config.mcpServers.docs.credentialsRef", "message": "there is no such field"}
    ]


@pytest.mark.parametrize(
    ("server", "field"),
    [
        (None, ""),
        ("npx", ""),
        ({}, ""),
        ({"command": "npx", "url": "https://mcp.example.com/"}, ""),
        ({"command": "npx", "headers": {"X-Team": "red"}}, ""),
        ({"url": "https://mcp.example.com/", "args": ["-y"]}, ""),
        ({"url": "https://mcp.example.com/", "env": {"LEVEL": "debug"}}, ""),
        ({"command": None}, ".command"),
        ({"command": ""}, ".command"),
        ({"command": ["npx"]}, ".command"),
        ({"command": "a\0b"}, ".command"),
        ({"command": "npx", "args": "-y"}, ".args"),
        ({"command": "npx", "args": ["x"] * 101}, ".args"),
        ({"command": "npx", "args": [1]}, ".args[0]"),
        ({"command": "npx", "args": ["a\0b"]}, ".args[0]"),
        ({"command": "npx", "env": {"LEVEL": 1}}, ".env.LEVEL"),
        ({"command": "npx", "env": {"A=B": "x"}}, ".env.A=B"),
        ({"url": "mcp.example.com"}, ".url"),
        ({"url": "file:///etc"}, ".url"),
        ({"url": "https://mcp.example.com/", "headers": {"X-Team": "a\r\nb"}}, ".headers.X-Team"),
        ({"url": "https://mcp.example.com/", "headers": {"X Team": "red"}}, ".headers.X Team"),
        ({"command": "npx", "extra": 1}, ".extra"),
        ({"command": "npx", "args": ["x" * 4096] * 4}, None),
    ],
)
async def test_an_invalid_server_is_named_in_the_error(
    api: Api, user: httpx2.AsyncClient, server: Any, field: str | None
) -> None:
    """field: the path within the server; None if the servers are invalid together."""
    answer = await user.post("/api/jobs/submit", json=a_submission(config={"mcpServers": {"docs": server}}))

    assert answer.status_code == 422, answer.text
    named = "config.mcpServers" + ("" if field is None else f".docs{field}")
    assert [detail["field"] for detail in answer.json()["details"]] == [named], answer.text
    assert await api.store.list(Job) == []


@pytest.mark.parametrize("name", ["", "two words", "dots.too", "x" * 65, "ä"])
async def test_an_invalid_server_name_is_refused(admin: httpx2.AsyncClient, name: str) -> None:
    answer = await admin.post("/api/agents", json={"name": "misnamed", "mcpServers": {name: PROGRAM}})

    assert answer.status_code == 422, answer.text
    assert answer.json()["error"].startswith(
        f"mcpServers.{name}: its name must be 1 to 64 letters, digits, dashes or underscores"
    )
