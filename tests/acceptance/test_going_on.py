"""The real agent programs, broken off in the middle of their work: the next attempt goes on with it."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, LocalEngine, User
from tests.agent_programs import CLAUDE, CODEX, installed
from tests.claude import model_server as anthropic
from tests.codex import model_server as openai
from tests.scripted_model import Calls, ModelServer, Refuses, Says, Turn


class Provider(NamedTuple):
    """How it is served, refused, and asked to run a command."""

    name: str
    model: str
    serve: Callable[..., AbstractContextManager[ModelServer]]
    base_path: str
    refusal: Turn
    shell: Callable[[str], Turn]


CLAUDE_CODE = Provider(
    "claude",
    "sonnet",
    anthropic.model_server,
    "",
    Refuses(429, "rate_limit_error", "slow down", {"retry-after": "0"}),
    lambda command: Calls("Bash", {"command": command, "description": "test"}),
)
CODEX_CLI = Provider(
    "codex",
    "gpt-5.5",
    openai.model_server,
    "/v1",
    Refuses(429, "rate_limit_exceeded", "slow down"),
    lambda command: Calls("exec_command", {"cmd": command}),
)
PROVIDERS = pytest.mark.parametrize("provider", [CLAUDE_CODE, CODEX_CLI], ids=lambda provider: provider.name)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    programs = {"LABRATS_CLAUDE_PATH": installed(CLAUDE), "LABRATS_CODEX_PATH": installed(CODEX)}
    keys = {"ANTHROPIC_API_KEY": "sk-ant-test-0123456789", "OPENAI_API_KEY": "sk-test-0123456789"}
    folder: Path = tmp_path_factory.mktemp("engine")
    with LocalEngine(folder, **programs, **keys, LABRATS_MODEL_PAUSE_SECONDS="1") as engine:
        yield engine


async def submit(user: User, admin: User, provider: Provider, server: ModelServer, **config: Any) -> str:
    """A job on an AiModel of its own, which is the server."""
    name, model = f"{provider.name}-{os.urandom(4).hex()}", f"{provider.model}-{os.urandom(4).hex()}"
    ai_model = {"name": name, "provider": provider.name, "model": model, "slots": 1}
    made = await admin.post("/api/ai-models", ai_model | {"endpoint": server.url + provider.base_path})
    assert made.status_code == 201, made.text
    return await user.submit(config={"provider": provider.name, "model": model, "timeoutMs": 120_000} | config)


@PROVIDERS
async def test_after_a_pause_it_goes_on_where_it_was(
    engine: LocalEngine, user: User, admin: User, provider: Provider
) -> None:
    with provider.serve(provider.shell("echo one >> made.txt"), provider.refusal) as server:
        job_id = await submit(user, admin, provider, server)
        paused = await wait_for(user, job_id, lambda detail: bool(detail["notBefore"]))
        server.answer_from_now_on(provider.shell("echo two >> made.txt"), Says("worth the wait"))
        done = await user.wait(job_id)

    assert (paused["failedCode"], paused["session"]["provider"]) == ("rate_limited", provider.name)
    assert (done["status"], done["result"]) == ("completed", "worth the wait")
    assert done["session"] == paused["session"]
    assert paused["session"]["attempt"] == 1
    assert (engine.workspace(job_id, 1) / "made.txt").read_text() == "one\ntwo\n"
    patch = await user.get(f"/api/jobs/{job_id}/patch")
    assert "+one\n+two\n" in patch.text
    assert (done["usage"]["turns"], done["usage"]["outputTokens"]) >= (3, 30)
    assert "echo one" in str(server.requests[-1]), "it remembers what it did before"


@PROVIDERS
async def test_after_its_executor_was_killed_it_goes_on_where_it_was(
    engine: LocalEngine, user: User, admin: User, provider: Provider
) -> None:
    with provider.serve(provider.shell("echo one >> made.txt; sleep 300")) as server:
        job_id = await submit(user, admin, provider, server, maxAttempts=2)
        made = engine.workspace(job_id, 1) / "made.txt"
        await wait_for(user, job_id, lambda _: made.exists())
        server.answer_from_now_on(provider.shell("echo two >> made.txt"), Says("done after all"))
        os.kill(engine.processes_of(job_id)[0], signal.SIGKILL)
        done = await user.wait(job_id)

    assert (done["status"], done["result"], done["attempts"]) == ("completed", "done after all", 2)
    assert made.read_text() == "one\ntwo\n"
    assert "[it goes on with the session of attempt 1, in its workspace]" in done["logs"]


@PROVIDERS
async def test_a_person_may_have_it_go_on_and_what_is_no_longer_kept_begins_anew(
    engine: LocalEngine, user: User, admin: User, provider: Provider
) -> None:
    with provider.serve(provider.shell("echo one >> made.txt"), Refuses(400, "invalid_request_error", "no")) as server:
        job_id = await submit(user, admin, provider, server)
        assert (await user.wait(job_id))["failedCode"] == "agent_error"
        server.answer_from_now_on(provider.shell("echo two >> made.txt"), Refuses(400, "invalid_request_error", "no"))
        await user.post(f"/api/jobs/{job_id}/retry")
        went_on = await user.wait(job_id)
        made = (engine.workspace(job_id, 1) / "made.txt").read_text()
        forget_workspace(engine, job_id)
        server.answer_from_now_on(provider.shell("echo three >> made.txt"), Says("done"))
        await user.post(f"/api/jobs/{job_id}/retry")
        done = await user.wait(job_id)

    assert (went_on["session"]["attempt"], made) == (1, "one\ntwo\n")
    assert (done["result"], done["session"]["attempt"]) == ("done", 3)
    assert (engine.workspace(job_id, 3) / "made.txt").read_text() == "three\n"
    assert "[it begins anew: attempt 1 had a session, but its workspace is not kept]" in done["logs"]


def forget_workspace(engine: LocalEngine, job_id: str) -> None:
    """As when its time is over."""
    workspace = engine.workspace(job_id, 1)
    workspace.rename(workspace.with_name(f"{job_id}-forgotten"))


async def wait_for(user: User, job_id: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job's detail once `condition` holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition(detail := await user.job(job_id)):
            await asyncio.sleep(POLL_SECONDS)
    return detail
