"""Tests of real programs that speak the Agent Client Protocol: OpenCode and Qwen Code."""

import re
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from labrats.executor.attempt import RESUME_PROMPT
from labrats.model.ai_model import Prices
from labrats.model.job import FailedCode
from labrats.model.mcp_server import McpServer
from labrats.model.protocol import Sandbox
from labrats.processes import send_signal, with_environment
from tests.agents import mcp_server
from tests.agents.acp import ACP_MODULES, OPENCODE, QWEN_CODE, AcpAgent
from tests.agents.agent_cli import KEY, words
from tests.agents.conftest import Prepare
from tests.support.scripted_model import Refuses, Says
from tests.unit.executor.attempts import a_repository, commit_all, git, in_a_clone_of, the_next_attempt, wait_until


@pytest.fixture(params=[OPENCODE, pytest.param(QWEN_CODE, marks=pytest.mark.extended)], ids=str)
def cli(request: pytest.FixtureRequest) -> AcpAgent:
    """Return each of the programs; the slower one in the second lane."""
    program: AcpAgent = request.param
    return program


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """The sandbox of all attempts, in which the scripts of the programs can be read."""
    return replace(sandbox, readable=(*sandbox.readable, str(ACP_MODULES)))


@pytest.mark.parametrize("cli", [OPENCODE, QWEN_CODE], ids=str)
def test_agent_works_in_the_cloned_repository_and_its_work_is_logged(
    cli: AcpAgent, attempt_on: Prepare, tmp_path: Path
) -> None:
    fix = "sed -i s/old/new/ notes.txt; git commit -qam fix && echo ok"
    with cli.serve(cli.shell("ls", text="Let me see."), cli.shell(fix), Says("All\nfixed.")) as server:
        attempt = attempt_on(server, instructions="Never push.", **in_a_clone_of(a_repository(tmp_path / "repo")))

        assert attempt.run() == 0

    assert attempt.result == "All\nfixed."
    assert (attempt.workspace / "notes.txt").read_text() == "new\n"
    outputs = attempt.outcome.outputs
    assert outputs.commit == git(attempt.workspace, "rev-parse", "HEAD")
    assert outputs.files_changed == 1
    assert outputs.answered_by == cli.model
    program, *log = [line for line in attempt.logs if not line.startswith("[network: ")]
    assert re.fullmatch(r"\[(OpenCode|Qwen Code) \d+\.\d+\.\d+\]", program)
    assert log == [
        "Let me see.",
        f"→ {cli.shell_tool}: ls",
        "← notes.txt",
        f"→ {cli.shell_tool}: {fix}",
        "← ok",
        "All",
        "fixed.",
    ]
    assert server.key == KEY
    assert words(server.requests[0]["messages"]).count("Never push.") == 1


def test_usage_is_what_the_key_proxy_has_measured(cli: AcpAgent, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("true"), Says("done")) as server:
        attempt = attempt_on(server, prices=Prices(input=1, output=10, cache_read=0.1))
        attempt.run()

    answers = len(server.requests) + len(server.asides)
    usage = attempt.outcome.usage
    assert replace(usage, cost_usd=None) == cli.usage(
        turns=answers, input_tokens=100 * answers, output_tokens=10 * answers
    )
    assert usage.cost_usd == pytest.approx(answers * (80 * 1 + 10 * 10 + 20 * 0.1) / 1e6)


@pytest.mark.parametrize(
    ("turn", "code", "words"),
    [
        (Refuses(401, "invalid_api_key", "Incorrect API key"), FailedCode.AUTH, "credentialsRef"),
        (Refuses(429, "insufficient_quota", "no money"), FailedCode.QUOTA, "waiting does not help"),
        (Refuses(404, "model_not_found", "The model `x` does not exist"), FailedCode.MODEL_NOT_FOUND, "config.model"),
        (Refuses(429, "rate_limit_exceeded", "slow"), FailedCode.RATE_LIMITED, "answered 429: slow"),
        (Refuses(503, "server_is_overloaded", "Overloaded"), FailedCode.OVERLOADED, "Overloaded"),
        (Refuses(400, "invalid_request", "something odd"), FailedCode.AGENT_ERROR, "something odd"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Refuses) else None,
)
def test_error_of_the_server_fails_with_its_code_and_advice(
    cli: AcpAgent, attempt_on: Prepare, turn: Refuses, code: FailedCode, words: str
) -> None:
    with cli.serve(turn) as server:
        attempt = attempt_on(server)
        assert attempt.run(seconds=60) == 1

    assert attempt.failure[0] is code
    assert words in attempt.failure[1]


def test_long_pause_requested_by_the_server_ends_the_run_at_once(cli: AcpAgent, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("true"), Refuses(429, cli.rate_limit, "slow", {"retry-after": "60"})) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.error.code is FailedCode.RATE_LIMITED
    assert 50 <= (attempt.error.retry_after_seconds or 0) <= 60
    assert len(server.requests) <= 3  # one program asks at once for something else, too


def test_too_many_turns_fail_with_max_turns(cli: AcpAgent, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("true")) as server:
        attempt = attempt_on(server, config={"max_turns": 3})
        attempt.run()

    assert attempt.failure[0] is FailedCode.MAX_TURNS
    assert "config.maxTurns" in attempt.failure[1]


def test_stopped_attempt_kills_a_running_tool(cli: AcpAgent, attempt_on: Prepare, unique_name: str) -> None:
    with cli.serve(cli.shell("touch started; sleep 300")) as server:
        attempt = attempt_on(server)
        with attempt.started() as process:
            wait_until((attempt.workspace / "started").exists, "the tool runs")
            process.send_signal(signal.SIGTERM)
            process.wait()

    assert attempt.failure == (FailedCode.AGENT_ERROR, "stopped on request")
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_killed_program_fails_with_its_signal(cli: AcpAgent, attempt_on: Prepare, unique_name: str) -> None:
    with cli.serve(cli.shell("touch started; sleep 300")) as server:
        attempt = attempt_on(server)
        with attempt.started() as process:
            wait_until((attempt.workspace / "started").exists, "the tool runs")
            for pid in with_environment("LABRATS_ATTEMPT", unique_name):
                with suppress(FileNotFoundError):  # it has just ended
                    if b"acp" in Path(f"/proc/{pid}/cmdline").read_bytes() and pid != process.pid:
                        send_signal(pid, signal.SIGKILL)
            process.wait()

    assert attempt.failure[0] is FailedCode.AGENT_ERROR
    assert "without a result" in attempt.failure[1]


def test_attempt_resumes_the_session_in_its_workspace(cli: AcpAgent, attempt_on: Prepare, tmp_path: Path) -> None:
    refusal = Refuses(400, "invalid_request_error", "no")
    with cli.serve(cli.shell("echo new > notes.txt"), refusal) as server:
        first = attempt_on(server, instructions="Never push.", **in_a_clone_of(a_repository(tmp_path / "repo")))
        first.run()
        server.answer_from_now_on(cli.shell("echo more >> notes.txt"), Says("done"))
        second = the_next_attempt(first, secrets=cli.secrets)

        assert second.run() == 0

    assert second.logs[0] == "[resuming the session of attempt 1 in its workspace]"
    assert (second.result, second.session) == ("done", first.session)
    assert (first.workspace / "notes.txt").read_text() == "new\nmore\n"
    sent = words(server.requests[-1]["messages"])
    assert "echo new > notes.txt" in sent
    assert RESUME_PROMPT.strip() in sent
    assert "echo new > notes.txt" not in "".join(second.logs)


def test_unknown_session_starts_over(cli: AcpAgent, attempt_on: Prepare, tmp_path: Path) -> None:
    refusal = Refuses(400, "invalid_request_error", "no")
    with cli.serve(cli.shell("true"), refusal) as server:
        first = attempt_on(server, **in_a_clone_of(a_repository(tmp_path / "repo")))
        first.run()
        shutil.rmtree(first.path / "home")
        server.answer_from_now_on(Says("done"))
        second = the_next_attempt(first, secrets=cli.secrets)

        assert second.run() == 0

    assert "[starting over: the agent's program does not know the session]" in second.logs
    assert second.result == "done"


def test_tool_of_an_mcp_server_is_called(cli: AcpAgent, attempt_on: Prepare) -> None:
    docs = McpServer(command=sys.executable, args=(mcp_server.__file__,), env={"MCP_TEST_KNOWS": "the answer"})
    with cli.serve(cli.ask("Why?"), Says("done")) as server:
        attempt = attempt_on(server, config={"mcp_servers": {"docs": docs}})
        attempt.run()

    call, answer = attempt.tool_events
    assert call.input == {"question": "Why?"}
    assert f"Why? [] the answer in {attempt.workspace}" in (answer.output or "")
    assert attempt.result == "done"


def test_key_is_used_and_no_tool_can_read_it(cli: AcpAgent, attempt_on: Prepare) -> None:
    search = f"tr '\\0' '\\n' < /proc/$PPID/environ; env; grep -rls '{KEY[:-1]}[{KEY[-1]}]' ..; echo searched"
    with cli.serve(cli.shell(search), Says("ok")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert server.key == KEY
    assert "searched" in (attempt.tool_events[-1].output or "")
    assert KEY not in attempt.output.read_text()
    assert attempt.outcome.outputs.key_exposed is False


@pytest.mark.parametrize("cli", [OPENCODE], ids=str)
def test_settings_of_the_repository_are_not_used(cli: AcpAgent, attempt_on: Prepare, tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repo")
    for name, content in cli.traps(f"touch {tmp_path}/ws/trapped").items():
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(content)
    commit_all(repository)
    with cli.serve(Says("done")) as server:
        attempt = attempt_on(server, **in_a_clone_of(repository))
        attempt.run()

    assert attempt.result == "done"
    assert not (attempt.workspace / "trapped").exists()


def test_program_that_is_not_installed_is_named_with_how_to_install_it(attempt_on: Prepare) -> None:
    attempt = attempt_on("http://127.0.0.1:9", command=("no-such-agent", "acp"))
    attempt.run()

    assert attempt.failure[0] is FailedCode.INVALID
    assert "no-such-agent is not installed" in attempt.failure[1]


def test_model_without_a_command_names_the_next_step(attempt_on: Prepare) -> None:
    attempt = attempt_on("http://127.0.0.1:9", command=None)
    attempt.run()

    assert attempt.failure[0] is FailedCode.INVALID
    assert "labrats connect acp" in attempt.failure[1]
