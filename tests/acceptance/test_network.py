"""Rules for the network of agents. Where the engine cannot enforce one, it refuses the job."""

import pytest

from tests.acceptance.engine import ENDED, Engine, User, a_submission

RULES = ["none", {"allow": ["npm", "*.example.com"]}]


@pytest.fixture
def enforces_rules(request: pytest.FixtureRequest, engine: Engine) -> bool:
    """Return whether the engine can enforce rules: with bubblewrap, but not with the pods of a cluster."""
    return bool(request.node.callspec.params["engine"] == "local")


@pytest.mark.parametrize("rule", RULES, ids=str)
async def test_job_with_a_rule_runs_where_it_can_be_enforced(user: User, enforces_rules: bool, rule: object) -> None:
    answer = await user.post("/api/jobs/submit", a_submission({"result": "done"}, config={"network": rule}))
    if not enforces_rules:
        assert answer.status_code == 422
        assert answer.json()["details"][0]["field"] == "config.network"
        assert "must be open: jobs on Kubernetes have the network" in answer.json()["error"]
        return
    assert answer.status_code == 201, answer.text
    job = await user.wait(answer.json()["jobId"], *ENDED)
    assert (job["status"], job["config"]["network"], job["refusedHosts"]) == ("completed", rule, [])


async def test_job_with_an_open_network_runs_everywhere(user: User) -> None:
    job = await user.run({"result": "done"}, config={"network": "open"})
    assert (job["status"], job["config"]["network"]) == ("completed", "open")
