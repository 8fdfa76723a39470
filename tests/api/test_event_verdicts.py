"""Tests of events: verdicts on triggers, and previews of the jobs that would start."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from labrats.model.agent import ChainLink
from labrats.model.concurrency import Concurrency
from labrats.model.config import KEYS_OF_MODELS
from labrats.model.core_resources import ConfigMap
from labrats.model.job import Job
from tests.api.conftest import Api
from tests.api.test_agent_roles import stored
from tests.api.test_ingest import EVENT, PAYLOAD
from tests.support.builders import a_trigger, an_agent, an_ai_model
from tests.support.deliveries import SECRET


async def tested(admin: httpx2.AsyncClient, **fields: Any) -> Any:
    answer = await admin.post("/api/events/test", json=EVENT | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_first_reason_against_each_trigger_is_named(api: Api, admin: httpx2.AsyncClient) -> None:
    await stored(
        api,
        an_agent(
            "a",
            a_trigger(source="gitlab"),
            a_trigger("issues.opened"),
            a_trigger(filters={"label.name": ["bug", "urgent"], "issue.number": 8}),
            a_trigger(filters={"issue.labels": "x"}),
            a_trigger(enabled=False),
            a_trigger("issues.*"),
            a_trigger(),
        ),
        an_agent("off", a_trigger(), enabled=False),
    )

    answer = await tested(admin)

    on, off = answer["agents"]
    assert [each["mismatch"] for each in on["triggers"]] == [
        "source", "event", "filter", "filter", "trigger_disabled", None, "earlier_trigger",
    ]  # fmt: skip
    failed = {"path": "label.name", "wanted": ["bug", "urgent"], "found": ["ai"]}
    assert on["triggers"][2]["failedFilter"] == failed
    assert on["triggers"][3]["failedFilter"]["found"] == []
    assert (on["starts"], off["starts"], off["triggers"][0]["mismatch"]) == (True, False, "agent_disabled")
    assert answer["matched"] == 1


async def test_preview_shows_the_job_and_nothing_is_created(api: Api, admin: httpx2.AsyncClient) -> None:
    link, key = ChainLink(agent_trigger_name="reviewer"), Concurrency(key="{{ repo }}#{{ number }}")
    await stored(api, an_agent("a", a_trigger(instruction="Fix it.", next=link, concurrency=key)), an_agent("reviewer"))

    [agent] = (await tested(admin, agent="a"))["agents"]

    job = agent["job"]
    assert job["workspaceSetup"] == {
        "gitRepo": "https://1.1.1.1/octo/demo.git", "gitRef": "main", "gitDepth": None, "hasCredential": False,
    }  # fmt: skip
    assert "Fix it." in job["prompt"]
    assert "It crashes {{ source }}" in job["prompt"]
    assert job["chainNext"] == {"agent": "reviewer", "condition": "on-success"}
    assert job["concurrency"] == {"key": "octo/demo#7", "onNew": "queue", "debounceSeconds": 0}
    assert job["configOrigins"]["provider"] == "built-in"
    assert await api.store.list(Job) == []
    assert await api.store.list(ConfigMap) == []


async def test_job_that_would_be_refused_tells_why(api: Api, admin: httpx2.AsyncClient) -> None:
    await stored(api, an_agent("a", a_trigger()))
    repository = PAYLOAD["repository"] | {"clone_url": "https://127.0.0.1/octo/demo.git"}

    [agent] = (await tested(admin, payload=PAYLOAD | {"repository": repository}))["agents"]

    assert (agent["starts"], agent["job"]) == (False, None)
    assert "payload.repository.clone_url" in agent["refused"]


async def test_conditions_of_a_webhook_source_apply(api: Api, admin: httpx2.AsyncClient) -> None:
    source = {"name": "hub", "type": "github", "secret": SECRET, "defaults": {"model": "opus"}}
    assert (await admin.post("/api/webhook-sources", json=source)).status_code == 201
    await stored(api, an_agent("a", a_trigger()))
    trusted = PAYLOAD | {"issue": PAYLOAD["issue"] | {"author_association": "OWNER"}}

    [agent] = (await tested(admin, webhookSource="hub", payload=trusted))["agents"]
    assert (agent["job"]["config"]["model"], agent["job"]["configOrigins"]["model"]) == ("opus", "webhook-source")
    stranger = PAYLOAD | {"issue": PAYLOAD["issue"] | {"author_association": "NONE"}}
    ignored = await tested(admin, webhookSource="hub", payload=stranger, event="issues.opened")
    assert ignored["matched"] == 0


COMMENTED: dict[str, Any] = PAYLOAD | {
    "action": "created",
    "issue": PAYLOAD["issue"] | {"html_url": "https://github.com/octo/demo/issues/7"},
    "comment": {"id": 5, "body": "/labrats run a model=opus", "user": {"id": 1}, "author_association": "OWNER"},
    "sender": {"id": 1, "type": "User"},
}


@pytest.mark.parametrize(
    ("comment", "ignored", "requests"),
    [
        ({}, None, [{"action": "run", "agent": "a", "model": "opus", "answer": None}]),
        ({"body": "Please have a look."}, None, []),
        ({"author_association": "NONE"}, "its author is not one of `allowedAssociations`", []),
    ],
)
async def test_a_command_in_a_comment_is_shown_and_starts_no_agent_by_a_trigger(
    api: Api, admin: httpx2.AsyncClient, comment: dict[str, Any], ignored: str | None, requests: list[Any]
) -> None:
    source = {"name": "hub", "type": "github", "secret": SECRET, "credentialsRef": "app"}
    assert (await admin.post("/api/webhook-sources", json=source)).status_code == 201
    await stored(api, an_agent("a", a_trigger("issue_comment.created")))
    payload = COMMENTED | {"comment": COMMENTED["comment"] | comment}

    answer = await tested(admin, webhookSource="hub", event="issue_comment.created", payload=payload)

    assert (answer["ignored"], answer["requests"]) == (ignored, requests)
    assert answer["matched"] == (1 if not ignored and not requests else 0)


async def test_a_wrong_command_is_shown_with_its_answer(api: Api, admin: httpx2.AsyncClient) -> None:
    source = {"name": "hub", "type": "github", "secret": SECRET, "credentialsRef": "app"}
    assert (await admin.post("/api/webhook-sources", json=source)).status_code == 201
    payload = COMMENTED | {"comment": COMMENTED["comment"] | {"body": "/labrats stop"}}

    answer = await tested(admin, webhookSource="hub", event="issue_comment.created", payload=payload)

    [request] = answer["requests"]
    assert request["action"] == "help"
    assert request["answer"].startswith("`stop` is no command.")


@pytest.mark.parametrize(
    ("fields", "status"), [({"agent": "nobody"}, 404), ({"webhookSource": "none"}, 422), ({"event": ""}, 422)]
)
async def test_unknown_names_are_refused(admin: httpx2.AsyncClient, fields: dict[str, Any], status: int) -> None:
    assert (await admin.post("/api/events/test", json=EVENT | fields)).status_code == status


async def test_preview_names_what_the_provider_of_the_job_lacks(
    api: Api, admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in KEYS_OF_MODELS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    await stored(api, *(an_agent(name, a_trigger(), default_provider=name) for name in ("claude", "mock", "qwen")))

    async def failures() -> dict[str, Any]:
        return {each["agent"]: each["job"]["failure"] for each in (await tested(admin))["agents"]}

    found = await failures()
    assert found["claude"] == "Claude Code is not installed: `npm install -g @anthropic-ai/claude-code`"
    assert found["qwen"].startswith("no AiModel names the server of its model: `labrats connect local ")
    assert found["mock"] is None

    (tmp_path / "claude").write_text("#!/bin/sh\n")
    (tmp_path / "claude").chmod(0o755)
    assert (await failures())["claude"].startswith("no credentials are stored: `labrats connect claude`")

    model = (await tested(admin, agent="claude"))["agents"][0]["job"]["config"]["model"]
    other = an_ai_model("other", provider="claude", model="another-model", endpoint="https://models.example.com")
    await api.store.create(other)
    assert (await failures())["claude"].startswith("no credentials are stored")
    await api.store.create(
        an_ai_model("its-own", provider="claude", model=model, endpoint="https://models.example.com")
    )
    assert (await failures())["claude"] is None
