"""A value that another resource has is refused with the field that has it, and a sentence for people."""

from typing import Any

import httpx2
import pytest

from tests.support.deliveries import SECRET

MODEL = {"provider": "vllm", "model": "any", "slots": 1, "endpoint": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("agents", {}, "there is already an agent 'first'"),
        ("instructions", {"content": "Be brief."}, "there is already an instruction 'first'"),
        ("ai-models", MODEL, "there is already a model 'first'"),
        ("webhook-sources", {"type": "github", "secret": SECRET}, "there is already a webhook source 'first'"),
        ("api-keys", {}, "there is already a key named 'first'"),
    ],
)
async def test_taken_name_is_refused_at_its_field(
    admin: httpx2.AsyncClient, path: str, body: dict[str, Any], sentence: str
) -> None:
    answers = [await admin.post(f"/api/{path}", json={"name": "first"} | body) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 409]
    details = [{"field": "name", "message": sentence}]
    assert answers[1].json() == {"error": sentence, "code": "conflict", "details": details}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [("agents", {"triggerName": "same"}, "triggerName"), ("ai-models", MODEL, "model")],
)
async def test_other_taken_value_is_refused_at_its_field(
    admin: httpx2.AsyncClient, path: str, body: dict[str, Any], field: str
) -> None:
    answers = [await admin.post(f"/api/{path}", json={"name": name} | body) for name in ("first", "second")]

    assert [answer.status_code for answer in answers] == [201, 409]
    assert [detail["field"] for detail in answers[1].json()["details"]] == [field]


async def test_stale_version_names_no_field(admin: httpx2.AsyncClient) -> None:
    created = (await admin.post("/api/agents", json={"name": "first"})).json()
    patch = {"resourceVersion": created["resourceVersion"], "enabled": False}
    answers = [await admin.patch("/api/agents/first", json=patch) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 409]
    assert "details" not in answers[1].json()
