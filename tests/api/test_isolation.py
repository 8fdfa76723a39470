"""The isolation in the settings of a job, its agent and the engine, which here has `process` and `sandbox`."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from labrats.model.isolation import PROCESS_ONLY
from tests.api.conftest import Api, a_submission, api_in_memory


async def isolation_of(user: httpx2.AsyncClient, answer: httpx2.Response) -> tuple[str, str | None]:
    """Return the isolation that the submitted job gets, and the layer that names one."""
    assert answer.status_code == 201, answer.text
    detail = (await user.get(f"/api/jobs/{answer.json()['jobId']}")).json()
    return detail["isolation"], detail["configOrigins"].get("isolation")


async def test_a_job_that_asks_for_none_has_the_backends_own(user: httpx2.AsyncClient) -> None:
    submitted = await user.post("/api/jobs/submit", json=a_submission())
    assert await isolation_of(user, submitted) == ("sandbox", None)


@pytest.mark.parametrize(("who", "expected"), [("user", ("sandbox", "request")), ("admin", ("process", "request"))])
async def test_only_an_admins_job_has_less_than_the_default(
    user: httpx2.AsyncClient, admin: httpx2.AsyncClient, who: str, expected: tuple[str, str]
) -> None:
    client = {"user": user, "admin": admin}[who]
    submitted = await client.post("/api/jobs/submit", json=a_submission(config={"isolation": "process"}))
    assert await isolation_of(client, submitted) == expected


async def test_an_agents_isolation_applies_to_jobs_that_set_none(
    user: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    agent = {"name": "trusted", "defaultProvider": "mock", "defaultIsolation": "process"}
    created = await admin.post("/api/agents", json=agent)
    inherited = await user.post("/api/jobs/submit", json=a_submission(agentRole="trusted"))
    own = await user.post("/api/jobs/submit", json=a_submission(agentRole="trusted", config={"isolation": "sandbox"}))

    assert created.json()["defaultIsolation"] == "process"
    assert await isolation_of(user, inherited) == ("process", "agent")
    assert await isolation_of(user, own) == ("sandbox", "request")


async def test_a_patch_replaces_and_removes_an_agents_isolation(admin: httpx2.AsyncClient) -> None:
    await admin.post("/api/agents", json={"name": "changing-level", "defaultIsolation": "process"})
    replaced = await admin.patch("/api/agents/changing-level", json={"defaultIsolation": "vm"})
    removed = await admin.patch("/api/agents/changing-level", json={"defaultIsolation": None})
    assert replaced.json()["defaultIsolation"] == "vm"
    assert "defaultIsolation" not in removed.json()


@pytest.mark.parametrize("path", ["rerun", "messages"])
async def test_an_admin_who_runs_a_job_again_gives_it_no_less_than_it_had(
    user: httpx2.AsyncClient, admin: httpx2.AsyncClient, path: str
) -> None:
    first = await user.post("/api/jobs/submit", json=a_submission(config={"isolation": "process"}))
    job_id = first.json()["jobId"]
    await user.post(f"/api/jobs/{job_id}/cancel")

    again = await admin.post(f"/api/jobs/{job_id}/{path}", json={"prompt": "Go on."})

    assert await isolation_of(admin, again) == ("sandbox", "rerun")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("rerun", {}, "sandbox"),
        ("rerun", {"config": {"isolation": "process"}}, "process"),
        ("messages", {"prompt": "Go on."}, "sandbox"),
    ],
)
async def test_a_job_that_is_run_again_has_the_level_it_had_although_its_agent_has_less_now(
    user: httpx2.AsyncClient, admin: httpx2.AsyncClient, path: str, body: dict[str, Any], expected: str
) -> None:
    agent = {"name": f"weakened-{path}-{expected}", "defaultProvider": "mock", "defaultIsolation": "sandbox"}
    await admin.post("/api/agents", json=agent)
    first = await user.post("/api/jobs/submit", json=a_submission(agentRole=agent["name"]))
    job_id = first.json()["jobId"]
    await user.post(f"/api/jobs/{job_id}/cancel")
    await admin.patch(f"/api/agents/{agent['name']}", json={"defaultIsolation": "process"})

    again = await admin.post(f"/api/jobs/{job_id}/{path}", json=body)

    assert (await isolation_of(admin, again))[0] == expected


@pytest.mark.parametrize(("path", "body"), [("rerun", {}), ("messages", {"prompt": "Go on."})])
async def test_a_job_is_run_again_with_the_default_of_an_engine_that_has_lost_its_level(
    api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    first = await user.post("/api/jobs/submit", json=a_submission())
    job_id = first.json()["jobId"]
    await user.post(f"/api/jobs/{job_id}/cancel")
    monkeypatch.setattr(api.services.admission, "_isolation", PROCESS_ONLY)
    again = await user.post(f"/api/jobs/{job_id}/{path}", json=body)
    assert await isolation_of(user, again) == ("process", None)


async def test_a_rerun_repeats_a_chosen_isolation_and_not_a_default(admin: httpx2.AsyncClient) -> None:
    for config, expected in (({"isolation": "process"}, ("process", "rerun")), ({}, ("sandbox", None))):
        first = await admin.post("/api/jobs/submit", json=a_submission(config=config))
        again = await admin.post(f"/api/jobs/{first.json()['jobId']}/rerun")
        assert await isolation_of(admin, again) == expected


async def test_the_engines_own_isolation_is_the_weakest_layer(tmp_path: Path) -> None:
    async with api_in_memory(tmp_path, isolation="process") as api, api.client() as user:
        inherited = await user.post("/api/jobs/submit", json=a_submission())
        own = await user.post("/api/jobs/submit", json=a_submission(config={"isolation": "sandbox"}))
        found = [await isolation_of(user, each) for each in (inherited, own)]
    assert found == [("process", "engine"), ("sandbox", "request")]


@pytest.mark.parametrize("level", ["container", "vm"])
async def test_a_missing_level_is_refused_with_those_that_exist(user: httpx2.AsyncClient, level: str) -> None:
    refused = await user.post("/api/jobs/submit", json=a_submission(config={"isolation": level}))
    assert refused.status_code == 422
    [problem] = refused.json()["details"]
    assert problem == {
        "field": "config.isolation",
        "message": f"cannot be {level}: the levels here are process or sandbox.",
    }


async def test_an_agents_missing_level_refuses_its_jobs(user: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    await admin.post("/api/agents", json={"name": "in-a-vm", "defaultIsolation": "vm"})
    refused = await user.post("/api/jobs/submit", json=a_submission(agentRole="in-a-vm"))
    assert (refused.status_code, refused.json()["details"][0]["field"]) == (422, "config.isolation")
    assert refused.json()["details"][0]["message"].startswith("is that of the agent in-a-vm, but cannot be vm: ")


async def test_the_sender_of_an_event_learns_which_agents_level_is_missing(admin: httpx2.AsyncClient) -> None:
    trigger = {"source": "github", "events": ["push"], "config": {"isolation": "vm"}}
    await admin.post("/api/agents", json={"name": "in-a-vm", "eventTriggers": [trigger]})
    event = {"source": "github", "event": "push", "payload": {}}
    refused = await admin.post("/api/events/ingest", json=event)
    assert refused.status_code == 422, refused.text
    assert "is that of a trigger of the agent in-a-vm, but cannot be vm: " in refused.text


async def test_a_network_rule_needs_a_level_that_can_enforce_it(admin: httpx2.AsyncClient) -> None:
    config: dict[str, Any] = {"network": "none", "isolation": "process"}
    refused = await admin.post("/api/jobs/submit", json=a_submission(config=config))
    assert refused.status_code == 422
    [problem] = refused.json()["details"]
    assert problem["field"] == "config.network"
    assert problem["message"].endswith("set config.isolation to sandbox")


async def test_unknown_levels_are_refused(user: httpx2.AsyncClient) -> None:
    refused = await user.post("/api/jobs/submit", json=a_submission(config={"isolation": "jail"}))
    assert refused.status_code == 422
    assert refused.json()["details"] == [
        {"field": "config.isolation", "message": "must be 'process', 'sandbox', 'container' or 'vm'"}
    ]
