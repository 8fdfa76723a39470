"""A job with an `agentRole` gets the instructions and defaults of the agent."""

from typing import Any

import httpx2

from labrats.model.core_resources import ConfigMap
from labrats.model.instruction import Scope
from labrats.model.job import Job
from tests.api.conftest import Api, a_submission
from tests.support.builders import an_agent, an_instruction


async def stored(api: Api, *resources: Any) -> None:
    """Store `resources`, and add them to the catalog."""
    for resource in resources:
        api.services.catalog.put(await api.store.create(resource))


async def submit(user: httpx2.AsyncClient, **fields: Any) -> str:
    answer = await user.post("/api/jobs/submit", json=a_submission(**fields))
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["jobId"]
    return job_id


async def texts_of(api: Api, job_id: str) -> dict[str, str]:
    return (await api.store.get(ConfigMap, f"{job_id}-prompt")).data


async def test_a_job_gets_the_instructions_and_defaults_of_its_agent(api: Api, user: httpx2.AsyncClient) -> None:
    agent = an_agent(
        "developer-1",
        trigger_name="developer",
        default_provider="mock",
        default_model="tiny",
        default_effort="high",
        instructions=("own",),
    )
    await stored(api, agent, an_instruction("all", "Be kind.", scope=Scope.GLOBAL), an_instruction("own", "Be brief."))

    job_id = await submit(user, agentRole="developer", config={"effort": "low"})

    detail = (await user.get(f"/api/jobs/{job_id}")).json()
    assert detail["agentRole"] == "developer"
    assert (detail["config"]["model"], detail["configOrigins"]["model"]) == ("tiny", "agent")
    assert (detail["config"]["effort"], detail["configOrigins"]["effort"]) == ("low", "request")
    assert await texts_of(api, job_id) == {"prompt": "Review the change.", "instructions": "Be kind.\n\nBe brief."}


async def test_an_unknown_agent_is_refused(api: Api, user: httpx2.AsyncClient) -> None:
    answer = await user.post("/api/jobs/submit", json=a_submission(agentRole="nobody"))
    assert answer.status_code == 422
    assert answer.json()["details"] == [{"field": "agentRole", "message": "no agent has the `triggerName` 'nobody'"}]
    assert await api.store.list(Job) == []


async def test_a_disabled_agent_is_refused(api: Api, user: httpx2.AsyncClient) -> None:
    await stored(api, an_agent(enabled=False))
    answer = await user.post("/api/jobs/submit", json=a_submission(agentRole="ai-developer"))
    assert answer.status_code == 422
    assert "disabled" in answer.json()["error"]


async def test_a_mock_script_is_validated_where_the_agent_sets_the_provider(api: Api, user: httpx2.AsyncClient) -> None:
    await stored(api, an_agent(default_provider="mock"))
    body = a_submission(agentRole="ai-developer", config={}, metadata={"mock": {"steps": [{"jump": 1}]}})
    answer = await user.post("/api/jobs/submit", json=body)
    assert answer.status_code == 422, answer.text


async def test_the_prompt_of_an_error_report_contains_its_errors(api: Api, user: httpx2.AsyncClient) -> None:
    errors = [{"message": "boom", "count": 3, "firstSeen": "2030-01-01T00:00:00Z", "context": {"id": 1}}]
    body = a_submission(type="error-reporting", errors=errors)
    del body["prompt"]

    answer = await user.post("/api/jobs/submit", json=body)

    assert answer.status_code == 201, answer.text
    prompt = (await texts_of(api, answer.json()["jobId"]))["prompt"]
    assert "Find the cause of the errors" in prompt
    assert '"firstSeen": "2030-01-01T00:00:00Z"' in prompt
