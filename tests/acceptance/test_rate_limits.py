"""Rate limits: the jobs of the real agent programs wait for the end of the pause, and then succeed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, LocalEngine, User
from tests.agents.agent_cli import AgentCli
from tests.agents.claude import CLAUDE
from tests.agents.codex import CODEX
from tests.support.scripted_model import Refuses, Says


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder: Path = tmp_path_factory.mktemp("engine")
    with LocalEngine(folder, **CLAUDE.environment, **CODEX.environment, LABRATS_MODEL_PAUSE_SECONDS="2") as engine:
        yield engine


@pytest.mark.parametrize("cli", [CLAUDE, CODEX], ids=str)
async def test_rate_limit_pauses_the_model_and_its_jobs_succeed_later(user: User, admin: User, cli: AgentCli) -> None:
    with cli.serve(Refuses(429, cli.rate_limit, "Please try again in 2s.", {"retry-after": "0"})) as server:
        ai_model = {"name": cli.provider, "provider": cli.provider, "model": cli.model, "slots": 1}
        created = await admin.post("/api/ai-models", ai_model | {"endpoint": server.url + cli.base_path})
        assert created.status_code == 201, created.text
        config = {"provider": cli.provider, "model": cli.model, "timeoutMs": 120_000}
        job_id = await user.submit(config=config)

        requeued = await requeued_during_pause(user, admin, job_id, cli.provider)
        next_id = await user.submit(config=config)
        server.turns = [Says("worth the wait")]
        first, second = await user.wait(job_id), await user.wait(next_id)

    assert (requeued["failedCode"], requeued["finishedAt"]) == ("rate_limited", None)
    assert (first["status"], first["result"]) == ("completed", "worth the wait")
    assert (first["failedCode"], first["failedReason"]) == (None, None)
    assert first["attempts"] > 1
    assert (second["status"], second["attempts"]) == ("completed", 1)


async def requeued_during_pause(user: User, admin: User, job_id: str, ai_model: str) -> dict[str, Any]:
    """Wait until the model is paused and the job requeued, and return the job's detail. Each pause is longer."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            paused_until = (await admin.get(f"/api/ai-models/{ai_model}")).json()["pausedUntil"]
            detail = await user.job(job_id)
            if paused_until and detail["notBefore"]:
                return detail
            await asyncio.sleep(POLL_SECONDS)
