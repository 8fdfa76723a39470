"""Secrets: their names, and their values, which are written and never shown."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from labrats.model.core_resources import JOB_CREDENTIALS, TYPE_LABEL, Secret
from labrats.model.record import Metadata, OwnerReference
from labrats.settings import EngineSettings
from tests.api.conftest import Api, api_in_memory


async def test_secrets_are_listed_without_their_values(api: Api, admin: httpx2.AsyncClient) -> None:
    for name, labels in (("plain", {}), ("labelled", JOB_CREDENTIALS)):
        data = {"OPENAI_API_KEY": "test-value", "auth.json": "test-value"}
        await api.store.create(Secret(metadata=Metadata(name=name, labels=dict(labels)), data=data))

    answer = await admin.get("/api/secrets")

    keys = ["OPENAI_API_KEY", "auth.json"]
    assert answer.json() == {
        "secrets": [
            {"name": "labelled", "keys": keys, "problem": None},
            {"name": "plain", "keys": keys, "problem": None},
        ]
    }
    assert "test-value" not in answer.text


VALUE = "test-value-that-nobody-may-see"
SECURE = "https://engine.test/api/secrets"


async def put(admin: httpx2.AsyncClient, name: str, **values: str) -> httpx2.Response:
    return await admin.put(f"{SECURE}/{name}", json={"values": values})


async def test_secret_is_created_and_its_keys_are_merged_and_never_answered(
    api: Api, admin: httpx2.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    created = await put(admin, "anthropic", ANTHROPIC_API_KEY="old", OTHER=VALUE)
    changed = await put(admin, "anthropic", ANTHROPIC_API_KEY=VALUE)

    keys = ["ANTHROPIC_API_KEY", "OTHER"]
    assert (created.status_code, changed.status_code) == (200, 200)
    assert changed.json() == {"name": "anthropic", "keys": keys, "problem": None}
    stored = await api.store.get(Secret, "anthropic")
    assert stored.data == {"ANTHROPIC_API_KEY": VALUE, "OTHER": VALUE}
    assert JOB_CREDENTIALS.items() <= stored.metadata.labels.items()
    output = capfd.readouterr()
    assert VALUE not in changed.text + output.out + output.err


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"values": {}}, 422),
        ({"values": {"a key": VALUE}}, 422),
        ({"values": {"KEY": ""}}, 422),
        ({"values": {"KEY": [VALUE]}}, 422),
        ({"values": {"KEY": VALUE * 40_000}}, 422),
        ({"values": {f"KEY{n}": "x" * 400_000 for n in range(3)}}, 413),
    ],
)
async def test_invalid_values_are_refused_and_not_repeated(
    admin: httpx2.AsyncClient, body: dict[str, Any], status: int
) -> None:
    answer = await admin.put(f"{SECURE}/anthropic", json=body)
    assert answer.status_code == status, answer.text
    assert VALUE not in answer.text


async def test_secrets_are_written_by_administrators_over_tls_or_loopback_only(
    api: Api, admin: httpx2.AsyncClient, user: httpx2.AsyncClient
) -> None:
    body = {"values": {"KEY": VALUE}}

    by_user = await user.put(f"{SECURE}/anthropic", json=body)
    plain = await admin.put("/api/secrets/anthropic", json=body)
    local = await admin.put("http://localhost:3001/api/secrets/anthropic", json=body)
    async with api.browser() as browser:
        signed_in = await browser.put(f"{SECURE}/anthropic", json=body)
        foreign = await browser.put(f"{SECURE}/anthropic", json=body, headers={"Sec-Fetch-Site": "cross-site"})

    assert (by_user.status_code, foreign.status_code) == (403, 403)
    assert (plain.status_code, plain.json()["code"]) == (400, "tls_required")
    assert (local.status_code, signed_in.status_code) == (200, 200)


@pytest.mark.parametrize(
    "metadata",
    [
        Metadata(name="taken", labels={TYPE_LABEL: "ai-api-key"}),
        Metadata(name="taken", labels=dict(JOB_CREDENTIALS), owner=OwnerReference(kind="Job", name="ir-1", uid="1")),
    ],
    ids=["engine's", "job's"],
)
async def test_secrets_of_the_engine_and_of_jobs_are_refused(
    api: Api, admin: httpx2.AsyncClient, metadata: Metadata
) -> None:
    await api.store.create(Secret(metadata=metadata, data={"key": "before"}))

    answers = [await put(admin, "taken", key=VALUE), await admin.delete(f"{SECURE}/taken")]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert (await api.store.get(Secret, "taken")).data == {"key": "before"}


async def test_secret_is_deleted_once_nothing_names_it(admin: httpx2.AsyncClient) -> None:
    await put(admin, "tools", TOKEN=VALUE)
    model = {"name": "m", "provider": "mock", "model": "m", "slots": 1, "credentialsRef": "tools"}
    agent = {"name": "a", "env": {"TOKEN": {"secret": "tools", "key": "TOKEN"}}}
    for plural, resource in (("ai-models", model), ("agents", agent)):
        assert (await admin.post(f"/api/{plural}", json=resource)).status_code == 201

    used = await admin.delete(f"{SECURE}/tools")
    for path in ("/api/ai-models/m", "/api/agents/a"):
        await admin.delete(path)
    gone = await admin.delete(f"{SECURE}/tools")
    unknown = await admin.delete(f"{SECURE}/tools")

    assert (used.status_code, gone.status_code, unknown.status_code) == (409, 204, 404)
    assert "the model m, the agent a" in used.json()["error"]


async def test_secrets_are_not_written_on_a_cluster_unless_the_chart_says_so(tmp_path: Path) -> None:
    async with api_in_memory(tmp_path, write_secrets=False) as api, api.client("admin") as admin:
        answer = await put(admin, "anthropic", KEY=VALUE)
        assert (answer.status_code, answer.json()["code"]) == (400, "secrets_not_written_here")
    assert not EngineSettings(backend="kubernetes").writes_secrets
    assert EngineSettings(backend="kubernetes", write_secrets=True).writes_secrets
