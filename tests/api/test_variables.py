"""Environment variables in the settings of a job and of its agent."""

from typing import Any

import httpx2
import pytest

from tests.api.conftest import a_submission

VARIABLES = {"CI": "1", "NPM_TOKEN": {"secret": "npm", "key": "token"}}


async def test_an_agents_variables_apply_to_jobs_that_set_none(
    user: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    created = await admin.post("/api/agents", json={"name": "with-env", "defaultProvider": "mock", "env": VARIABLES})
    inherited = await user.post("/api/jobs/submit", json=a_submission(agentRole="with-env"))
    own = await admin.post("/api/jobs/submit", json=a_submission(agentRole="with-env", config={"env": {}}))

    assert created.json()["env"] == VARIABLES
    detail = (await user.get(f"/api/jobs/{inherited.json()['jobId']}")).json()
    assert (detail["config"]["env"], detail["configOrigins"]["env"]) == (VARIABLES, "agent")
    detail = (await admin.get(f"/api/jobs/{own.json()['jobId']}")).json()
    assert (detail["config"]["env"], detail["configOrigins"]["env"]) == ({}, "request")


async def test_a_patch_replaces_and_removes_an_agents_variables(admin: httpx2.AsyncClient) -> None:
    await admin.post("/api/agents", json={"name": "changing-env", "env": VARIABLES})
    replaced = await admin.patch("/api/agents/changing-env", json={"env": {"A": "b"}})
    removed = await admin.patch("/api/agents/changing-env", json={"env": None})
    assert replaced.json()["env"] == {"A": "b"}
    assert "env" not in removed.json()


async def test_only_administrators_set_variables_of_a_job(user: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    refused = await user.post("/api/jobs/submit", json=a_submission(config={"env": {"CI": "1"}}))
    accepted = await admin.post("/api/jobs/submit", json=a_submission(config={"env": VARIABLES}))
    own = await user.post("/api/jobs/submit", json=a_submission())
    rerun = await user.post(f"/api/jobs/{own.json()['jobId']}/rerun", json={"config": {"env": {"CI": "1"}}})

    assert (refused.status_code, accepted.status_code, rerun.status_code) == (403, 201, 403)
    assert refused.json()["error"] == "config.env needs an API key with the scope `admin`"


@pytest.mark.parametrize(
    ("variables", "field", "message"),
    [
        ({"1st": "x"}, "config.env.1st", "its name must be letters, digits or underscores, and not begin with a digit"),
        ({"HOME": "/root"}, "config.env", "HOME is set by the engine"),
        ({"ANTHROPIC_BASE_URL": "http://x"}, "config.env", "ANTHROPIC_BASE_URL is set by the engine"),
        ({"A": 1}, "config.env.A", "must be a string"),
        ({"A": {"secret": "npm"}}, "config.env.A.key", "is required"),
        ({"A": {"secret": "npm", "key": "k", "more": 1}}, "config.env.A.more", "there is no such field"),
        (dict.fromkeys("ABCD", "x" * 4096), "config.env", "must be at most 16 KiB in total"),
        ({f"A{number}": "" for number in range(101)}, "config.env", "must have at most 100 items"),
    ],
)  # fmt: skip
async def test_invalid_variables_are_explained(
    admin: httpx2.AsyncClient, variables: dict[str, Any], field: str, message: str
) -> None:
    answer = await admin.post("/api/jobs/submit", json=a_submission(config={"env": variables}))
    assert answer.status_code == 422
    [problem] = answer.json()["details"]
    assert problem["field"] == field
    assert message in problem["message"]
