"""The last use of API keys, in virtual time."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from labrats.api.auth.key_uses import ANNOTATION, PRECISION, WRITE_SECONDS
from labrats.model.core_resources import Secret
from labrats.model.record import Metadata
from tests.api.conftest import Api, api_in_memory
from tests.fakes.clock import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_in_memory(tmp_path, handles_files=False) as api:
        yield api


async def used(admin: httpx2.AsyncClient, name: str) -> datetime | None:
    """Return the last use of a key as the list shows it."""
    (key,) = [key for key in (await admin.get("/api/api-keys")).json()["apiKeys"] if key["name"] == name]
    return datetime.fromisoformat(key["lastUsedAt"]) if key["lastUsedAt"] else None


async def test_last_use_of_a_key_is_listed(api: Api, admin: httpx2.AsyncClient) -> None:
    created = (await admin.post("/api/api-keys", json={"name": "ci"})).json()
    assert created["lastUsedAt"] is None
    assert await used(admin, "ci") is None

    await admin.get("/api/jobs", headers={"Authorization": f"Bearer {created['key']}"})

    assert await used(admin, "ci") == api.clock.now()


async def test_last_use_is_stored_for_other_engines_but_not_each_time(api: Api, user: httpx2.AsyncClient) -> None:
    stored = []
    for seconds in (0, 60, PRECISION.seconds):
        await api.clock.advance(seconds)
        await user.get("/api/jobs")
        stored.append((api.clock.now(), await stored_use(api)))

    (first, stored_first), (_, stored_second), (third, stored_third) = stored
    assert (stored_first, stored_second, stored_third) == (first, first, third)


async def stored_use(api: Api) -> datetime:
    """Return the last use of the user's key as it is stored."""
    await api.clock.advance(2 * WRITE_SECONDS)
    (secret,) = [each for each in await api.store.list(Secret) if each.data.get("name") == "user"]
    return datetime.fromisoformat(secret.metadata.annotations[ANNOTATION])


async def test_uses_of_a_revoked_key_are_forgotten(api: Api, admin: httpx2.AsyncClient) -> None:
    created = (await admin.post("/api/api-keys", json={"name": "ci"})).json()
    await admin.delete(f"/api/api-keys/{created['id']}")
    api.services.key_uses.record(created["id"], api.clock.now())
    await api.clock.advance(2 * WRITE_SECONDS)

    assert api.services.key_uses.last_use(Secret(metadata=Metadata(name=created["id"]))) is None
