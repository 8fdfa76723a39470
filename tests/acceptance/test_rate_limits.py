"""The real agent programs at a server that wants to be left alone: their jobs wait, and then succeed."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, LocalEngine, User
from tests.agent_programs import CLAUDE, CODEX, installed
from tests.claude import model_server as anthropic
from tests.codex import model_server as openai
from tests.scripted_model import ModelServer, Refuses, Says, Turn


class Provider(NamedTuple):
    """How it is served, and refused."""

    name: str
    model: str
    serve: Callable[..., AbstractContextManager[ModelServer]]
    base_path: str
    refusal: Turn


CLAUDE_CODE = Provider(
    "claude", "sonnet", anthropic.model_server, "", Refuses(429, "rate_limit_error", "slow down", {"retry-after": "0"})
)
CODEX_CLI = Provider(
    "codex", "gpt-5.5", openai.model_server, "/v1", Refuses(429, "rate_limit_exceeded", "Please try again in 2s.")
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    programs = {"LABRATS_CLAUDE_PATH": installed(CLAUDE), "LABRATS_CODEX_PATH": installed(CODEX)}
    keys = {"ANTHROPIC_API_KEY": "sk-ant-test-0123456789", "OPENAI_API_KEY": "sk-test-0123456789"}
    folder: Path = tmp_path_factory.mktemp("engine")
    with LocalEngine(folder, **programs, **keys, LABRATS_MODEL_PAUSE_SECONDS="2") as engine:
        yield engine


@pytest.mark.parametrize("provider", [CLAUDE_CODE, CODEX_CLI], ids=lambda provider: provider.name)
async def test_a_rate_limit_pauses_the_model_and_its_jobs_succeed_later(
    user: User, admin: User, provider: Provider
) -> None:
    with provider.serve(provider.refusal) as server:
        ai_model = {"name": provider.name, "provider": provider.name, "model": provider.model, "slots": 1}
        made = await admin.post("/api/ai-models", ai_model | {"endpoint": server.url + provider.base_path})
        assert made.status_code == 201, made.text
        config = {"provider": provider.name, "model": provider.model, "timeoutMs": 120_000}
        job_id = await user.submit(config=config)

        put_back = await put_back_while_paused(user, admin, job_id, provider.name)
        next_id = await user.submit(config=config)
        server.turns = [Says("worth the wait")]
        first, second = await user.wait(job_id), await user.wait(next_id)

    assert (put_back["failedCode"], put_back["finishedAt"]) == ("rate_limited", None)
    assert (first["status"], first["result"]) == ("completed", "worth the wait")
    assert (first["failedCode"], first["failedReason"]) == (None, None)
    assert first["attempts"] > 1
    assert (second["status"], second["attempts"]) == ("completed", 1)


async def put_back_while_paused(user: User, admin: User, job_id: str, ai_model: str) -> dict[str, Any]:
    """The job's detail while it waits for the end of its model's pause. Each pause is longer than the one before."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            paused_until = (await admin.get(f"/api/ai-models/{ai_model}")).json()["pausedUntil"]
            detail = await user.job(job_id)
            if paused_until and detail["notBefore"]:
                return detail
            await asyncio.sleep(POLL_SECONDS)
