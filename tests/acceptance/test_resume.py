"""Resume: when the real agent programs are interrupted, the next attempt resumes their session and workspace."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, LocalEngine, User
from tests.agents.agent_cli import AgentCli
from tests.agents.claude import CLAUDE
from tests.agents.codex import CODEX
from tests.support.scripted_model import ModelServer, Refuses, Says

CLIS = pytest.mark.parametrize("cli", [CLAUDE, CODEX], ids=str)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder: Path = tmp_path_factory.mktemp("engine")
    with LocalEngine(folder, **CLAUDE.environment, **CODEX.environment, LABRATS_MODEL_PAUSE_SECONDS="1") as engine:
        yield engine


async def submit(user: User, admin: User, cli: AgentCli, server: ModelServer, **config: Any) -> str:
    """Submit a job on a new AiModel whose endpoint is `server`."""
    name, model = f"{cli.provider}-{os.urandom(4).hex()}", f"{cli.model}-{os.urandom(4).hex()}"
    ai_model = {"name": name, "provider": cli.provider, "model": model, "slots": 1}
    created = await admin.post("/api/ai-models", ai_model | {"endpoint": server.url + cli.base_path})
    assert created.status_code == 201, created.text
    return await user.submit(config={"provider": cli.provider, "model": model, "timeoutMs": 120_000} | config)


@CLIS
async def test_job_requeued_by_a_rate_limit_resumes_its_session(
    engine: LocalEngine, user: User, admin: User, cli: AgentCli
) -> None:
    slow_down = Refuses(429, cli.rate_limit, "Please try again in 1s.", {"retry-after": "0"})
    with cli.serve(cli.shell("echo one >> made.txt"), slow_down) as server:
        job_id = await submit(user, admin, cli, server)
        paused = await wait_for(user, job_id, lambda detail: bool(detail["notBefore"]))
        server.answer_from_now_on(cli.shell("echo two >> made.txt"), Says("worth the wait"))
        done = await user.wait(job_id)

    assert (paused["failedCode"], paused["session"]["provider"]) == ("rate_limited", cli.provider)
    assert (done["status"], done["result"]) == ("completed", "worth the wait")
    assert done["session"] == paused["session"]
    assert paused["session"]["attempt"] == 1
    assert (engine.workspace(job_id, 1) / "made.txt").read_text() == "one\ntwo\n"
    patch = await user.get(f"/api/jobs/{job_id}/patch")
    assert "+one\n+two\n" in patch.text
    assert (done["usage"]["turns"], done["usage"]["outputTokens"]) >= (3, 30)
    assert "echo one" in str(server.requests[-1]), "the resumed session lacks the first command"


@CLIS
async def test_limit_on_tokens_holds_over_the_pauses_of_the_model(user: User, admin: User, cli: AgentCli) -> None:
    """An agent that brings about pauses could otherwise consume as much again after each of them."""
    slow_down = Refuses(429, cli.rate_limit, "Please try again in 1s.", {"retry-after": "0"})
    with cli.serve(cli.shell("echo one"), slow_down) as server:
        job_id = await submit(user, admin, cli, server, maxTokens=200)
        paused = await wait_for(user, job_id, lambda detail: bool(detail["notBefore"]))
        server.answer_from_now_on(cli.shell("echo two"), Says("too late", input_tokens=50))
        done = await user.wait(job_id)

    assert (paused["failedCode"], paused["usage"]["outputTokens"]) == ("rate_limited", 10)
    assert (done["status"], done["failedCode"]) == ("failed", "budget")
    assert "over maxTokens 200" in done["failedReason"]


@CLIS
async def test_job_resumes_its_session_after_its_executor_was_killed(
    engine: LocalEngine, user: User, admin: User, cli: AgentCli
) -> None:
    with cli.serve(cli.shell("echo one >> made.txt; sleep 300")) as server:
        job_id = await submit(user, admin, cli, server, maxAttempts=2)
        made = engine.workspace(job_id, 1) / "made.txt"
        await wait_for(user, job_id, lambda _: made.exists())
        server.answer_from_now_on(cli.shell("echo two >> made.txt"), Says("done after all"))
        os.kill(engine.processes_of(job_id)[0], signal.SIGKILL)
        done = await user.wait(job_id)

    assert (done["status"], done["result"], done["attempts"]) == ("completed", "done after all", 2)
    assert made.read_text() == "one\ntwo\n"
    assert "[resuming the session of attempt 1 in its workspace]" in done["logs"]


@CLIS
async def test_follow_ups_of_a_finished_job_resume_copies_of_its_session(
    engine: LocalEngine, user: User, admin: User, cli: AgentCli
) -> None:
    with cli.serve(cli.shell("echo one >> made.txt"), Says("made it")) as server:
        first = await user.wait(await submit(user, admin, cli, server))
        replies, requests = [], []
        for word in ("two", "three"):
            server.answer_from_now_on(cli.shell(f"echo {word} >> made.txt"), Says(f"added {word}"))
            answer = await user.post(f"/api/jobs/{first['id']}/messages", {"prompt": f"Add {word}, please."})
            replies.append(await user.wait(answer.json()["jobId"]))
            requests.append(str(server.requests[-1]))

    assert [each["result"] for each in replies] == ["added two", "added three"]
    told = f"[follow-up of {first['id']}: resuming its session in a copy of its workspace]"
    assert [each["logs"][0] for each in replies] == [told, told]
    assert all("echo one" in each and "made it" in each for each in requests), "the session lacks the first turn"
    assert "Add two, please." in requests[0]
    assert "Add two, please." not in requests[1], "the follow-ups share a session"
    made = [(engine.workspace(each["id"], 1) / "made.txt").read_text() for each in (first, *replies)]
    assert made == ["one\n", "one\ntwo\n", "one\nthree\n"]
    assert [each["usage"]["turns"] for each in replies] == [first["usage"]["turns"]] * 2, "earlier turns count again"


@CLIS
async def test_follow_up_gets_the_conversation_once_the_workspace_is_removed(
    engine: LocalEngine, user: User, admin: User, cli: AgentCli
) -> None:
    with cli.serve(cli.shell("echo one >> made.txt"), Says("made it")) as server:
        first = await user.wait(await submit(user, admin, cli, server, maxTurns=9))
        shutil.rmtree(engine.workspace(first["id"], 1))
        server.answer_from_now_on(Says("from memory"))
        answer = await user.post(f"/api/jobs/{first['id']}/messages", {"prompt": "What did you do?"})
        second = await user.wait(answer.json()["jobId"])

    assert (second["status"], second["result"]) == ("completed", "from memory")
    assert (
        second["logs"][0]
        == f"[follow-up of {first['id']}: a new workspace with its changes, the conversation in the prompt]"
    )
    assert "made it</data-" in str(server.requests[-1])


@CLIS
async def test_retried_job_resumes_its_session_or_starts_over_without_its_workspace(
    engine: LocalEngine, user: User, admin: User, cli: AgentCli
) -> None:
    with cli.serve(cli.shell("echo one >> made.txt"), Refuses(400, "invalid_request_error", "no")) as server:
        job_id = await submit(user, admin, cli, server)
        assert (await user.wait(job_id))["failedCode"] == "agent_error"
        server.answer_from_now_on(cli.shell("echo two >> made.txt"), Refuses(400, "invalid_request_error", "no"))
        await user.post(f"/api/jobs/{job_id}/retry")
        resumed = await user.wait(job_id)
        made = (engine.workspace(job_id, 1) / "made.txt").read_text()
        remove_workspace(engine, job_id)
        server.answer_from_now_on(cli.shell("echo three >> made.txt"), Says("done"))
        await user.post(f"/api/jobs/{job_id}/retry")
        done = await user.wait(job_id)

    assert (resumed["session"]["attempt"], made) == (1, "one\ntwo\n")
    assert (done["result"], done["session"]["attempt"]) == ("done", 3)
    assert (engine.workspace(job_id, 3) / "made.txt").read_text() == "three\n"
    assert "[starting over: attempt 1 had a session, but its workspace no longer exists]" in done["logs"]


def remove_workspace(engine: LocalEngine, job_id: str) -> None:
    """Move the workspace of the first attempt away, as if its retention were over."""
    workspace = engine.workspace(job_id, 1)
    workspace.rename(workspace.with_name(f"{job_id}-removed"))


async def wait_for(user: User, job_id: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until `condition` holds for the job's detail, and return the detail."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition(detail := await user.job(job_id)):
            await asyncio.sleep(POLL_SECONDS)
    return detail


async def test_follow_up_survives_the_death_of_the_engine(engine: LocalEngine, user: User) -> None:
    steps = [{"remember": True}, {"sleepMs": 1500}, {"result": "done"}]
    first = await user.run(*steps, prompt="One.", config={"provider": "mock"})
    answer = await user.post(f"/api/jobs/{first['id']}/messages", {"prompt": "Two."})
    await user.wait(answer.json()["jobId"], "active")
    engine.kill()
    engine.start()
    second = await user.wait(answer.json()["jobId"])

    assert (second["status"], second["attempts"]) == ("completed", 1)
    assert second["logs"][-1] == "remembered: One. | Two."
