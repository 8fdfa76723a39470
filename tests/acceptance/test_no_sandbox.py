"""An engine on a machine where no sandbox works: only administrators' agents run, and everybody else learns why."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine, User
from tests.acceptance.test_webhooks import SOURCE, an_issue, deliver, listed_deliveries
from tests.support.waiting import DEADLINE_SECONDS, poll_intervals

PROGRAM: dict[str, Any] = {"provider": "claude", "model": "sonnet"}
FIRST_LINE = "[no sandbox (bwrap failed: no namespaces): the agent can do all that the engine's user can]"
WAYS_OUT = ("Install bubblewrap", "LABRATS_SANDBOX=false")


@pytest.fixture
def without_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a bubblewrap first on PATH that does not work."""
    program = tmp_path / "bin" / "bwrap"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no namespaces >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


@pytest.fixture
def engine(without_sandbox: None, start_engine: EngineFactory) -> LocalEngine:
    return start_engine(LABRATS_CLAUDE_PATH="/bin/false", LABRATS_EVENT_JOBS_PER_THREAD="1")


async def test_submission_of_a_submit_key_is_refused_with_both_ways_out(engine: LocalEngine) -> None:
    async with engine.user() as user:
        answer = await user.post("/api/jobs/submit", {"source": "m", "type": "t", "prompt": "Hi", "config": PROGRAM})
        mock = await user.run({"result": "done"})
    assert answer.status_code == 422, answer.text
    [problem] = answer.json()["details"]
    assert problem["field"] == "config.isolation"
    assert all(words in problem["message"] for words in WAYS_OUT)
    assert mock["status"] == "completed"  # it starts no program


async def test_job_of_an_administrator_and_what_continues_it_run_with_a_first_line_that_says_so(
    engine: LocalEngine,
) -> None:
    async with engine.admin() as admin:
        first = await run_program(admin)
        again = (await admin.post(f"/api/jobs/{first}/rerun")).json()["jobId"]
        assert (await admin.wait(again))["status"] == "failed"  # /bin/false is no agent
        assert (await admin.post(f"/api/jobs/{first}/retry")).status_code == 200
        assert (await admin.wait(first, "failed"))["attempts"] == 2
        for job_id in (first, again):
            assert (await admin.log_lines(job_id))[0] == FIRST_LINE


async def test_chain_of_an_administrators_job_goes_on(engine: LocalEngine) -> None:
    chained = {"source": "s", "events": ["e"], "next": {"agentTriggerName": "second", "condition": "always"}}
    async with engine.admin() as admin:
        for agent in (
            {"name": "first", "defaultProvider": "mock", "eventTriggers": [chained]},
            {"name": "second", "defaultProvider": "claude"},
        ):
            assert (await admin.post("/api/agents", agent)).status_code == 201
        started = await admin.post("/api/events/ingest", {"source": "s", "event": "e", "payload": {}})
        [job] = started.json()["jobs"]
        await admin.wait(job["jobId"])
        pause = poll_intervals()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (child := (await admin.job(job["jobId"]))["childJobId"]) is None:
                await asyncio.sleep(next(pause))
        assert (await admin.log_lines(child))[0] == FIRST_LINE


async def test_event_starts_no_agent_and_the_delivery_says_why(engine: LocalEngine) -> None:
    trigger = {"source": "github", "events": ["issues.labeled"]}
    async with engine.admin() as admin:
        for path, body in (
            ("/api/agents", {"name": "developer", "defaultProvider": "claude", "eventTriggers": [trigger]}),
            ("/api/webhook-sources", SOURCE),
        ):
            assert (await admin.post(path, body)).status_code == 201
        answer = await deliver(engine, an_issue())
        system = (await admin.get("/api/system")).json()
        [delivery] = await listed_deliveries(admin, "github", 1)
    assert answer["jobs"] == []
    assert (
        "no agent may run" in (await deliver(engine, an_issue(number=2), "two"))["ignored"]
    )  # the first is not counted
    assert all(words in answer["ignored"] for words in WAYS_OUT)
    assert (delivery["outcome"], delivery["reason"][:40]) == ("ignored", answer["ignored"][:40])
    assert system["containment"]["noSandbox"] == "bwrap failed: no namespaces"
    engine.stop()
    engine.start()
    assert "events start no agents" in engine.log


async def test_setting_false_runs_the_jobs_of_all_callers(without_sandbox: None, start_engine: EngineFactory) -> None:
    engine = start_engine(LABRATS_CLAUDE_PATH="/bin/false", LABRATS_SANDBOX="false")
    async with engine.user() as user:
        job = await run_program(user)
        assert FIRST_LINE not in await user.log_lines(job)
    async with engine.admin() as admin:
        assert (await admin.get("/api/system")).json()["containment"]["noSandbox"] is None


async def run_program(user: User) -> str:
    """Run a job whose agent is a program, which fails. Return its id."""
    job_id = await user.submit(config=PROGRAM)
    detail = await user.wait(job_id)
    assert (detail["status"], detail["failedCode"]) == ("failed", "agent_error"), detail
    return job_id
