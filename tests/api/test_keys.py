"""API keys in Secrets, including Secrets that were applied with kubectl."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from msgspec.structs import replace

from labrats.api.auth.keys import (
    LAST_APPLIED,
    MAX_SILENCE_SECONDS,
    PROBLEM_ANNOTATION,
    ApiKeyIndex,
    derived_key,
    key_secret,
    new_key,
)
from labrats.model.api_key import hash_key
from labrats.model.core_resources import API_KEY_LABEL, API_KEY_LABEL_VALUE, Secret
from labrats.model.errors import Invalid, Problem
from labrats.model.job import Job
from labrats.model.record import Metadata, Resource
from labrats.ports import Change
from tests.api.conftest import Api, a_submission, api_in_memory
from tests.fakes.clock import NOON
from tests.fakes.store import MemoryStore
from tests.support.waiting import eventually

R = TypeVar("R", bound=Resource)

KEY = "test-key-that-was-applied-to-the-cluster"


def applied(name: str = "applied", *, label: str | None = API_KEY_LABEL_VALUE, **data: Any) -> Secret:
    labels = {API_KEY_LABEL: label} if label else {}
    return Secret(metadata=Metadata(name=name, labels=labels), data=data)


def annotations(api: Api, name: str = "applied") -> dict[str, str]:
    """Return the annotations of a stored Secret, without a call that takes time."""
    secret: Secret = api.store._resources[Secret.kind(), name]
    return secret.metadata.annotations


def is_known(api: Api, key: str = KEY) -> bool:
    return api.services.api_keys.caller(key, api.clock.now()) is not None


async def test_the_newest_key_is_listed_first(api: Api, admin: httpx2.AsyncClient) -> None:
    for name in ("first", "second", "third"):
        api.clock.step(1)
        assert (await admin.post("/api/api-keys", json={"name": name})).status_code == 201

    listed = [key["name"] for key in (await admin.get("/api/api-keys")).json()["apiKeys"]]

    assert listed[:3] == ["third", "second", "first"]


async def test_an_applied_secret_with_a_hash_is_a_key(api: Api) -> None:
    await api.store.create(applied(hash=hash_key(KEY)))

    await eventually(lambda: is_known(api))
    caller = api.services.api_keys.caller(KEY, NOON)
    assert caller is not None
    assert (caller.id, caller.scopes, caller.is_admin) == ("applied", frozenset({"submit"}), False)


async def test_an_applied_plain_key_works_and_is_replaced_by_its_hash(api: Api) -> None:
    await api.store.create(applied(key=f"{KEY}\n", scopes="admin"))

    await eventually(lambda: is_known(api))
    stored = await api.store.get(Secret, "applied")
    assert stored.data == {"hash": hash_key(KEY), "prefix": KEY[:8], "scopes": "admin"}
    assert is_known(api)


async def test_a_key_is_refused_when_the_watch_is_silent_for_too_long(tmp_path: Path) -> None:
    class SilentStore(MemoryStore):
        silence = MAX_SILENCE_SECONDS

        def silent_seconds(self, kind: type[Resource]) -> float:
            return self.silence

    async with api_in_memory(tmp_path, make_store=SilentStore) as api, api.client() as user:
        assert (await user.get("/api/jobs")).status_code == 200
        api.store.silence += 1  # type: ignore[attr-defined]
        assert (await user.get("/api/jobs")).status_code == 503
        assert 'silence_seconds{watch="keys"} 31.0' in (await user.get("/metrics")).text


async def test_creation_and_revocation_take_effect_before_the_response_with_a_slow_watch(tmp_path: Path) -> None:
    class SlowStore(MemoryStore):
        async def watch(
            self, kind: type[R], *, after: int = 0, unsettled_only: bool = False
        ) -> AsyncIterator[Change[R]]:
            async for change in super().watch(kind, after=after, unsettled_only=unsettled_only):
                if kind is Secret:
                    await asyncio.sleep(0.05)
                yield change

    async with api_in_memory(tmp_path, make_store=SlowStore) as api, api.client("admin") as admin:
        created = (await admin.post("/api/api-keys", json={"name": "new", "scopes": ["submit"]})).json()
        assert is_known(api, created["key"])
        await admin.delete(f"/api/api-keys/{created['id']}")
        assert not is_known(api, created["key"])


async def test_a_job_names_the_secret_of_its_callers_key(api: Api, user: httpx2.AsyncClient) -> None:
    await user.post("/api/jobs/submit", json=a_submission())
    (job,) = await api.store.list(Job)
    assert job.spec.api_key_ref == job.spec.owner
    assert await api.store.get(Secret, job.spec.owner)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"hash": ""},
        {"hash": "abc"},
        {"hash": KEY},
        {"key": ""},
        {"key": KEY, "scopes": "root"},
        {"key": KEY, "scopes": ""},
        {"key": KEY, "expiresAt": "tomorrow"},
        {"key": KEY, "expiresAt": "2999-01-01T00:00:00"},
        {"key": KEY, "expiresAt": "9999-12-31T23:59:59-14:00"},
    ],
    ids=str,
)
async def test_an_invalid_secret_is_no_key_and_does_not_affect_others(api: Api, data: dict[str, str]) -> None:
    await api.store.create(applied(**data))
    await api.store.create(applied("good", hash=hash_key("test-key-after-it")))

    await eventually(lambda: is_known(api, "test-key-after-it"))
    assert not is_known(api)
    async with api.client("admin") as admin:
        assert (await admin.get("/api/api-keys")).status_code == 200


@pytest.mark.parametrize("data", [{"key": " \n"}, {"hash": hash_key("")}], ids=["blank key", "hash of nothing"])
async def test_a_request_without_a_key_is_refused_whatever_is_applied(api: Api, data: dict[str, str]) -> None:
    await api.store.create(applied(scopes="admin", **data))
    await api.store.create(applied("good", hash=hash_key("test-key-after-it")))
    await eventually(lambda: is_known(api, "test-key-after-it"))

    async with api.client(None) as nobody:
        for header in ("Bearer", "Bearer  ", "Basic abc", "x"):
            assert (await nobody.get("/api/api-keys", headers={"Authorization": header})).status_code == 401


async def test_a_secret_without_the_label_is_no_key(api: Api) -> None:
    await api.store.create(applied(label=None, key=KEY))
    await api.store.create(applied("other", label="something-else", key=KEY))
    await api.store.create(applied("good", hash=hash_key("test-key-after-it")))

    await eventually(lambda: is_known(api, "test-key-after-it"))
    assert not is_known(api)


async def test_other_secrets_are_not_listed_and_cannot_be_revoked(api: Api, admin: httpx2.AsyncClient) -> None:
    await api.store.create(applied("credentials", label=None, ANTHROPIC_API_KEY="test-secret"))

    answer = await admin.delete("/api/api-keys/credentials")

    assert answer.status_code == 404
    assert (await api.store.get(Secret, "credentials")).data
    assert "credentials" not in (await admin.get("/api/api-keys")).text


async def test_removing_the_label_revokes_the_key(api: Api) -> None:
    stored = await api.store.create(applied(hash=hash_key(KEY)))
    await eventually(lambda: is_known(api))

    await api.store.update(Secret(metadata=Metadata(name="applied", resource_version=stored.metadata.resource_version)))

    await eventually(lambda: not is_known(api))


async def test_a_changed_secret_replaces_the_old_key(api: Api) -> None:
    stored = await api.store.create(applied(hash=hash_key("test-key-before")))
    await eventually(lambda: is_known(api, "test-key-before"))

    changed = applied(hash=hash_key(KEY))
    await api.store.update(Secret(metadata=stored.metadata, data=changed.data))

    await eventually(lambda: is_known(api))
    assert not is_known(api, "test-key-before")


async def test_a_key_stays_valid_when_one_of_its_two_secrets_is_deleted(api: Api) -> None:
    for name in ("old", "new"):
        await api.store.create(applied(name, hash=hash_key(KEY)))
    await eventually(lambda: {"old", "new"} <= api.services.api_keys._half_hash_by_secret.keys())

    await api.store.delete(Secret, "old")
    await api.services.api_keys.wait_until("old", indexed=False)

    caller = api.services.api_keys.caller(KEY, api.clock.now())
    assert caller is not None
    assert caller.secret == "new"
    await api.store.delete(Secret, "new")
    await eventually(lambda: not is_known(api))
    assert hash_key(KEY)[:32] not in api.services.api_keys._stored


async def test_a_key_is_valid_until_the_moment_it_expires(api: Api) -> None:
    expires_at = datetime(2999, 1, 1, tzinfo=UTC)
    await api.store.create(key_secret("ci", KEY, ["submit"], expires_at))
    await eventually(lambda: is_known(api))

    keys = api.services.api_keys
    assert keys.caller(KEY, expires_at - timedelta(seconds=1)) is not None
    assert keys.caller(KEY, expires_at) is None


async def test_the_expiry_of_a_key_is_shown_in_utc(api: Api, admin: httpx2.AsyncClient) -> None:
    body = {"name": "ci", "expiresAt": "2999-01-01T02:00:00+02:00"}
    created = (await admin.post("/api/api-keys", json=body)).json()

    await api.store.create(applied("odd", key="test-key-of-some-length", expiresAt="tomorrow"))
    (listed,) = [key for key in (await admin.get("/api/api-keys")).json()["apiKeys"] if key["id"] == created["id"]]

    assert created["expiresAt"] == listed["expiresAt"] == "2999-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "expires_at",
    [32503680000, "tomorrow", "2999-01-01", "2999-01-01T00:00:00", "9999-12-31T23:59:59-14:00", True, ""],
    ids=str,
)
async def test_an_invalid_expiry_is_refused_with_an_example(admin: httpx2.AsyncClient, expires_at: object) -> None:
    answer = await admin.post("/api/api-keys", json={"name": "ci", "expiresAt": expires_at})
    assert answer.status_code == 422
    (detail,) = answer.json()["details"]
    assert detail["field"] == "expiresAt"
    assert "2030-01-31T12:00:00Z" in detail["message"]


async def test_the_owner_of_an_environment_key_does_not_reveal_the_key() -> None:
    caller = ApiKeyIndex([KEY]).caller(KEY, NOON)

    assert caller is not None
    assert KEY not in caller.id
    assert caller.may_see(caller.id)
    assert not caller.may_see("another")


async def test_a_key_cannot_be_shown_again_after_a_change_of_its_creators_key(
    api: Api, admin: httpx2.AsyncClient
) -> None:
    request: dict[str, Any] = {"json": {"name": "ci"}, "headers": {"Idempotency-Key": "key-1"}}
    assert (await admin.post("/api/api-keys", **request)).status_code == 201
    own = key_secret("admin", "test-key-of-the-admin", ["admin"])
    await api.store.delete(Secret, own.name)
    await api.store.create(key_secret("admin", "test-key-another", ["admin"]))
    await eventually(lambda: is_known(api, "test-key-another"))

    admin.headers["Authorization"] = "Bearer test-key-another"
    again = await admin.post("/api/api-keys", **request)

    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert "key" not in again.json()


def test_a_derived_key_has_the_usual_format_and_depends_on_all_three_parts() -> None:
    parts: tuple[Any, ...] = ("creator", "nonce", "salt")
    others = [
        ("Creator", "nonce", "salt"),
        ("creator", "Nonce", "salt"),
        ("creator", "nonce", "Salt"),
        ("creator", "", "saltnonce"),
    ]

    assert derived_key(*parts) == derived_key(*parts)
    assert derived_key(*parts) not in [derived_key(*other) for other in others]
    assert len(derived_key(*parts)) == len(new_key())
    assert derived_key(*parts).startswith("lr_")


async def test_an_applied_plain_key_is_removed_from_data_and_annotations(api: Api) -> None:
    """`kubectl apply` stores the manifest in an annotation."""
    secret = applied(key=KEY, scopes="submit, god")
    note = {LAST_APPLIED: f'{{"stringData": {{"key": "{KEY}"}}}}', "mine": "stays"}
    await api.store.create(replace(secret, metadata=replace(secret.metadata, annotations=note)))
    await api.store.create(applied("good", hash=hash_key("test-key-after-it")))

    await eventually(lambda: is_known(api, "test-key-after-it"))
    stored = await api.store.get(Secret, "applied")
    assert stored.data == {"hash": hash_key(KEY), "prefix": KEY[:8], "scopes": "submit, god"}
    assert stored.metadata.annotations.keys() == {"mine", PROBLEM_ANNOTATION}
    assert not is_known(api)


async def test_a_short_plain_key_is_refused_and_the_secret_says_why(api: Api) -> None:
    await api.store.create(applied(key="abc", scopes="admin"))
    await eventually(lambda: PROBLEM_ANNOTATION in annotations(api))
    assert "at least 32 characters" in annotations(api)[PROBLEM_ANNOTATION]
    assert not is_known(api, "abc")

    secret = await api.store.get(Secret, "applied")
    await api.store.update(replace(secret, data={"key": KEY}))
    await eventually(lambda: is_known(api))
    await eventually(lambda: PROBLEM_ANNOTATION not in annotations(api))


async def test_a_short_key_of_an_earlier_version_works_and_its_secret_says_so(api: Api) -> None:
    await api.store.create(applied(hash=hash_key("short"), prefix="sh"))
    await eventually(lambda: is_known(api, "short"))
    await eventually(lambda: PROBLEM_ANNOTATION in annotations(api))


async def test_an_immutable_plain_key_does_not_affect_others(tmp_path: Path) -> None:
    class ImmutableStore(MemoryStore):
        async def update(self, resource: R) -> R:
            raise Invalid(Problem("data", "field is immutable when `immutable` is set"))

    async with api_in_memory(tmp_path, make_store=ImmutableStore) as api:
        await api.store.create(applied("fixed", key=KEY))
        await api.store.create(applied("other", hash=hash_key("another-test-key")))
        await eventually(lambda: is_known(api) and is_known(api, "another-test-key"))
