"""Environment variables of agents: texts and values of Secrets."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.acceptance.engine import Engine, User
from tests.chart.engine import InstalledEngine

TOKEN = "test-npm-token-0123456789"
SHOWS_VARIABLES = ({"log": "CI={env:CI} NPM_TOKEN={env:NPM_TOKEN}"}, {"result": "done"})


@pytest.fixture
async def agent(engine: Engine, admin: User) -> AsyncIterator[str]:
    """The triggerName of an agent with a variable from a Secret."""
    name = f"env-{uuid4().hex[:8]}"
    engine.set_secret(name, "token", TOKEN)
    env = {"CI": "1", "NPM_TOKEN": {"secret": name, "key": "token"}}
    answer = await admin.post("/api/agents", {"name": name, "defaultProvider": "mock", "env": env})
    assert answer.status_code == 201, answer.text
    yield name
    await admin.http.delete(f"/api/agents/{name}")


async def test_jobs_of_the_agent_have_its_variables_and_hide_the_secret(user: User, agent: str) -> None:
    job = await user.run(*SHOWS_VARIABLES, agentRole=agent)
    assert (job["status"], await user.log_lines(job["id"])) == ("completed", ["CI=1 NPM_TOKEN=[redacted]"])
    assert TOKEN not in str(job)


async def test_other_jobs_have_none_of_them(user: User, agent: str) -> None:
    job = await user.run(*SHOWS_VARIABLES)
    assert await user.log_lines(job["id"]) == ["CI= NPM_TOKEN="]


async def test_job_whose_secret_has_no_such_key_fails(admin: User, agent: str) -> None:
    env = {"NPM_TOKEN": {"secret": agent, "key": "missing"}}
    job = await admin.run(*SHOWS_VARIABLES, config={"env": env})
    message = f"config.env.NPM_TOKEN: the Secret {agent!r} has no key 'missing'"
    assert (job["status"], job["failedCode"], job["failedReason"]) == ("failed", "auth", message)


async def test_job_whose_secret_is_missing_fails(engine: Engine, admin: User) -> None:
    if isinstance(engine, InstalledEngine):
        pytest.skip("waits 30 s for the Secret there: see tests/kubernetes/test_failed_jobs.py")
    env = {"NPM_TOKEN": {"secret": "no-such-secret", "key": "token"}}
    job = await admin.run(*SHOWS_VARIABLES, config={"env": env})
    assert (job["status"], job["failedCode"]) == ("failed", "auth")
    assert (
        "the values of the variable NPM_TOKEN are missing: there is no Secret 'no-such-secret'" in job["failedReason"]
    )
