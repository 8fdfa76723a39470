"""Rules for the network in the settings of a job, its agent and the engine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from labrats.compose import create_services
from labrats.intake.request import JobRequest
from labrats.model.agent import AiAgent, AiAgentSpec
from labrats.model.config import JobConfig
from labrats.model.errors import Invalid
from labrats.model.isolation import Isolation
from labrats.model.network import AllowedHosts
from labrats.model.record import Metadata
from labrats.settings import EngineSettings
from tests.api.conftest import Api, a_submission, api_in_memory

HOSTS = {"allow": ["npm", "*.example.com"]}


async def test_an_agents_rule_applies_to_jobs_that_set_none(
    user: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    agent = {"name": "restricted", "defaultProvider": "mock", "defaultNetwork": HOSTS}
    created = await admin.post("/api/agents", json=agent)
    inherited = await user.post("/api/jobs/submit", json=a_submission(agentRole="restricted"))
    own = await user.post("/api/jobs/submit", json=a_submission(agentRole="restricted", config={"network": "none"}))

    assert created.json()["defaultNetwork"] == HOSTS
    detail = (await user.get(f"/api/jobs/{inherited.json()['jobId']}")).json()
    assert (detail["config"]["network"], detail["configOrigins"]["network"]) == (HOSTS, "agent")
    assert detail["refusedHosts"] == []
    detail = (await user.get(f"/api/jobs/{own.json()['jobId']}")).json()
    assert (detail["config"]["network"], detail["configOrigins"]["network"]) == ("none", "request")


async def test_a_patch_replaces_and_removes_an_agents_rule(admin: httpx2.AsyncClient) -> None:
    await admin.post("/api/agents", json={"name": "changing-rule", "defaultNetwork": "none"})
    replaced = await admin.patch("/api/agents/changing-rule", json={"defaultNetwork": HOSTS})
    removed = await admin.patch("/api/agents/changing-rule", json={"defaultNetwork": None})
    assert replaced.json()["defaultNetwork"] == HOSTS
    assert "defaultNetwork" not in removed.json()


async def test_a_triggers_rule_is_shown_with_its_config(admin: httpx2.AsyncClient) -> None:
    trigger = {"source": "github", "events": ["push"], "config": {"network": HOSTS}}
    created = await admin.post("/api/agents", json={"name": "with-trigger", "eventTriggers": [trigger]})
    assert created.json()["eventTriggers"][0]["config"] == {"network": HOSTS}


async def test_an_agents_rule_of_an_earlier_version_still_applies(api: Api, user: httpx2.AsyncClient) -> None:
    """Rules that are written now need a domain or a port."""
    spec = AiAgentSpec(
        trigger_name="earlier", default_provider="mock", default_network=AllowedHosts(allow=("intranet",))
    )
    services = api.services
    services.catalog.put(await services.store.create(AiAgent(metadata=Metadata(name="earlier"), spec=spec)))
    first = await user.post("/api/jobs/submit", json=a_submission(agentRole="earlier"))
    again = await user.post(f"/api/jobs/{first.json()['jobId']}/rerun")
    for answer in (first, again):
        assert answer.status_code == 201, answer.text
        detail = (await user.get(f"/api/jobs/{answer.json()['jobId']}")).json()
        assert detail["config"]["network"] == {"allow": ["intranet"]}


async def test_the_engines_own_rule_is_the_weakest(tmp_path: Path) -> None:
    async with api_in_memory(tmp_path, network="pypi") as api, api.client() as user:
        inherited = await user.post("/api/jobs/submit", json=a_submission())
        own = await user.post("/api/jobs/submit", json=a_submission(config={"network": "open"}))
        details = [(await user.get(f"/api/jobs/{each.json()['jobId']}")).json() for each in (inherited, own)]

    rules = [(detail["config"]["network"], detail["configOrigins"]["network"]) for detail in details]
    assert rules == [({"allow": ["pypi"]}, "engine"), ("open", "request")]


async def test_a_job_whose_rule_cannot_be_enforced_is_refused(
    api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.services.admission, "_network_problem", lambda _: "must be open: there is no sandbox")
    refused = await user.post("/api/jobs/submit", json=a_submission(config={"network": "none"}))
    accepted = await user.post("/api/jobs/submit", json=a_submission(config={"network": "open"}))
    assert (refused.status_code, accepted.status_code) == (422, 201)
    [problem] = refused.json()["details"]
    assert problem == {"field": "config.network", "message": "must be open: there is no sandbox"}


async def test_a_refusal_names_the_setting_that_has_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_in_memory(tmp_path, network="none") as api, api.client() as user:
        monkeypatch.setattr(api.services.admission, "_network_problem", lambda _: "must be open: there is no sandbox")
        refused = await user.post("/api/jobs/submit", json=a_submission())
    [problem] = refused.json()["details"]
    assert problem == {
        "field": "config.network",
        "message": "is that of LABRATS_NETWORK, but must be open: there is no sandbox",
    }


async def test_start_warns_of_settings_with_which_jobs_are_refused(tmp_path: Path, api: Api) -> None:
    services = api.services
    settings = EngineSettings(
        data_dir=tmp_path, role="api", isolation=Isolation.PROCESS, network="none", untrusted_isolation=Isolation.VM
    )
    services.runner.isolation = replace(services.runner.isolation, default=Isolation.PROCESS)  # type: ignore[misc]
    with capture_logs() as logs:
        await create_services(settings, services.store, services.runner, services.metrics)
    reasons = {entry["setting"]: entry["reason"] for entry in logs if entry["event"] == "setting not met"}
    assert reasons == {
        "LABRATS_UNTRUSTED_ISOLATION": "cannot be vm: the levels here are process or sandbox.",
        "LABRATS_NETWORK": "must be open: agents have no sandbox by default; set LABRATS_ISOLATION=sandbox",
    }


@pytest.mark.parametrize(("network", "untrusted"), [("open", True), (None, True), ("none", True), ("open", False)])
async def test_external_contributors_job_needs_a_rule_where_nothing_confines_an_open_network(
    api: Api, monkeypatch: pytest.MonkeyPatch, network: str | None, untrusted: bool
) -> None:
    admission = api.services.admission
    monkeypatch.setattr(admission, "_untrusted_network_problem", lambda: "must not be open: no policies")
    config = JobConfig(provider="mock", network=network)
    request = JobRequest(source="manual", type="a", prompt="Hi", owner="key-1", config=config, untrusted=untrusted)
    if untrusted and network != "none":
        with pytest.raises(Invalid, match=r"config\.network: must not be open: no policies"):
            await admission.preview(request)
    else:
        assert (await admission.preview(request)).request is request


@pytest.mark.parametrize(
    ("network", "field", "message"),
    [
        ("closed", "config.network", "must be 'open', 'public', 'none' or {\"allow\": [hosts]}"),
        ({"allow": []}, "config.network.allow", "must have at least 1 item"),
        ({"allow": ["https://pypi.org"]}, "config.network", "cannot allow 'https://pypi.org': it is a URL; name only"),
        ({"allow": ["*.com"]}, "config.network", "a whole top-level domain is too much"),
        ({"allow": ["nmp"]}, "config.network", "neither a preset (npm, pypi, go, crates, debian, github) nor a host"),
        ({"allow": ["open", "npm"]}, "config.network", "cannot allow 'open' in a list"),
        ({"allow": "npm"}, "config.network.allow", "must be a"),
        ({"deny": ["npm"]}, "config.network.allow", "is required"),
        (["npm"], "config.network", "must be 'open', 'public', 'none' or {\"allow\": [hosts]}"),
        (True, "config.network", "must be 'open', 'public', 'none' or {\"allow\": [hosts]}"),
    ],
)
async def test_invalid_rules_are_explained(user: httpx2.AsyncClient, network: Any, field: str, message: str) -> None:
    answer = await user.post("/api/jobs/submit", json=a_submission(config={"network": network}))
    assert answer.status_code == 422
    problem = answer.json()["details"][0]
    assert problem["field"] == field
    assert message in problem["message"]
