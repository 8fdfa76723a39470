"""The admin key of a stand-alone engine: the file, the stored hash, and revocation."""

import stat
from pathlib import Path

import httpx2
import pytest

from labrats.api.auth.admin_key import ensure_admin_key
from labrats.api.auth.keys import key_id
from labrats.model.api_key import hash_key
from labrats.model.caller import ADMIN
from labrats.model.core_resources import Secret
from tests.api.conftest import KEYS, Api
from tests.support.waiting import eventually


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "admin.key"


async def stored_hash(api: Api) -> str:
    return (await api.store.get(Secret, key_id(ADMIN))).data["hash"]


@pytest.mark.parametrize("left", [None, "", "\n"], ids=["no file", "an empty file", "a blank file"])
async def test_a_start_without_a_key_in_the_file_writes_one(api: Api, file: Path, left: str | None) -> None:
    if left is not None:
        file.write_text(left)

    await ensure_admin_key(api.store, file)

    key = file.read_text().strip()
    assert key.startswith("lr_")
    assert await stored_hash(api) == hash_key(key)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_start_keeps_the_key_in_the_file(api: Api, file: Path) -> None:
    file.write_text(f"{KEYS['admin']}\n")

    await ensure_admin_key(api.store, file)

    assert file.read_text() == f"{KEYS['admin']}\n"
    assert await stored_hash(api) == hash_key(KEYS["admin"])


async def test_a_revoked_admin_key_stays_invalid_after_the_next_start(
    api: Api, admin: httpx2.AsyncClient, file: Path
) -> None:
    file.write_text(f"{KEYS['admin']}\n")

    assert (await admin.delete(f"/api/api-keys/{key_id(ADMIN)}")).status_code == 204
    await ensure_admin_key(api.store, file)

    key = file.read_text().strip()
    await eventually(lambda: api.services.api_keys.caller(key, api.clock.now()) is not None)
    assert (await admin.get("/api/api-keys")).status_code == 401


async def test_revocation_of_another_key_keeps_the_file(api: Api, admin: httpx2.AsyncClient, file: Path) -> None:
    file.write_text(f"{KEYS['admin']}\n")

    assert (await admin.delete(f"/api/api-keys/{key_id('other')}")).status_code == 204

    assert file.read_text() == f"{KEYS['admin']}\n"
