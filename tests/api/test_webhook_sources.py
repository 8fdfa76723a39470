"""The API of webhook sources, whose secrets are stored but never shown."""

from typing import Any, Final

import httpx2
import pytest

from labrats.model.core_resources import Secret
from labrats.model.errors import NotFound
from tests.api.conftest import Api

SECRET = "test-secret-of-a-webhook"
SOURCE: dict[str, Any] = {"name": "github", "type": "github", "secret": SECRET}


async def test_a_created_source_has_defaults_and_a_url(admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("/api/webhook-sources", json=SOURCE)
    assert answer.status_code == 201, answer.text
    created = answer.json()
    assert created.pop("resourceVersion")
    assert created == {
        "id": "github",
        "name": "github",
        "type": "github",
        "enabled": True,
        "secretRef": {"name": "github.webhook-secret", "key": "secret"},
        "host": None,
        "path": None,
        "ingressClassName": None,
        "tlsSecretName": None,
        "defaults": {},
        "repoOverrides": {},
        "allowedAssociations": ["OWNER", "MEMBER", "COLLABORATOR"],
        "allowForks": False,
        "credentialsRef": None,
        "url": "http://engine.test/webhooks/github",
        "conditions": [],
        "lastDeliveryAt": None,
        "deliveries": 0,
        "refusedDeliveries": 0,
        "mode": "webhook",
        "repositories": [],
        "lastPolledAt": None,
        "nextPollAt": None,
        "rateRemaining": None,
    }


POLLING: Final[dict[str, Any]] = {
    "name": "github",
    "type": "github",
    "mode": "poll",
    "repositories": ["octo/demo"],
    "credentialsRef": "app",
}


async def test_a_source_that_polls_needs_no_secret_and_has_no_url(admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("/api/webhook-sources", json=POLLING)
    assert answer.status_code == 201, answer.text
    created = answer.json()
    assert (created["mode"], created["repositories"]) == ("poll", ["octo/demo"])
    assert (created["secretRef"], created["url"]) == (None, None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "generic"}, "type"),
        ({"credentialsRef": None}, "credentialsRef"),
        ({"repositories": []}, "repositories"),
    ],
)
async def test_a_source_that_polls_needs_credentials_and_repositories(
    admin: httpx2.AsyncClient, change: dict[str, Any], field: str
) -> None:
    refused = await admin.post("/api/webhook-sources", json=POLLING | change)
    assert (refused.status_code, [each["field"] for each in refused.json()["details"]]) == (422, [field])
    await admin.post("/api/webhook-sources", json=POLLING)
    assert (await admin.patch("/api/webhook-sources/github", json=change)).status_code == 422
    assert (await admin.get("/api/webhook-sources/github")).json()["id"] == "github"
    assert [each["id"] for each in (await admin.get("/api/webhook-sources")).json()["webhookSources"]] == ["github"]


async def test_the_secret_of_a_source_is_stored_in_its_own_secret_and_deleted_with_it(
    api: Api, admin: httpx2.AsyncClient
) -> None:
    created = await admin.post("/api/webhook-sources", json=SOURCE)
    changed = await admin.patch("/api/webhook-sources/github", json={"secret": f"{SECRET}-2"})
    assert all(SECRET not in answer.text for answer in (created, changed))
    stored = await api.store.get(Secret, "github.webhook-secret")
    assert stored.data == {"secret": f"{SECRET}-2"}

    assert (await admin.delete("/api/webhook-sources/github")).status_code == 204

    with pytest.raises(NotFound):
        await api.store.get(Secret, "github.webhook-secret")
    assert (await admin.get("/api/webhook-sources/github")).status_code == 404


async def test_a_change_of_a_stale_version_keeps_the_secret(api: Api, admin: httpx2.AsyncClient) -> None:
    created = (await admin.post("/api/webhook-sources", json=SOURCE)).json()
    await admin.patch("/api/webhook-sources/github", json={"allowForks": True})

    stale = {"secret": f"{SECRET}-2", "resourceVersion": created["resourceVersion"]}
    assert (await admin.patch("/api/webhook-sources/github", json=stale)).status_code == 409

    assert (await api.store.get(Secret, "github.webhook-secret")).data == {"secret": SECRET}


async def test_a_source_with_a_secret_ref_may_get_its_own_secret(api: Api, admin: httpx2.AsyncClient) -> None:
    reference = {"name": "shared", "key": "github"}
    created = await admin.post("/api/webhook-sources", json={"name": "g", "type": "github", "secretRef": reference})
    assert created.json()["secretRef"] == reference
    changed = await admin.patch("/api/webhook-sources/g", json={"secret": SECRET})
    assert changed.json()["secretRef"] == {"name": "g.webhook-secret", "key": "secret"}
    await admin.delete("/api/webhook-sources/g")
    assert "g.webhook-secret" not in {secret.name for secret in await api.store.list(Secret)}


async def test_a_patch_changes_only_the_sent_fields(admin: httpx2.AsyncClient) -> None:
    await admin.post("/api/webhook-sources", json=SOURCE | {"host": "hooks.example.com"})
    changes = {
        "host": None,
        "defaults": {"model": "opus", "maxTurns": 3},
        "repoOverrides": {"octo/demo": {"model": "haiku", "agentTriggerName": "ai-developer"}},
        "allowedAssociations": ["OWNER"],
    }
    changed = (await admin.patch("/api/webhook-sources/github", json=changes)).json()
    unset = {"effort": None, "provider": None, "enabled": True}
    overrides = {"octo/demo": unset | {"model": "haiku", "agentTriggerName": "ai-developer"}}
    assert {key: changed[key] for key in changes} == changes | {"repoOverrides": overrides}
    assert changed["type"] == "github"

    stale = {"enabled": False, "resourceVersion": "1"}
    assert (await admin.patch("/api/webhook-sources/github", json=stale)).status_code == 409


async def test_a_repeated_idempotency_key_creates_one_source(admin: httpx2.AsyncClient) -> None:
    for _ in range(2):
        answer = await admin.post("/api/webhook-sources", json=SOURCE, headers={"Idempotency-Key": "key-1"})
        assert answer.status_code == 201
    assert (await admin.post("/api/webhook-sources", json=SOURCE)).status_code == 409


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"secret": None}, "secret"),
        ({"secretRef": {"name": "a", "key": "b"}}, "secretRef"),
        ({"secret": ""}, "secret"),
        ({"type": "gitlab"}, "type"),
        ({"name": "a" * 41}, "name"),
        ({"host": "no host"}, "host"),
        ({"path": "webhooks"}, "path"),
        ({"allowedAssociations": ["EVERYBODY"]}, "allowedAssociations[0]"),
        ({"repoOverrides": {"octo": {}}}, "repoOverrides.octo"),
        ({"defaults": {"model": ""}}, "defaults.model"),
    ],
)
async def test_an_invalid_field_is_named_in_the_error(
    admin: httpx2.AsyncClient, fields: dict[str, Any], field: str
) -> None:
    answer = await admin.post("/api/webhook-sources", json=SOURCE | fields)
    assert answer.status_code == 422, answer.text
    assert [detail["field"] for detail in answer.json()["details"]] == [field]
