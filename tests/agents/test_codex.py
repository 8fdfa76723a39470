"""Tests of the real Codex only."""

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from labrats.model.job import FailedCode, Pipeline, WorkspaceFile
from labrats.model.list_prices import list_prices
from labrats.model.protocol import SessionEvent
from labrats.processes import with_environment
from tests.agents.agent_cli import AgentCli
from tests.agents.codex import CODEX
from tests.agents.conftest import Prepare
from tests.support.pdfs import a_manual
from tests.support.scripted_model import Calls, Fails, Refuses, Says
from tests.unit.executor.attempts import a_repository, in_a_clone_of, the_next_attempt


@pytest.fixture
def cli() -> AgentCli:
    return CODEX


def test_patch_is_applied_and_logged(attempt_on: Prepare, tmp_path: Path) -> None:
    patch = "*** Begin Patch\n*** Update File: notes.txt\n@@\n-old\n+new\n*** End Patch"
    with CODEX.serve(Calls("apply_patch", patch), Says("ok")) as server:
        attempt = attempt_on(server, **in_a_clone_of(a_repository(tmp_path / "repo")))
        attempt.run()

    assert (attempt.workspace / "notes.txt").read_text() == "new\n"
    assert attempt.logs == [f"→ Edit: update {attempt.workspace}/notes.txt", "← completed", "ok"]


def test_command_and_output_are_reported_exactly(attempt_on: Prepare) -> None:
    with CODEX.serve(CODEX.shell("echo out; exit 3"), Says("done")) as server:
        attempt = attempt_on(server)
        attempt.run()

    call, answer = attempt.tool_events
    assert (call.input, answer.output) == ({"command": "echo out; exit 3"}, "out\n")


def test_job_without_a_model_uses_the_default_of_codex(attempt_on: Prepare) -> None:
    with CODEX.serve(Says("ok")) as server:
        attempt = attempt_on(server, config={"model": "codex"})
        attempt.run()

    assert server.requests[0]["model"].startswith("gpt-")
    assert attempt.outcome.usage.cost_usd


def test_every_model_that_codex_offers_has_a_list_price(tmp_path: Path) -> None:
    listed = subprocess.run(
        [CODEX.installed(), "debug", "models"], env={"HOME": str(tmp_path)}, capture_output=True, check=True
    )
    models = [each["slug"] for each in json.loads(listed.stdout)["models"] if each["visibility"] == "list"]

    assert models
    assert set(models) - set(list_prices().models) == set()


def a_login() -> dict[str, str]:
    """Build the secrets of a plan."""
    login = {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "last_refresh": "2100-01-01T00:00:00Z"}
    tokens = {"id_token": a_token(), "access_token": a_token(), "refresh_token": "test-refresh", "account_id": "test"}
    return {"auth.json": json.dumps(login | {"tokens": tokens})}


def test_login_replaces_the_key(attempt_on: Prepare) -> None:
    with CODEX.serve(Says("ok")) as server:
        attempt = attempt_on(server, secrets=a_login())
        attempt.run()

    assert attempt.result == "ok"
    assert server.headers["Authorization"] == f"Bearer {a_token()}"


def test_tokens_of_a_login_are_redacted_also_after_their_renewal(attempt_on: Prepare) -> None:
    file = "~/.codex/auth.json"
    renew = f"sed 's/test-refresh/next-refresh/; s/dGVzdA/bmV3dA/' {file} > renewed; cat renewed > {file}"
    with CODEX.serve(CODEX.shell(f"cat {file}; {renew}; cat {file}"), Says("It is next-refresh.")) as server:
        attempt = attempt_on(server, secrets=a_login())
        attempt.run()

    assert attempt.result == "It is [redacted]."
    output = attempt.output.read_text()
    assert "[redacted]" in (attempt.tool_events[-1].output or "")
    assert [
        token for token in ("test-refresh", a_token(), a_token().replace("dGVzdA", "bmV3dA")) if token in output
    ] == []


def test_server_without_authentication_needs_no_key(attempt_on: Prepare) -> None:
    with CODEX.serve(Says("ok")) as server:
        attempt = attempt_on(server, secrets={})
        attempt.run()

    assert attempt.result == "ok"
    assert server.headers["Authorization"] is None


def test_program_is_not_started_without_credentials_and_endpoint(attempt_on: Prepare) -> None:
    """Codex would wait for the network if there is none."""
    attempt = attempt_on(None, secrets={}, programs={"codex": "/bin/false"})
    attempt.run()

    assert attempt.failure[0] is FailedCode.AUTH
    assert "Codex has no credentials for the provider 'codex' with the model" in attempt.failure[1]


def test_pause_in_the_servers_message_is_reported(attempt_on: Prepare) -> None:
    message = "Rate limit reached for requests. Please try again in 1.054s."
    with CODEX.serve(Fails("rate_limit_exceeded", message)) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert (attempt.error.code, attempt.error.retry_after_seconds) == (FailedCode.RATE_LIMITED, 1.054)


@pytest.mark.parametrize("seconds", [1, 60])
def test_pause_in_a_header_is_reported(attempt_on: Prepare, seconds: int) -> None:
    with CODEX.serve(Refuses(429, "rate_limit_exceeded", "slow", {"retry-after": str(seconds)})) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert (attempt.error.code, attempt.error.retry_after_seconds) == (FailedCode.RATE_LIMITED, seconds)


def test_reset_of_an_exhausted_plan_is_reported(attempt_on: Prepare) -> None:
    details = {"plan_type": "pro", "resets_at": int(time.time()) + 3600}
    with CODEX.serve(Refuses(429, "usage_limit_reached", "used up", details=details)) as server:
        attempt = attempt_on(server, secrets=a_login())
        attempt.run()

    assert attempt.error.code is FailedCode.RATE_LIMITED
    assert 3540 <= (attempt.error.retry_after_seconds or 0) <= 3660


def test_log_variables_are_not_passed_to_tools(attempt_on: Prepare) -> None:
    with CODEX.serve(CODEX.shell("env"), Says("ok")) as server:
        attempt = attempt_on(server)
        attempt.run()

    names = {line.partition("=")[0] for line in (attempt.tool_events[-1].output or "").splitlines()}
    assert names & {"RUST_LOG", "TZ"} == set()
    assert {"HOME", "PATH", "TMPDIR", "LABRATS_ATTEMPT"} <= names


def test_unreachable_server_is_reported(attempt_on: Prepare, unique_name: str) -> None:
    """Without the key proxy, which answers for the server, Codex would retry for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    attempt = attempt_on(url)

    attempt.run()

    assert attempt.failure[0] is FailedCode.AGENT_ERROR
    assert f"the model's server at {url}/v1 cannot be reached: Connection refused" in attempt.failure[1]
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def a_token() -> str:
    """Return an unsigned token in the form of real ones."""
    return "eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9.dGVzdA"


def test_configuration_written_by_the_agent_is_not_used_on_resume(attempt_on: Prepare, tmp_path: Path) -> None:
    """Nor can the agent read the key, which is in a file for a moment."""
    trap = (
        f"mv ~/.codex ~/elsewhere; mkdir ~/.codex; cp -r ~/elsewhere/sessions ~/.codex; ln -s {tmp_path}/key "
        f'~/.codex/auth.json; echo \'notify = ["touch", "{tmp_path}/trapped"]\' > ~/.codex/config.toml'
    )
    with CODEX.serve(CODEX.shell(trap), Refuses(400, "invalid_request", "no")) as server:
        first = attempt_on(server)
        first.run()
        server.answer_from_now_on(Says("done"))
        second = the_next_attempt(first, secrets=CODEX.secrets)
        second.run()

    assert second.result == "done"
    assert second.session == first.session
    assert not (tmp_path / "key").exists()
    assert not (tmp_path / "trapped").exists()


def test_each_section_of_a_document_has_its_own_session(attempt_on: Prepare, tmp_path: Path) -> None:
    (tmp_path / "manual.pdf").write_bytes(a_manual())
    file = WorkspaceFile(name="manual.pdf", path=str(tmp_path / "manual.pdf"), size=1)
    with CODEX.serve(Says("short")) as server:
        attempt = attempt_on(server, workspace_files=(file,), pipeline=Pipeline(type="pdf-sections"))
        attempt.run()

    assert [section["output"] for section in attempt.result["sections"]] == ["short"] * 4
    assert attempt.outcome.usage.turns == 4
    assert not any(isinstance(event, SessionEvent) for event in attempt.events)


def test_highest_effort_is_the_one_that_the_model_has(attempt_on: Prepare) -> None:
    with CODEX.serve(Says("ok")) as server:
        attempt_on(server, config={"model": "gpt-5.5", "effort": "max"}).run()

    assert server.requests[0][CODEX.effort]["effort"] == "xhigh"
