"""Logins of the real Codex, with a login server that refuses a refresh token that was used: the engine renews them."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from labrats.model.codex_login import LOGIN_KEY
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, LocalEngine, User
from tests.agents.codex import CODEX
from tests.support.login_server import LoginServer, a_login_server
from tests.support.scripted_model import ModelServer, Says


@pytest.fixture(scope="module")
def login_server() -> Iterator[LoginServer]:
    with a_login_server() as server:
        yield server


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, login_server: LoginServer) -> Iterator[LocalEngine]:
    environment = {CODEX.path_variable: CODEX.installed(), "CODEX_REFRESH_TOKEN_URL_OVERRIDE": login_server.url}
    with LocalEngine(tmp_path_factory.mktemp("engine"), **environment) as engine:
        yield engine


async def a_model(engine: LocalEngine, admin: User, login: str, server: ModelServer) -> str:
    """Create an AiModel with a login. Return its name."""
    name = f"codex-{os.urandom(4).hex()}"
    engine.set_secret(name, LOGIN_KEY, login)
    fields = {"name": name, "provider": "codex", "model": name, "slots": 4, "credentialsRef": name}
    created = await admin.post("/api/ai-models", fields | {"endpoint": server.url + CODEX.base_path})
    assert created.status_code == 201, created.text
    return name


def submission(model: str) -> dict[str, Any]:
    return {"config": {"provider": "codex", "model": model, "timeoutMs": 120_000}}


async def test_two_jobs_at_once_and_a_later_one_work_with_an_expired_login(
    engine: LocalEngine, user: User, admin: User, login_server: LoginServer
) -> None:
    before = len(login_server.access)
    look = "cat ~/.codex/auth.json; echo $CODEX_REFRESH_TOKEN_URL_OVERRIDE"
    with CODEX.serve(CODEX.shell(look), Says("ok")) as server:
        model = await a_model(engine, admin, login_server.login(), server)
        first = await asyncio.gather(*(user.submit(**submission(model)) for _ in range(2)))
        details = [await user.wait(job_id) for job_id in first]
        details.append(await user.run(**submission(model)))

        assert [(each["status"], each["failedReason"]) for each in details] == [("completed", None)] * 3
        assert server.headers["Authorization"] == f"Bearer {login_server.access[-1]}"
    assert (len(login_server.access) - before, login_server.refused) == (1, [])
    outputs = "".join(file.read_text() for file in engine.data_dir.glob("attempts/*/*/output.jsonl"))
    assert "[redacted]" in outputs
    assert "refresh-token-" not in outputs
    assert not any(token in outputs for token in login_server.access)


async def test_login_that_the_models_server_rejects_is_renewed_and_the_job_goes_on(
    engine: LocalEngine, user: User, admin: User, login_server: LoginServer
) -> None:
    before = len(login_server.access)
    login = login_server.login(expires_in=86_400)
    with CODEX.serve(CODEX.shell("echo one >> made.txt; until [ -e on ]; do sleep 0.1; done"), Says("done")) as server:
        model = await a_model(engine, admin, login, server)
        job_id = await user.submit(**submission(model))
        made = engine.workspace(job_id, 1) / "made.txt"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not made.exists():
                await asyncio.sleep(POLL_SECONDS)
        server.rejected.add(server.key)
        (made.parent / "on").touch()
        done = await user.wait(job_id)

        assert (done["status"], done["result"], done["attempts"]) == ("completed", "done", 2)
        assert server.key == login_server.access[-1]
    assert "[resuming the session of attempt 1 in its workspace]" in done["logs"]
    assert (len(login_server.access) - before, login_server.refused) == (1, [])
