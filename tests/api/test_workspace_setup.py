"""Setup commands and cached folders in the settings of a job and its agent."""

from typing import Any

import httpx2
import pytest

from labrats.model.job import Job
from tests.api.conftest import Api, a_submission

REPO = {"gitRepo": "https://1.1.1.1/octocat/hello.git"}
NPM = {
    "setup": [["npm", "ci"]],
    "setupTimeoutMs": 300_000,
    "setupNetwork": {"allow": ["npm"]},
    "cache": [{"key": "package-lock.json", "path": "node_modules"}],
}
FIELDS = ("setup", "setupTimeoutMs", "setupNetwork", "cache")


async def setup_of(user: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Submit a job. Return its setup, as its detail shows it."""
    created = await user.post("/api/jobs/submit", json=a_submission(**fields))
    assert created.status_code == 201, created.text
    shown = (await user.get(f"/api/jobs/{created.json()['jobId']}")).json()["workspaceSetup"]
    return {name: shown[name] for name in FIELDS if name in shown}


async def test_detail_shows_what_was_submitted(user: httpx2.AsyncClient) -> None:
    assert await setup_of(user, workspaceSetup={**REPO, **NPM}) == NPM
    assert await setup_of(user, workspaceSetup=REPO) == {}


async def test_each_value_of_the_job_wins_over_the_agents(user: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    created = await admin.post("/api/agents", json={"name": "prepared", "workspaceSetup": NPM})
    assert created.json()["workspaceSetup"] == NPM

    inherited = await setup_of(user, agentRole="prepared", workspaceSetup=REPO)
    own = await setup_of(user, agentRole="prepared", workspaceSetup={**REPO, "setup": [["make"]], "cache": []})
    none = await setup_of(user, agentRole="prepared", workspaceSetup={**REPO, "setup": [], "cache": []})

    assert inherited == NPM
    assert own == {**NPM, "setup": [["make"]], "cache": []}
    assert none["setup"] == []


async def test_job_without_a_repository_has_none_of_the_agents(
    api: Api, user: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    await admin.post("/api/agents", json={"name": "prepared-2", "workspaceSetup": NPM})
    created = await user.post("/api/jobs/submit", json=a_submission(agentRole="prepared-2"))
    job = await api.services.store.get(Job, created.json()["jobId"])
    assert job.spec.workspace_setup is None


async def test_patch_replaces_and_removes_an_agents_setup(admin: httpx2.AsyncClient) -> None:
    await admin.post("/api/agents", json={"name": "prepared-3", "workspaceSetup": NPM})
    replaced = await admin.patch("/api/agents/prepared-3", json={"workspaceSetup": {"setup": [["make"]]}})
    removed = await admin.patch("/api/agents/prepared-3", json={"workspaceSetup": None})
    assert replaced.json()["workspaceSetup"] == {"setup": [["make"]]}
    assert "workspaceSetup" not in removed.json()


async def test_rerun_keeps_the_setup(api: Api, user: httpx2.AsyncClient) -> None:
    created = await user.post("/api/jobs/submit", json=a_submission(workspaceSetup={**REPO, **NPM}))
    again = await user.post(f"/api/jobs/{created.json()['jobId']}/rerun", json={})
    assert again.status_code == 201, again.text
    shown = (await user.get(f"/api/jobs/{again.json()['jobId']}")).json()["workspaceSetup"]
    assert {name: shown[name] for name in FIELDS} == NPM


@pytest.mark.parametrize(
    ("setup", "field"),
    [
        ({"setup": [["npm", "ci"]], "gitRepo": None}, "gitRepo"),
        ({"setup": "npm ci"}, "setup"),
        ({"setup": ["npm ci"]}, "setup[0]"),
        ({"setup": [[]]}, "setup[0]"),
        ({"setup": [[" "]]}, "setup[0]"),
        ({"setup": [["a\0b"]]}, "setup[0][0]"),
        ({"setup": [["ü" * 5000]]}, "setup[0]"),
        ({"setup": [["x"]] * 21}, "setup"),
        ({"setup": [["x" * 8000]] * 5}, "setup"),
        ({"setupTimeoutMs": 0}, "setupTimeoutMs"),
        ({"setupNetwork": "closed"}, "setupNetwork"),
        ({"setupNetwork": {"allow": ["10.0.0.1"]}}, "setupNetwork"),
        ({"cache": [{"key": "a", "path": "b"}]}, "cache"),
        ({"setup": [["x"]], "cache": [{"key": "../a", "path": "b"}]}, "cache[0].key"),
        ({"setup": [["x"]], "cache": [{"key": "a", "path": "/b"}]}, "cache[0].path"),
        ({"setup": [["x"]], "cache": [{"key": "a", "path": "b/.git/hooks"}]}, "cache[0].path"),
        ({"setup": [["x"]], "cache": [{"key": "a", "path": "."}]}, "cache[0].path"),
        ({"setup": [["x"]], "cache": [{"key": "a", "path": "b"}, {"key": "a", "path": "b/c"}]}, "cache[1].path"),
    ],
)
async def test_invalid_setup_is_refused(user: httpx2.AsyncClient, setup: dict[str, Any], field: str) -> None:
    refused = await user.post("/api/jobs/submit", json=a_submission(workspaceSetup={**REPO, **setup}))
    assert refused.status_code == 422, refused.text
    assert [each["field"] for each in refused.json()["details"]] == [f"workspaceSetup.{field}"]


async def test_invalid_setup_of_an_agent_is_refused(admin: httpx2.AsyncClient) -> None:
    setup = {"setup": [["x"]], "cache": [{"key": "a", "path": "../b"}]}
    refused = await admin.post("/api/agents", json={"name": "prepared-4", "workspaceSetup": setup})
    assert (refused.status_code, refused.json()["details"][0]["field"]) == (422, "workspaceSetup.cache[0].path")


async def test_rule_that_cannot_be_enforced_is_refused(
    api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.services.admission, "_network_problem", lambda _: "must be open: there is no sandbox")
    refused = await user.post("/api/jobs/submit", json=a_submission(workspaceSetup={**REPO, **NPM}))
    assert (refused.status_code, refused.json()["details"][0]["field"]) == (422, "workspaceSetup.setupNetwork")
