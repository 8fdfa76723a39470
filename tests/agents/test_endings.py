"""Tests of each way in which a run of the real agent programs ends."""

import os
import signal

import pytest
from msgspec.structs import replace

from labrats.model.ai_model import Prices
from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import Selection
from labrats.processes import with_environment
from tests.agents.agent_cli import AgentCli
from tests.agents.claude import CLAUDE
from tests.agents.codex import CODEX
from tests.agents.conftest import Prepare
from tests.support.scripted_model import Fails, Refuses, Says, Stalls, Turn
from tests.unit.executor.attempts import wait_until

NO_CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
NO_USAGE_LEFT = "You have reached your specified API usage limits. You will regain access on 2030-01-01 at 00:00 UTC."
TOO_LONG = "prompt is too long: 250000 tokens > 200000 maximum"


@pytest.mark.parametrize(
    ("cli", "turn", "code", "words"),
    [
        (CLAUDE, Refuses(401, "authentication_error", "invalid x-api-key"), FailedCode.AUTH, "credentialsRef"),
        (CLAUDE, Refuses(403, "permission_error", "no"), FailedCode.AUTH, "credentialsRef"),
        (CLAUDE, Refuses(429, "rate_limit_error", "slow down"), FailedCode.RATE_LIMITED, "slow down"),
        (CLAUDE, Refuses(529, "overloaded_error", "Overloaded"), FailedCode.OVERLOADED, "fallbackModel"),
        (CLAUDE, Refuses(400, "invalid_request_error", TOO_LONG), FailedCode.CONTEXT_TOO_LONG, "shorten"),
        (CLAUDE, Refuses(400, "invalid_request_error", "odd"), FailedCode.AGENT_ERROR, "odd"),
        (CODEX, Refuses(401, "invalid_api_key", "Incorrect API key"), FailedCode.AUTH, "credentialsRef"),
        (CODEX, Refuses(403, "forbidden", "no"), FailedCode.AUTH, "credentialsRef"),
        (CLAUDE, Refuses(400, "invalid_request_error", NO_CREDIT), FailedCode.QUOTA, "waiting does not help"),
        (CLAUDE, Refuses(400, "invalid_request_error", NO_USAGE_LEFT), FailedCode.QUOTA, "waiting does not help"),
        (CLAUDE, Refuses(404, "not_found_error", "model: nope"), FailedCode.MODEL_NOT_FOUND, "config.model"),
        (CODEX, Refuses(429, "insufficient_quota", "no money"), FailedCode.QUOTA, "billing"),
        (
            CODEX,
            Refuses(404, "model_not_found", "The model `x` does not exist"),
            FailedCode.MODEL_NOT_FOUND,
            "config.model",
        ),
        (CODEX, Refuses(429, "rate_limit_exceeded", "slow down"), FailedCode.RATE_LIMITED, "429"),
        (CODEX, Refuses(503, "server_is_overloaded", "Overloaded"), FailedCode.OVERLOADED, "capacity"),
        (CODEX, Refuses(529, "overloaded", "Overloaded"), FailedCode.OVERLOADED, "529"),
        (CODEX, Refuses(400, "invalid_request", "something odd"), FailedCode.AGENT_ERROR, "something odd"),
        (CODEX, Fails("context_length_exceeded", "too long"), FailedCode.CONTEXT_TOO_LONG, "shorten"),
        (CODEX, Fails("server_is_overloaded", "Overloaded"), FailedCode.OVERLOADED, "capacity"),
    ],
    ids=lambda value: str(value) if isinstance(value, AgentCli) else None,
)
def test_error_of_the_server_fails_with_its_code_and_advice(
    cli: AgentCli, attempt_on: Prepare, turn: Turn, code: FailedCode, words: str
) -> None:
    with cli.serve(turn) as server:
        attempt = attempt_on(server)
        assert attempt.run() == 1

    assert attempt.failure[0] is code
    assert words in attempt.failure[1]


@pytest.mark.parametrize(
    ("cli", "error", "note"),
    [
        (CLAUDE, Refuses(529, "overloaded_error", "Overloaded"), "[the model's server answered 529: retry 1 of 3"),
        (CODEX, Fails("server_error", "odd"), "[Reconnecting... 1/2"),
    ],
    ids=["claude", "codex"],
)
def test_passing_error_is_logged(cli: AgentCli, attempt_on: Prepare, error: Turn, note: str) -> None:
    with cli.serve(error, Says("ok")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.result == "ok"
    assert any(line.startswith(note) for line in attempt.logs)


def test_long_pause_requested_by_the_server_ends_the_run_at_once(cli: AgentCli, attempt_on: Prepare) -> None:
    """The program itself would wait, more than once."""
    with cli.serve(cli.shell("true"), Refuses(429, cli.rate_limit, "slow", {"retry-after": "60"})) as server:
        attempt = attempt_on(server)
        attempt.run()

    seconds = attempt.error.retry_after_seconds or 0
    assert attempt.error.code is FailedCode.RATE_LIMITED
    assert 60 <= seconds < 90
    assert f"asks for a pause of {seconds:.0f} s" in attempt.error.message
    assert len(server.requests) == 2
    assert_usage_of_one_answer(cli, attempt.outcome.usage)


def test_failed_run_reports_its_usage(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("true"), Refuses(400, "invalid_request_error", "odd")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.failure[0] is FailedCode.AGENT_ERROR
    assert_usage_of_one_answer(cli, attempt.outcome.usage)


def assert_usage_of_one_answer(cli: AgentCli, usage: Usage) -> None:
    assert replace(usage, cost_usd=None) == cli.usage(turns=1, input_tokens=100, output_tokens=10)
    assert usage.cost_usd


def test_too_many_turns_fail_with_max_turns(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("true")) as server:
        attempt = attempt_on(server, config={"max_turns": 2})
        attempt.run()

    assert attempt.failure[0] is FailedCode.MAX_TURNS
    assert "config.maxTurns" in attempt.failure[1]
    assert attempt.outcome.usage.input_tokens > 0


def test_exceeding_the_token_limit_fails_with_budget_and_ends_the_program(
    cli: AgentCli, attempt_on: Prepare, unique_name: str
) -> None:
    with cli.serve(cli.shell("true")) as server:
        attempt = attempt_on(server, config={"max_tokens": 250})
        attempt.run()

    assert attempt.failure[0] is FailedCode.BUDGET
    assert "maxTokens 250" in attempt.failure[1]
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


@pytest.mark.parametrize("command", ["sleep 300", "setsid sleep 300 & sleep 300", "trap '' TERM INT; sleep 300"])
def test_stopped_attempt_kills_a_running_tool(
    cli: AgentCli, attempt_on: Prepare, unique_name: str, command: str
) -> None:
    with cli.serve(cli.shell(f"touch started; {command}")) as server:
        attempt = attempt_on(server)
        with attempt.started() as process:
            wait_until((attempt.workspace / "started").exists, "the tool runs")
            process.send_signal(signal.SIGTERM)
            process.wait()

    assert attempt.failure == (FailedCode.AGENT_ERROR, "stopped on request")
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []
    assert_usage_of_one_answer(cli, attempt.outcome.usage)


@pytest.mark.parametrize("prices", [None, Prices(input=1000, cache_read=0)], ids=["list", "own"])
def test_run_stopped_while_the_model_is_silent_has_a_cost(
    cli: AgentCli, attempt_on: Prepare, prices: Prices | None
) -> None:
    with cli.serve(cli.shell("true"), Stalls()) as server:
        attempt = attempt_on(server, prices=prices)
        with attempt.started() as process:
            wait_until(lambda: len(server.requests) == 2, "the second request has arrived")
            process.send_signal(signal.SIGTERM)
            process.wait()

    usage = attempt.outcome.usage
    assert_usage_of_one_answer(cli, usage)
    assert prices is None or usage.cost_usd == pytest.approx(usage.input_tokens / 1000)


def test_silent_server_ends_the_run_at_the_limit_after_reminders(
    cli: AgentCli, attempt_on: Prepare, unique_name: str
) -> None:
    with cli.serve(cli.shell("true"), Stalls()) as server:
        attempt = attempt_on(server, idle_seconds=4.0)
        attempt.run()

    code, sentence = attempt.failure
    assert code is FailedCode.AGENT_ERROR
    assert "waited more than 4 seconds for the model's server: it sent nothing" in sentence
    assert f"check the server at {server.url}" in sentence
    assert "LABRATS_AGENT_IDLE_SECONDS" in sentence
    reminders = [line for line in attempt.logs if "the run ends after 4 s of silence]" in line]
    assert 1 <= len(reminders) <= 4  # after 1 s and 2 s; on a busy machine also while the program starts
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []
    assert_usage_of_one_answer(cli, attempt.outcome.usage)


def test_a_server_that_sends_what_the_program_does_not_show_is_not_silent(cli: AgentCli, attempt_on: Prepare) -> None:
    """Codex prints nothing of its model's thoughts, nor of the keep-alives of a gateway."""
    with cli.serve(Says("done", seconds=12)) as server:
        attempt = attempt_on(server, idle_seconds=6.0)
        attempt.run()

    assert attempt.result == "done"


def test_silence_limit_does_not_apply_to_tools(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("sleep 9; echo ok", text="This takes a while."), Says("done")) as server:
        attempt = attempt_on(server, idle_seconds=8.0)  # Claude Code takes seconds to start on a busy machine
        attempt.run()

    assert attempt.result == "done"


def test_run_that_takes_too_long_fails_with_timeout(cli: AgentCli, attempt_on: Prepare, unique_name: str) -> None:
    with cli.serve(cli.shell("true"), Stalls()) as server:
        attempt = attempt_on(server, config={"timeout_ms": 5000})
        attempt.run()

    assert attempt.failure[0] is FailedCode.TIMEOUT
    assert_usage_of_one_answer(cli, attempt.outcome.usage)
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


@pytest.mark.parametrize("output", ["/dev/null", "/proc/$PPID/fd/1"])
def test_process_left_by_a_tool_does_not_delay_the_end(
    cli: AgentCli, attempt_on: Prepare, unique_name: str, output: str
) -> None:
    with cli.serve(cli.shell(f"setsid sleep 300 > {output} 2>&1 &"), Says("done")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.result == "done"
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_failure_says_that_the_program_was_killed(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("kill -KILL $PPID; sleep 300")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.failure[0] is FailedCode.AGENT_ERROR
    assert "was killed by signal 9 (SIGKILL) without a result" in attempt.failure[1]


def test_failure_without_credentials_names_them_and_the_commands(cli: AgentCli, attempt_on: Prepare) -> None:
    selection = Selection(origins={"provider": "request", "model": "ai-config"}, others=("other (claude/opus)",))
    unauthorized = Refuses(401, "authentication_error", "Missing bearer or basic authentication in header")
    with cli.serve(unauthorized) as server:
        attempt = attempt_on(server, secrets={}, selection=selection)
        attempt.run()

    code, sentence = attempt.failure
    assert code is FailedCode.AUTH
    for words in (
        f"the provider '{cli.provider}' (from request) with the model '{cli.model}' (from ai-config)",
        "no AiModel has this provider and model; existing AiModels: other (claude/opus)",
        f"run `labrats connect {cli.provider} --model {cli.model}`",
    ):
        assert words in sentence
    assert "/login" not in sentence


def test_failure_names_the_variable_for_a_missing_program(
    cli: AgentCli, attempt_on: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    attempt = attempt_on("http://127.0.0.1:9", programs={})

    attempt.run()

    assert cli.path_variable in attempt.failure[1]
