"""The codex provider with the real Codex program, on a scripted model: what becomes of each way to end."""

import base64
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.attempt import GO_ON
from labrats.model.config import JobConfig
from labrats.model.job import AgentSession, FailedCode, Pipeline, Usage, WorkspaceFile, WorkspaceSetup
from labrats.model.mcp_server import McpServer
from labrats.model.protocol import ErrorEvent, ResultEvent, SessionEvent, UsageEvent
from labrats.processes import send_signal, with_environment
from tests import mcp_server
from tests.codex.model_server import CACHED_TOKENS, REASONING_TOKENS, model_server
from tests.mcp_server import http_mcp_server
from tests.pdfs import a_manual
from tests.scripted_model import Calls, Fails, ModelServer, Refuses, Says, Stalls
from tests.unit.executor.attempts import (
    AttemptFolder,
    a_repository,
    an_attempt,
    commit_all,
    git,
    the_next_attempt,
    wait_until,
)

KEY = "sk-test-0123456789"

Prepare = Callable[..., AttemptFolder]


@pytest.fixture
def attempt_on(codex_cli: str, tmp_path: Path, unique_name: str) -> Prepare:
    """Prepares an attempt of the codex provider, on a server."""

    def prepare(server: ModelServer | str, *, config: dict[str, Any] | None = None, **task: Any) -> AttemptFolder:
        usual: dict[str, Any] = {"provider": "codex", "model": "gpt-5.5", "timeout_ms": 60_000}
        return an_attempt(
            tmp_path,
            secrets=task.pop("secrets", {"OPENAI_API_KEY": KEY}),
            attempt=unique_name,
            config=JobConfig(**usual | (config or {})),
            programs={"codex": codex_cli},
            endpoint=server if isinstance(server, str) else f"{server.url}/v1",
            **task,
        )

    return prepare


def shell(command: str, **more: Any) -> Calls:
    return Calls("exec_command", {"cmd": command}, **more)


def test_it_works_in_the_cloned_repository_and_says_what_it_did(attempt_on: Prepare, tmp_path: Path) -> None:
    setup = WorkspaceSetup(git_repo=str(a_repository(tmp_path / "repo")))
    patch = "*** Begin Patch\n*** Update File: notes.txt\n@@\n-old\n+new\n*** End Patch"
    turns = (
        shell("cat notes.txt", text="Let me see."),
        Calls("apply_patch", patch),
        shell("git -c user.name=T -c user.email=t@example.org commit -qam fix && echo ok"),
        Says("All\nfixed."),
    )
    with model_server(*turns) as server:
        attempt = attempt_on(server, workspace_setup=setup, repo_roots=(str(tmp_path),))

        assert attempt.run() == 0

    assert attempt.result == "All\nfixed."
    assert (attempt.workspace / "notes.txt").read_text() == "new\n"
    commit = git(attempt.workspace, "rev-parse", "HEAD")
    outputs = attempt.outcome.outputs
    assert (outputs.branch, outputs.commit, outputs.files_changed) == ("main", commit, 1)
    assert attempt.logs == [
        "Let me see.",
        "→ Shell: cat notes.txt",
        "← old",
        f"→ Edit: update {attempt.workspace}/notes.txt",
        "← completed",
        "→ Shell: git -c user.name=T -c user.email=t@example.org commit -qam fix && echo ok",
        "← ok",
        "All",
        "fixed.",
    ]


def test_the_prompt_reaches_the_model_whatever_it_begins_with(attempt_on: Prepare) -> None:
    with model_server(Says("ok")) as server:
        attempt = attempt_on(server)
        (attempt.path / "prompt").write_text("--help me, $HOME `id` 'please'\n" + "x" * 200_000)
        attempt.run()

    sent = str(server.requests[0]["input"])
    assert "--help me, $HOME `id`" in sent
    assert "x" * 200_000 in sent
    assert attempt.result == "ok"


def test_tool_calls_are_events(attempt_on: Prepare) -> None:
    with model_server(shell("echo out; exit 3"), Says("done")) as server:
        attempt = attempt_on(server)
        attempt.run()

    call, answer = attempt.tool_events
    assert (call.name, call.input) == ("Shell", {"command": "echo out; exit 3"})
    assert (answer.id, answer.output, answer.is_error) == (call.id, "out\n", True)


def test_usage_is_told_after_each_answer_of_the_model(attempt_on: Prepare) -> None:
    with model_server(shell("true"), shell("true"), Says("done", input_tokens=300, output_tokens=30)) as server:
        attempt = attempt_on(server)
        attempt.run()

    usages = [event.usage for event in attempt.events if isinstance(event, UsageEvent)]
    assert [usage.turns for usage in usages] == sorted(usage.turns for usage in usages)
    assert usages[0].turns < 3
    assert attempt.outcome.usage == usages[-1]
    cached = 3 * CACHED_TOKENS
    assert usages[-1] == Usage(
        input_tokens=500 - cached, output_tokens=50, cache_read_tokens=cached, reasoning_tokens=12, turns=3
    )


def test_the_settings_of_the_job_reach_the_program(attempt_on: Prepare) -> None:
    with model_server(Says("ok")) as server:
        attempt_on(server, config={"model": 'a-"test"-model', "effort": "high"}).run()

    assert server.requests[0]["model"] == 'a-"test"-model'
    assert server.requests[0]["reasoning"]["effort"] == "high"


def test_without_a_model_of_its_own_a_job_gets_the_one_that_codex_prefers(attempt_on: Prepare) -> None:
    with model_server(Says("ok")) as server:
        attempt_on(server, config={"model": "codex"}).run()

    assert server.requests[0]["model"].startswith("gpt-")


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "CODEX_API_KEY"])
def test_the_key_of_the_models_secret_is_used_and_no_tool_finds_it(
    attempt_on: Prepare, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither in its environment, nor in that of the program, nor in a file."""
    monkeypatch.setenv("ENGINE_VARIABLE", "test-engine-secret")
    in_environments = "tr '\\0' '\\n' < /proc/$PPID/environ; env"
    in_files = "grep -rl 'sk-test-01234[5]6789' .."  # a pattern that does not match itself
    with model_server(shell(f"{in_environments}; {in_files}; echo searched"), Says("ok")) as server:
        attempt = attempt_on(server, secrets={name: KEY})
        attempt.run()

    found = attempt.tool_events[-1].output or ""
    assert server.headers["Authorization"] == f"Bearer {KEY}"
    assert f"HOME={attempt.path}/home" in found
    assert found.endswith("\nsearched\n")
    for secret in ("ENGINE_VARIABLE", "API_KEY", "[redacted]", "../attempt"):
        assert secret not in found


@pytest.mark.parametrize(
    "command",
    [
        "echo {secret}",
        "printf {secret} | base64",
        "printf {secret} | od -An -v -tx1 | tr -d ' \\n'",
        "set -x; : {secret}",
    ],
)
def test_a_secret_that_a_tool_prints_is_redacted(attempt_on: Prepare, command: str) -> None:
    """As the tool prints it, and as the program shows the call."""
    secret = "test-git-token-0123456789"
    encoded = (secret, base64.b64encode(secret.encode()).decode().rstrip("="), secret.encode().hex())
    with model_server(shell(command.format(secret=secret)), Says(f"It is {secret}.")) as server:
        attempt = attempt_on(server, secrets={"OPENAI_API_KEY": KEY, "git-password": secret})
        attempt.run()

    assert attempt.result == "It is [redacted]."
    assert "[redacted]" in (attempt.tool_events[-1].output or "")
    output = attempt.output.read_text()
    assert [form for form in encoded if form in output] == []


def test_a_login_may_stand_for_the_key(attempt_on: Prepare) -> None:
    login = {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "last_refresh": "2100-01-01T00:00:00Z"}
    tokens = {"id_token": a_token(), "access_token": a_token(), "refresh_token": "test-refresh", "account_id": "test"}
    with model_server(Says("ok")) as server:
        attempt = attempt_on(server, secrets={"auth.json": json.dumps(login | {"tokens": tokens})})
        attempt.run()

    assert attempt.result == "ok"
    assert server.headers["Authorization"] == f"Bearer {a_token()}"


def test_a_server_that_asks_for_no_key_needs_none(attempt_on: Prepare) -> None:
    with model_server(Says("ok")) as server:
        attempt = attempt_on(server, secrets={})
        attempt.run()

    assert attempt.result == "ok"
    assert server.headers["Authorization"] is None


def test_nothing_that_a_repository_brings_is_run_by_the_program(attempt_on: Prepare, tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repo")
    set_traps(repository, tmp_path / "trapped")
    setup = WorkspaceSetup(git_repo=str(repository))
    with model_server(shell("true"), Says("ok")) as server:
        attempt = attempt_on(server, workspace_setup=setup, repo_roots=(str(tmp_path),))
        attempt.run()

    assert attempt.result == "ok"
    assert not (tmp_path / "trapped").exists()
    assert "words of the repository" in str(server.requests[0]["input"])


def test_instructions_reach_the_agent_and_leave_the_checkout_clean(attempt_on: Prepare, tmp_path: Path) -> None:
    setup = WorkspaceSetup(git_repo=str(a_repository(tmp_path / "repo")))
    with model_server(shell("touch made; git status --porcelain --ignored"), Says("ok")) as server:
        attempt = attempt_on(server, workspace_setup=setup, repo_roots=(str(tmp_path),), instructions="Never push.")
        attempt.run()

    assert "Never push." in str(server.requests[0]["input"])
    assert attempt.tool_events[-1].output == "?? made\n"


def test_a_line_of_several_hundred_kilobytes_is_read(attempt_on: Prepare) -> None:
    with model_server(Says("y" * 400_000)) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert isinstance(attempt.outcome, ResultEvent)
    assert attempt.outcome.file == "result.json"
    assert (attempt.path / "result.json").stat().st_size == 400_002


@pytest.mark.parametrize(
    ("turn", "code", "words"),
    [
        (Refuses(401, "invalid_api_key", "Incorrect API key"), FailedCode.AUTH, "credentialsRef"),
        (Refuses(403, "forbidden", "no"), FailedCode.AUTH, "credentialsRef"),
        (Refuses(429, "insufficient_quota", "no money"), FailedCode.AUTH, "billing"),
        (Refuses(429, "rate_limit_exceeded", "slow down"), FailedCode.RATE_LIMITED, "429"),
        (Refuses(503, "server_is_overloaded", "Overloaded"), FailedCode.OVERLOADED, "capacity"),
        (Refuses(529, "overloaded", "Overloaded"), FailedCode.OVERLOADED, "529"),
        (Refuses(400, "invalid_request", "something odd"), FailedCode.AGENT_ERROR, "something odd"),
        (Fails("context_length_exceeded", "too long"), FailedCode.CONTEXT_TOO_LONG, "shorten"),
        (Fails("server_is_overloaded", "Overloaded"), FailedCode.OVERLOADED, "capacity"),
    ],
)
def test_what_the_server_refuses_is_a_failure_that_says_what_to_do(
    attempt_on: Prepare, turn: Refuses | Fails, code: FailedCode, words: str
) -> None:
    with model_server(turn) as server:
        attempt = attempt_on(server)
        assert attempt.run() == 1

    assert attempt.failure[0] is code
    assert words in attempt.failure[1]


def test_how_long_the_server_asks_to_be_left_alone_is_passed_on(attempt_on: Prepare) -> None:
    message = "Rate limit reached for requests. Please try again in 1.054s."
    with model_server(Fails("rate_limit_exceeded", message)) as server:
        attempt = attempt_on(server)
        attempt.run()

    outcome = attempt.outcome
    assert isinstance(outcome, ErrorEvent)
    assert (outcome.code, outcome.retry_after_seconds) == (FailedCode.RATE_LIMITED, 1.054)


def test_a_server_that_asks_for_a_long_pause_gets_it_at_once_and_the_slot_is_free(attempt_on: Prepare) -> None:
    """The program itself would wait for it, twice."""
    with model_server(shell("true"), Refuses(429, "rate_limit_exceeded", "slow", {"retry-after": "60"})) as server:
        attempt = attempt_on(server)
        attempt.run()

    outcome = attempt.outcome
    assert isinstance(outcome, ErrorEvent)
    assert (outcome.code, outcome.retry_after_seconds) == (FailedCode.RATE_LIMITED, 60)
    assert "asks for a pause of 60 s" in outcome.message
    assert len(server.requests) == 2
    assert outcome.usage.turns == 1


def test_a_short_pause_that_a_header_asks_for_is_passed_on(attempt_on: Prepare) -> None:
    with model_server(Refuses(429, "rate_limit_exceeded", "slow", {"retry-after": "1"})) as server:
        attempt = attempt_on(server)
        attempt.run()

    outcome = attempt.outcome
    assert isinstance(outcome, ErrorEvent)
    assert (outcome.code, outcome.retry_after_seconds) == (FailedCode.RATE_LIMITED, 1)


def test_how_long_a_plan_is_used_up_is_passed_on(attempt_on: Prepare) -> None:
    details = {"plan_type": "pro", "resets_at": int(time.time()) + 3600}
    with model_server(Refuses(429, "usage_limit_reached", "used up", details=details)) as server:
        attempt = attempt_on(server)
        attempt.run()

    outcome = attempt.outcome
    assert isinstance(outcome, ErrorEvent)
    assert outcome.code is FailedCode.RATE_LIMITED
    assert 3540 <= (outcome.retry_after_seconds or 0) <= 3660


def test_what_it_is_told_about_its_log_does_not_reach_its_tools(attempt_on: Prepare) -> None:
    with model_server(shell("env"), Says("ok")) as server:
        attempt = attempt_on(server)
        attempt.run()

    names = {line.partition("=")[0] for line in (attempt.tool_events[-1].output or "").splitlines()}
    assert names & {"RUST_LOG", "TZ"} == set()
    assert {"HOME", "PATH", "TMPDIR", "LABRATS_ATTEMPT"} <= names


def test_what_a_failed_run_has_consumed_is_known(attempt_on: Prepare) -> None:
    with model_server(shell("true"), Refuses(400, "invalid_request", "odd")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.failure[0] is FailedCode.AGENT_ERROR
    assert attempt.outcome.usage.turns == 1


def test_a_refusal_that_passes_is_a_note_in_the_log(attempt_on: Prepare) -> None:
    with model_server(Fails("server_error", "odd"), Says("ok")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.result == "ok"
    assert any(line.startswith("[Reconnecting... 1/2") for line in attempt.logs)


def test_a_server_that_is_not_there_is_given_up_after_a_while(attempt_on: Prepare, unique_name: str) -> None:
    """The program itself would try for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    attempt = attempt_on(url, idle_seconds=2.0)

    attempt.run()

    assert attempt.failure[0] is FailedCode.AGENT_ERROR
    assert "more than 2 seconds" in attempt.failure[1]
    assert "waiting for network" in attempt.failure[1]
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_a_server_that_says_nothing_is_given_up_after_a_while(attempt_on: Prepare, unique_name: str) -> None:
    with model_server(Stalls()) as server:
        attempt = attempt_on(server, idle_seconds=1.0)
        attempt.run()

    assert "it says nothing" in attempt.failure[1]
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_a_tool_may_take_longer_than_the_model_may_be_silent(attempt_on: Prepare) -> None:
    with model_server(shell("sleep 2; echo ok", text="This takes a while."), Says("done")) as server:
        attempt = attempt_on(server, idle_seconds=1.0)
        attempt.run()

    assert attempt.result == "done"


def test_too_many_turns_are_a_failure_of_their_own(attempt_on: Prepare) -> None:
    with model_server(shell("true")) as server:
        attempt = attempt_on(server, config={"max_turns": 2})
        attempt.run()

    assert attempt.failure[0] is FailedCode.MAX_TURNS
    assert "config.maxTurns" in attempt.failure[1]


def test_passing_the_token_limit_is_over_budget_and_ends_the_program(attempt_on: Prepare, unique_name: str) -> None:
    with model_server(shell("true")) as server:
        attempt = attempt_on(server, config={"max_tokens": 250})
        attempt.run()

    assert attempt.failure[0] is FailedCode.BUDGET
    assert "maxTokens 250" in attempt.failure[1]
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


@pytest.mark.parametrize("command", ["sleep 300", "setsid sleep 300 & sleep 300", "trap '' TERM INT; sleep 300"])
def test_asked_to_stop_it_ends_the_tool_that_runs_wherever_it_hides(
    attempt_on: Prepare, unique_name: str, command: str
) -> None:
    with model_server(shell(f"touch started; {command}")) as server:
        attempt = attempt_on(server)
        with attempt.started() as process:
            wait_until((attempt.workspace / "started").exists, "the tool runs")
            process.send_signal(signal.SIGTERM)
            process.wait()

    assert attempt.failure == (FailedCode.AGENT_ERROR, "stopped on request")
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_a_run_that_takes_too_long_ends_in_a_timeout(attempt_on: Prepare, unique_name: str) -> None:
    with model_server(Stalls()) as server:
        attempt = attempt_on(server, config={"timeout_ms": 1500})
        attempt.run()

    assert attempt.failure[0] is FailedCode.TIMEOUT
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


@pytest.mark.parametrize("output", ["/dev/null", "/proc/$PPID/fd/1"])
def test_what_a_tool_leaves_running_does_not_keep_the_attempt_from_ending(
    attempt_on: Prepare, unique_name: str, output: str
) -> None:
    with model_server(shell(f"setsid sleep 300 > {output} 2>&1 &"), Says("done")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.result == "done"
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_a_program_that_is_killed_is_a_failure_that_says_so(attempt_on: Prepare) -> None:
    with model_server(shell("kill -KILL $PPID; sleep 300")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.failure[0] is FailedCode.AGENT_ERROR
    assert "was ended by SIGKILL without a result" in attempt.failure[1]


def test_a_program_that_is_not_there_is_said_to_be_missing(
    attempt_on: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    attempt = attempt_on("http://127.0.0.1:9/v1")
    job = (attempt.path / "job.json").read_text()
    (attempt.path / "job.json").write_text(job.replace('"programs"', '"unused"'))

    attempt.run()

    assert "LABRATS_CODEX_PATH" in attempt.failure[1]


def a_token() -> str:
    """A token in the form of the real ones, which says nothing."""
    return "eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9.dGVzdA"


def set_traps(repository: Path, trapped: Path) -> None:
    """Settings in which a repository asks for commands to be run. Each of them would make the file `trapped`."""
    hook = {"hooks": [{"type": "command", "command": f"touch {trapped}"}]}
    (repository / ".codex").mkdir()
    (repository / ".codex" / "hooks.json").write_text(json.dumps({"hooks": {"UserPromptSubmit": [hook]}}))
    (repository / ".codex" / "config.toml").write_text(
        f'notify = ["touch", "{trapped}"]\n[mcp_servers.trap]\ncommand = "touch"\nargs = ["{trapped}"]\n'
    )
    (repository / "AGENTS.md").write_text("words of the repository\n")
    commit_all(repository)


# MCP servers

ASKS = Calls("ask", {"question": "Why?"}, namespace="mcp__docs")


def test_a_tool_of_an_mcp_server_that_is_a_program_is_called(attempt_on: Prepare) -> None:
    program = McpServer(
        command=sys.executable, args=(mcp_server.__file__, 'an "odd" word'), env={"MCP_TEST_KNOWS": "the answer"}
    )
    with model_server(ASKS, Says("done")) as server:
        attempt = attempt_on(server, config={"mcp_servers": {"docs": program}})
        attempt.run()

    call, answer = attempt.tool_events
    assert (call.name, call.input) == ("docs.ask", {"question": "Why?"})
    assert answer.output == f"""Why? ['an "odd" word'] the answer in {attempt.workspace}"""
    assert attempt.result == "done"


def test_a_tool_of_an_mcp_server_at_an_address_is_called(attempt_on: Prepare) -> None:
    with (
        http_mcp_server() as there,
        model_server(ASKS, Says("done")) as server,
    ):
        at_address = McpServer(url=there.url, headers={"X-Team": "red"})
        attempt = attempt_on(server, config={"mcp_servers": {"docs": at_address}})
        attempt.run()

    assert attempt.tool_events[-1].output == "Why? over HTTP"
    assert there.headers["X-Team"] == "red"


def test_an_mcp_server_that_does_not_start_is_noted_in_the_log(attempt_on: Prepare) -> None:
    with model_server(Says("done")) as server:
        attempt = attempt_on(server, config={"mcp_servers": {"docs": McpServer(command="no-such-program")}})
        attempt.run()

    assert any("the MCP server docs failed to start" in line and "No such file" in line for line in attempt.logs)
    assert attempt.result == "done"


# Another attempt


def test_another_attempt_goes_on_with_the_session_in_its_workspace(attempt_on: Prepare, tmp_path: Path) -> None:
    setup = WorkspaceSetup(git_repo=str(a_repository(tmp_path / "repo")))
    turns = (shell("sed -i s/old/new/ notes.txt"), Refuses(400, "invalid_request", "no"))
    with model_server(*turns) as server:
        first = attempt_on(server, workspace_setup=setup, repo_roots=(str(tmp_path),), instructions="Never push.")
        first.run()
        server.answer_from_now_on(shell("echo more >> notes.txt"), Says("done"))
        second = the_next_attempt(first, secrets={"OPENAI_API_KEY": KEY})

        assert second.run() == 0

    assert second.logs[0] == "[it goes on with the session of attempt 1, in its workspace]"
    assert (second.result, second.session) == ("done", first.session)
    assert (first.workspace / "notes.txt").read_text() == "new\nmore\n"
    assert not second.workspace.exists()
    sent = json.dumps(server.requests[-1]["input"])
    assert "sed -i s/old/new/" in sent
    assert json.dumps(GO_ON.strip())[1:-1] in sent
    assert "Never push." in sent
    assert server.headers["Authorization"] == f"Bearer {KEY}"
    assert second.outcome.usage == Usage(
        input_tokens=2 * (100 - CACHED_TOKENS),
        output_tokens=20,
        cache_read_tokens=2 * CACHED_TOKENS,
        reasoning_tokens=2 * REASONING_TOKENS,
        turns=2,
    )
    assert second.outcome.outputs.files_changed == 1
    assert "-old\n+new\n+more\n" in (second.path / "changes.patch").read_text()


def test_another_attempt_goes_on_where_everything_was_killed(attempt_on: Prepare, unique_name: str) -> None:
    with model_server(shell("echo one > made; touch started; sleep 300")) as server:
        first = attempt_on(server)
        with first.started() as process:
            wait_until((first.workspace / "started").exists, "the tool runs")
            process.kill()
            process.wait()
        for pid in with_environment("LABRATS_ATTEMPT", unique_name):
            send_signal(pid, signal.SIGKILL)
        wait_until(lambda: not with_environment("LABRATS_ATTEMPT", unique_name), "nothing of the attempt runs")
        server.answer_from_now_on(Says("done"))
        second = the_next_attempt(first, secrets={"OPENAI_API_KEY": KEY})
        second.run()

    assert second.result == "done"
    assert "sleep 300" in str(server.requests[-1]["input"])
    assert second.outcome.usage.turns == 1
    assert second.outcome.outputs.files_changed == 2


def test_another_attempt_begins_anew_where_the_program_does_not_know_the_session(attempt_on: Prepare) -> None:
    with model_server(shell("touch made"), Refuses(400, "invalid_request", "no")) as server:
        first = attempt_on(server)
        first.run()
        server.answer_from_now_on(Says("done"))
        unknown = AgentSession(provider="codex", id="01900000-0000-7000-8000-000000000000", attempt=1)
        second = the_next_attempt(first, unknown, secrets={"OPENAI_API_KEY": KEY})
        second.run()

    assert "[it begins anew: the agent's program does not know that session any more]" in second.logs
    assert (second.result, second.session.attempt) == ("done", 2)
    assert not (second.workspace / "made").exists()
    assert "Fix the bug." in str(server.requests[-1]["input"])
    assert "touch made" not in str(server.requests[-1]["input"])


def test_what_an_agent_has_set_up_does_not_lead_the_program_when_it_goes_on(
    attempt_on: Prepare, tmp_path: Path
) -> None:
    """Nor finds its way to the key, which is in a file for a moment."""
    trap = (
        f"mv ~/.codex ~/elsewhere; mkdir ~/.codex; cp -r ~/elsewhere/sessions ~/.codex; ln -s {tmp_path}/key "
        f'~/.codex/auth.json; echo \'notify = ["touch", "{tmp_path}/trapped"]\' > ~/.codex/config.toml'
    )
    with model_server(shell(trap), Refuses(400, "invalid_request", "no")) as server:
        first = attempt_on(server)
        first.run()
        server.answer_from_now_on(Says("done"))
        second = the_next_attempt(first, secrets={"OPENAI_API_KEY": KEY})
        second.run()

    assert second.result == "done"
    assert second.session == first.session
    assert not (tmp_path / "key").exists()
    assert not (tmp_path / "trapped").exists()


def test_each_section_of_a_document_is_a_session_of_its_own(attempt_on: Prepare, tmp_path: Path) -> None:
    (tmp_path / "manual.pdf").write_bytes(a_manual())
    file = WorkspaceFile(name="manual.pdf", path=str(tmp_path / "manual.pdf"), size=1)
    with model_server(Says("short")) as server:
        attempt = attempt_on(server, workspace_files=(file,), pipeline=Pipeline(type="pdf-sections"))
        attempt.run()

    assert [section["output"] for section in attempt.result["sections"]] == ["short"] * 4
    assert attempt.outcome.usage.turns == 4
    assert not any(isinstance(event, SessionEvent) for event in attempt.events)
