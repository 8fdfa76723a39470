"""Rules for the network of agents. tests/chart/test_network.py and tests of the executor try to break them."""

import os
from pathlib import Path
from shutil import which

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import User, a_submission
from tests.acceptance.git_server import make_repository

RULES = ["none", {"allow": ["npm", "*.example.com"]}]


@pytest.mark.parametrize("rule", RULES, ids=str)
async def test_job_with_a_rule_runs(user: User, rule: object) -> None:
    job = await user.run({"result": "done"}, config={"network": rule})
    assert (job["status"], job["config"]["network"], job["refusedHosts"]) == ("completed", rule, [])


async def test_job_on_one_machine_has_the_public_network_by_default(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.user() as user:
        job = await user.run({"result": "done"})
    assert (job["status"], job["config"]["network"]) == ("completed", "public")
    assert job["configOrigins"]["network"] == "built-in"


async def test_job_with_an_open_network_runs(user: User) -> None:
    job = await user.run({"result": "done"}, config={"network": "open"})
    assert (job["status"], job["config"]["network"]) == ("completed", "open")


async def test_refused_host_is_an_event_and_on_the_job(start_engine: EngineFactory, tmp_path: Path) -> None:
    engine = start_engine(LOCAL_REPO_ROOTS=str(tmp_path))
    request = "-c", "import urllib.request; urllib.request.urlopen('http://other.example.net/')"
    setup = {"gitRepo": str(make_repository(tmp_path / "hello")), "setup": [["python3", *request]]}
    async with engine.admin() as admin:
        job = await admin.run({"result": "done"}, config={"network": RULES[1]}, workspaceSetup=setup)
        found = (await admin.get(f"/api/jobs/{job['id']}/events", kind="refused_host")).json()["events"]
    assert (job["failedCode"], job["refusedHosts"]) == ("setup", ["other.example.net:80"])
    [refused] = [event["refusedHost"] for event in found]
    assert (refused["host"], refused["port"]) == ("other.example.net", 80)
    assert "does not allow" in refused["reason"]


async def test_engine_without_bubblewrap_refuses_a_rule(start_engine: EngineFactory, tmp_path: Path) -> None:
    """As on a machine where it is not installed: nothing keeps an agent from the network."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "sh", "cp"):
        os.symlink(which(name) or name, programs / name)
    engine = start_engine(PATH=str(programs))
    async with engine.admin() as admin:
        for rule in [*RULES, "public"]:
            refused = await admin.post("/api/jobs/submit", a_submission(config={"network": rule}))
            assert refused.status_code == 422
            assert "must be open: agents run without a sandbox here" in refused.json()["error"]
        assert (await admin.get("/api/system")).json()["containment"]["network"] == "open"
        done = await admin.run({"result": "done"})
        assert (done["status"], "network" in done["config"]) == ("completed", False)
