"""The key proxy of an engine on one machine. tests/kubernetes/test_key_proxy.py has the same agent on a cluster."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.agents.claude import MessagesApi
from tests.support import key_seeker
from tests.support.scripted_model import ModelServer, Says, scripted_model

KEY = key_seeker.KEY.decode()
PATH = "/usr/local/bin:/usr/bin:/bin"  # the system's Python: a sandbox hides one in a home folder
CONFIG = {"provider": "claude", "model": "claude-sonnet-5-5"}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with scripted_model(MessagesApi(), [Says("hi", input_tokens=30, output_tokens=12)]) as server:
        yield server


@pytest.fixture
def environment(server: ModelServer, tmp_path: Path) -> dict[str, str]:
    """The environment of an engine with a key, a model server, and an agent that looks for the key."""
    program = tmp_path / "seeker" / "claude"
    program.parent.mkdir()
    program.write_text(f"#!/usr/bin/env python3\n{Path(key_seeker.__file__).read_text()}")
    program.chmod(0o755)
    return {
        "LABRATS_CLAUDE_PATH": str(program),
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": server.url,
        "PATH": PATH,
    }


async def test_agent_finds_no_key_and_reaches_no_other_model(
    start_program: EngineFactory, environment: dict[str, str], server: ModelServer
) -> None:
    engine = start_program(**environment, LABRATS_SANDBOX="true")
    async with engine.user() as user:
        job = await user.wait(await user.submit(prompt="look", config=CONFIG))
        events = (await user.get(f"/api/jobs/{job['id']}/events", limit=1000)).json()["events"]

    assert job["status"] == "completed", job["failedReason"]
    assert json.loads(job["result"]) == {
        "found": [],
        "statuses": {"claude-sonnet-5-5": 200, "claude-opus-5-5": 404, "wrong token": 401},
        "token is the key": False,
    }
    assert (server.key, [request["model"] for request in server.requests]) == (KEY, ["claude-sonnet-5-5"])
    assert job["keyExposed"] is False
    assert (job["usage"]["inputTokens"], job["usage"]["outputTokens"]) == (30, 12), "the agent itself reports none"
    requests = [event["request"] for event in events if event["kind"] == "request"]
    assert [(request["model"], request["status"]) for request in requests] == [
        ("claude-sonnet-5-5", 200),
        ("claude-opus-5-5", 404),
        (None, 401),
    ]
    assert "claude-opus-5-5" in requests[1]["refusal"]


@pytest.mark.parametrize("limit", [{"maxTokens": 40}, {"maxCostUsd": 0.00001}], ids=["maxTokens", "maxCostUsd"])
async def test_limit_ends_the_job_although_its_agent_reports_no_usage(
    start_program: EngineFactory, environment: dict[str, str], limit: dict[str, float]
) -> None:
    engine = start_program(**environment, LABRATS_SANDBOX="true")
    async with engine.admin() as admin, engine.user() as user:
        model = {"name": "priced", **CONFIG, "slots": 1, "prices": {"input": 1, "output": 1}}
        assert (await admin.post("/api/ai-models", model)).status_code == 201
        job = await user.wait(await user.submit(prompt="look", config=CONFIG | limit))

    assert (job["status"], job["failedCode"]) == ("failed", "budget"), job["failedReason"]
    assert next(iter(limit)) in job["failedReason"]
    assert job["usage"]["outputTokens"] == 12


async def test_limit_ends_the_job_although_its_server_reports_no_usage(
    start_program: EngineFactory, environment: dict[str, str]
) -> None:
    with scripted_model(MessagesApi(), [Says("hi", input_tokens=0, output_tokens=0)]) as silent:
        engine = start_program(**environment | {"ANTHROPIC_BASE_URL": silent.url}, LABRATS_SANDBOX="true")
        async with engine.user() as user:
            job = await user.wait(await user.submit(prompt="look", config=CONFIG | {"maxTokens": 2}))

    assert (job["status"], job["failedCode"]) == ("failed", "budget"), job["failedReason"]
    assert "maxTokens 2" in job["failedReason"]
    assert job["usage"]["outputTokens"] == 0
