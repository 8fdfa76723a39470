"""Rules for the network of agents. tests/chart/test_network.py and tests of the executor try to break them."""

import pytest

from tests.acceptance.engine import User

RULES = ["none", {"allow": ["npm", "*.example.com"]}]


@pytest.mark.parametrize("rule", RULES, ids=str)
async def test_job_with_a_rule_runs(user: User, rule: object) -> None:
    job = await user.run({"result": "done"}, config={"network": rule})
    assert (job["status"], job["config"]["network"], job["refusedHosts"]) == ("completed", rule, [])


async def test_job_with_an_open_network_runs(user: User) -> None:
    job = await user.run({"result": "done"}, config={"network": "open"})
    assert (job["status"], job["config"]["network"]) == ("completed", "open")
