"""API keys: creation, listing, expiry and revocation, keys from the environment, and sessions of the dashboard."""

import asyncio
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS, Engine, User


async def test_new_key_is_shown_once_and_listed_by_its_prefix(engine: Engine, admin: User) -> None:
    name = f"ci {uuid4()}"

    answer = await admin.post("/api/api-keys", {"name": name})

    assert answer.status_code == 201
    body = answer.json()
    key = body.pop("key")
    assert re.fullmatch(r"lr_[A-Za-z0-9_-]{43}", key)
    assert body["name"] == name
    assert body["scopes"] == ["submit"]
    assert body["expiresAt"] is None
    assert key.startswith(body["prefix"])
    assert len(body["prefix"]) < 10
    listed = (await admin.get("/api/api-keys")).json()["apiKeys"]
    assert body in listed
    assert key not in str(listed)
    assert engine.files_with(key) + engine.resources_with(key) == []


async def test_key_created_directly_in_the_data_folder_is_accepted_after_a_restart(start_engine: EngineFactory) -> None:
    engine = start_engine()
    key = engine.run_labrats("api-key", "create", "ops", "--scope", "admin", "--direct").strip()

    engine.restart()

    async with engine.client(key) as http:
        assert (await http.get("/api/api-keys")).status_code == 200


def test_key_created_directly_needs_a_valid_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from labrats.main import main; sys.exit(main())", "api-key", "create"]
    for name in ("", "two\nlines"):
        ended = subprocess.run(
            [*command, name, "--direct", "--data-dir", tmp_path], capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith("labrats: name")
    assert not list(tmp_path.iterdir())


async def test_new_keys_are_unique(admin: User) -> None:
    keys = [(await admin.post("/api/api-keys", {"name": f"{uuid4()}"})).json()["key"] for _ in range(5)]

    assert len(set(keys)) == 5


async def test_concurrent_creations_of_one_key_name_create_one_key(admin: User) -> None:
    name = f"ci {uuid4()}"

    answers = await asyncio.gather(*(admin.post("/api/api-keys", {"name": name}) for _ in range(5)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


async def test_revoked_key_is_refused(engine: Engine, admin: User) -> None:
    async with engine.user() as user:
        assert (await user.get("/api/jobs")).status_code == 200

        revoked = await admin.http.delete(f"/api/api-keys/{user.key_id}")

        assert (revoked.status_code, revoked.content) == (204, b"")
        assert (await user.get("/api/jobs")).status_code == 401
        assert user.key_id not in str((await admin.get("/api/api-keys")).json())
        assert (await admin.http.delete(f"/api/api-keys/{user.key_id}")).status_code == 404


async def test_key_is_refused_once_it_has_expired(engine: Engine) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    async with engine.user(expiresAt=soon.isoformat()) as user:
        assert (await user.get("/api/jobs")).status_code == 200
        async with asyncio.timeout(20):
            while (answer := await user.get("/api/jobs")).status_code == 200:
                await asyncio.sleep(0.05)
        assert answer.status_code == 401
        assert datetime.now(UTC) >= soon


@pytest.mark.parametrize("expires_at", ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00", "tomorrow", 1, ""])
async def test_expiry_that_is_not_a_future_time_is_refused(admin: User, expires_at: object) -> None:
    answer = await admin.post("/api/api-keys", {"name": f"{uuid4()}", "expiresAt": expires_at})

    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "expiresAt")


async def test_expiry_in_another_time_zone_is_shown_in_utc(admin: User) -> None:
    answer = await admin.post("/api/api-keys", {"name": f"{uuid4()}", "expiresAt": "2999-01-01T12:00:00+02:00"})

    assert datetime.fromisoformat(answer.json()["expiresAt"]) == datetime(2999, 1, 1, 10, tzinfo=UTC)
    assert answer.json()["expiresAt"].endswith(("Z", "+00:00"))


async def test_stored_and_revoked_keys_survive_a_restart(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.user() as valid, engine.user() as revoked, engine.admin() as admin:
        await admin.http.delete(f"/api/api-keys/{revoked.key_id}")
        engine.restart()

        assert (await valid.get("/api/jobs")).status_code == 200
        assert (await revoked.get("/api/jobs")).status_code == 401


async def test_keys_from_the_environment_have_only_the_submit_scope(start_engine: EngineFactory) -> None:
    engine = start_engine(SUBMIT_API_KEYS="first-test-key, second-test-key")

    async with engine.client("first-test-key") as http, engine.client("second-test-key") as other:
        first, second = User(http, "first-test-key"), User(other, "second-test-key")
        detail = await first.run()
        assert detail["status"] == "completed"
        assert (await second.get(f"/api/jobs/{detail['id']}")).status_code == 403
        assert (await first.get("/api/api-keys")).status_code == 403
    for wrong in ("first-test-key,", "first-test-ke", "first-test-key, second-test-key", ""):
        async with engine.client(wrong) as client:
            assert (await client.get("/api/jobs")).status_code == 401
    async with engine.admin() as admin:
        assert "first-test-key" not in (await admin.get("/api/api-keys")).text
    assert "test-key" not in engine.log


async def test_admin_key_is_in_a_file_that_only_its_owner_can_read(engine: Engine) -> None:
    assert engine.admin_key_file.stat().st_mode & 0o777 == 0o600
    assert engine.files_with(engine.admin_key) == ["admin.key"]
    assert engine.admin_key not in engine.log


async def test_open_streams_of_a_key_end_when_it_is_revoked(engine: Engine, admin: User) -> None:
    async with engine.user() as revoked, engine.user() as other:
        job_id, of_other = [await user.submit({"log": "begun"}, {"hang": True}) for user in (revoked, other)]
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            revoked.log_stream(job_id) as log,
            other.log_stream(of_other) as live,
        ):
            assert (await anext(log)).data == (await anext(live)).data == {"log": "begun"}

            await admin.http.delete(f"/api/api-keys/{revoked.key_id}")

            assert [event async for event in log] == []
            await other.cancel(of_other)
            assert (await anext(live)).data["status"] == "cancelled"
    await admin.cancel(job_id)


async def test_open_streams_of_a_key_end_when_it_expires(engine: Engine, admin: User) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    async with engine.user(expiresAt=soon.isoformat()) as user:
        job_id = await user.submit({"log": "begun"}, {"hang": True})
        async with asyncio.timeout(PATIENCE_SECONDS), user.stream(f"/api/jobs/{job_id}/events") as events:
            async for _ in events:
                pass
        assert datetime.now(UTC) >= soon
    await admin.cancel(job_id)


async def test_open_streams_of_a_session_end_when_its_user_signs_out(engine: Engine, admin: User) -> None:
    async with engine.browser() as user:
        job_id = await user.submit({"log": "begun"}, {"hang": True})
        async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as log:
            assert (await anext(log)).data == {"log": "begun"}
            await user.post("/api/auth/logout")
            assert [event async for event in log] == []
    await admin.cancel(job_id)


async def test_sessions_and_sign_outs_survive_a_restart(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.browser() as user, engine.browser() as signed_out:
        await signed_out.post("/api/auth/logout")
        signed_out.http.cookies["auth_token"] = signed_out.key

        engine.kill()
        engine.start()

        assert (await user.get("/api/auth/me")).json()["user"]["id"] == "user-local"
        assert (await signed_out.get("/api/jobs")).status_code == 401
        assert engine.files_with(user.key) + engine.resources_with(user.key) == []


async def test_engine_prints_a_one_time_login_link_at_its_start(start_engine: EngineFactory) -> None:
    engine = start_engine()
    assert f"The engine is running at {engine.url}, which is also its dashboard\n" in engine.log
    (link,) = re.findall(r"To sign in, open this link once within 15 minutes: (\S+)\n", engine.log)
    assert link.startswith(f"{engine.url}/api/auth/link?token=")

    async with engine.client() as browser:
        assert (await browser.get(link)).status_code == 303
        assert (await browser.get("/api/auth/me")).json()["user"]
        assert (await browser.get(link)).status_code == 401

        another = engine.run_labrats("login-link", "--url", engine.url)
        assert (await browser.get(another.strip())).status_code == 303


@pytest.mark.parametrize("trusted", [True, False])
async def test_x_forwarded_proto_is_accepted_only_from_a_trusted_proxy(
    start_engine: EngineFactory, trusted: bool
) -> None:
    engine = start_engine() if trusted else start_engine(LABRATS_TRUSTED_PROXIES="192.0.2.0/24")

    async with engine.client() as browser:
        opened = await browser.get(await engine.login_link(), headers={"X-Forwarded-Proto": "https"})

    assert ("Secure" in opened.headers["Set-Cookie"]) == trusted
