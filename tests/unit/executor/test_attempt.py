"""Tests of an attempt as a real process: `python -m labrats.executor FOLDER`."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.attempt import _remove_credentials
from labrats.model.config import JobConfig
from labrats.model.job import FailedCode, Usage
from labrats.model.mcp_server import McpServer
from labrats.model.protocol import ErrorEvent, PartEvent, ResultEvent, StatusEvent, decode_event
from labrats.model.variables import SecretKey
from labrats.processes import with_environment
from tests.unit.executor.attempts import DEADLINE_SECONDS, AttemptFolder, an_attempt, wait_until


def failure_of(attempt: AttemptFolder) -> tuple[FailedCode, str]:
    assert isinstance(attempt.outcome, ErrorEvent)
    return attempt.outcome.code, attempt.outcome.message


def an_attempt_of(tmp_path: Path, script: str, **inputs: Any) -> AttemptFolder:
    """Build an attempt whose agent program is a shell script."""
    program = tmp_path / "agent"
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    config = inputs.pop("config", JobConfig(provider="claude"))
    return an_attempt(tmp_path, config=config, programs={"claude": str(program)}, **inputs)


def test_prompt_and_standard_error_of_an_agent_are_on_no_disk(tmp_path: Path) -> None:
    attempt = an_attempt_of(tmp_path, "cat > prompt; readlink /proc/$$/fd/0 /proc/$$/fd/2 > files; exit 1")
    attempt.run()

    stdin, stderr = (attempt.workspace / "files").read_text().splitlines()
    assert stdin.startswith("/memfd:")
    assert stderr.startswith("pipe:")
    assert (attempt.workspace / "prompt").read_text() == (attempt.path / "prompt").read_text()


def test_agent_may_write_much_to_standard_error_after_closing_its_output(tmp_path: Path) -> None:
    attempt = an_attempt_of(tmp_path, "exec >&-; head -c 1000000 /dev/zero >&2; echo oops >&2; exit 1")
    attempt.run()

    assert attempt.failure[1].endswith("oops")


def test_attempt_with_a_scratch_folder_does_not_write_to_its_inputs(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    steps = [{"fork": {"seconds": 1}}, {"result": "x" * 100_000}]  # a fork needs a home
    attempt = an_attempt(tmp_path, steps)
    before = sorted(path.name for path in attempt.path.rglob("*"))

    command = [sys.executable, "-m", "labrats.executor", str(attempt.path), str(scratch)]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_SECONDS, check=True)

    assert sorted(path.name for path in attempt.path.rglob("*")) == before
    *_, part, end = map(decode_event, done.stdout.splitlines())
    assert isinstance(part, PartEvent)
    assert isinstance(end, ResultEvent)
    assert sorted(path.name for path in scratch.iterdir()) == ["baseline.json", "home", "tmp"]


@pytest.mark.parametrize(
    ("instructions", "words"), [(None, "a prompt of 3 words,"), ("Be kind.", "3 words, and instructions of 2 words,")]
)
def test_provider_receives_the_instructions_separately_from_the_prompt(
    tmp_path: Path, instructions: str | None, words: str
) -> None:
    attempt = an_attempt(tmp_path, prompt="Fix the bug.", instructions=instructions)

    assert attempt.run() == 0

    assert isinstance(attempt.outcome, ResultEvent)
    assert words in attempt.outcome.result


def test_attempt_writes_events_and_ends_with_its_result(tmp_path: Path) -> None:
    usage = {"inputTokens": 10, "costUsd": 0.5}
    attempt = an_attempt(tmp_path, [{"log": "working"}, {"usage": usage}, {"result": {"answer": 42}}])

    assert attempt.run() == 0

    assert [event.state for event in attempt.events if isinstance(event, StatusEvent)] == ["started", "running"]
    assert attempt.logs == ["working"]
    assert isinstance(attempt.outcome, ResultEvent)
    assert attempt.outcome.result == {"answer": 42}
    assert attempt.outcome.usage == Usage(input_tokens=10, cost_usd=0.5)
    assert [event.seq for event in attempt.events] == list(range(1, len(attempt.events) + 1))


def test_mock_provider_without_a_script_logs_three_lines_and_succeeds(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, prompt="Three little words")

    assert attempt.run() == 0

    assert len(attempt.logs) == 3
    assert isinstance(attempt.outcome, ResultEvent)
    assert "3 words" in attempt.outcome.result


def test_log_says_that_the_provider_ignores_mcp_servers(tmp_path: Path) -> None:
    config = JobConfig(provider="mock", mcp_servers={"docs": McpServer(command="docs")})
    attempt = an_attempt(tmp_path, [{"log": "hello"}], config=config)
    attempt.run()

    assert attempt.logs == ["[config.mcpServers is ignored: only the providers claude, codex, acp accept it]", "hello"]


def test_failure_of_the_provider_is_the_outcome(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"fail": "no luck today"}])

    assert attempt.run() == 1

    assert failure_of(attempt) == (FailedCode.AGENT_ERROR, "no luck today")


def test_run_that_takes_too_long_fails_with_timeout(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"hang": True}], config=JobConfig(provider="mock", timeout_ms=200))

    attempt.run()

    assert failure_of(attempt) == (FailedCode.TIMEOUT, "the run took longer than its timeout of 0.2 s")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_attempt_writes_its_outcome(tmp_path: Path, number: signal.Signals) -> None:
    attempt = an_attempt(tmp_path, [{"log": "ready"}, {"hang": True}])

    with attempt.started() as process:
        wait_until(lambda: attempt.logs == ["ready"], "the script has begun")
        process.send_signal(number)
        process.send_signal(number)
        process.wait()

    assert failure_of(attempt) == (FailedCode.AGENT_ERROR, "stopped on request")


def test_stop_signal_wakes_a_waiting_event_loop() -> None:
    # Another thread receives the signal, so that it does not interrupt the wait of the main thread, like a signal that
    # arrives just before the wait.
    script = """
import asyncio, signal, threading
from labrats.executor.stop_signals import stopped_by_signals

async def main():
    with stopped_by_signals():
        send_stop = lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        threading.Timer(0.3, send_stop).start()
        await asyncio.Event().wait()

try:
    asyncio.run(main())
except asyncio.CancelledError:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert done.stdout == "stopped\n", done.stderr


def test_script_can_ignore_stop_signals(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"ignoreSignals": True}, {"log": "tick {n}", "times": 10**6, "everyMs": 1}])

    with attempt.started() as process:
        wait_until(lambda: len(attempt.logs) > 0, "the script has begun")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        count = len(attempt.logs)
        wait_until(lambda: len(attempt.logs) > count + 10, "the script continues")


def test_second_stop_signal_does_not_interrupt_the_clean_up(tmp_path: Path) -> None:
    attempt = an_attempt_of(
        tmp_path,
        "mkfifo release\n"
        "trap 'touch asked; read line <release; sleep 0.2; touch cleaned; exit' INT\n"
        "sleep 300 & touch started; wait\n",
    )

    with attempt.started() as process:
        wait_until((attempt.workspace / "started").exists, "the program runs")
        process.send_signal(signal.SIGTERM)
        wait_until((attempt.workspace / "asked").exists, "the program was asked to end")
        process.send_signal(signal.SIGTERM)
        (attempt.workspace / "release").write_text("now\n")
        process.wait()

    assert failure_of(attempt)[1] == "stopped on request"
    assert (attempt.workspace / "cleaned").exists()


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("end", [{"result": "done"}, {"fail": "broken"}])
def test_no_process_of_the_attempt_is_left_at_its_outcome(
    tmp_path: Path, unique_name: str, end: dict[str, str], detached: bool
) -> None:
    attempt = an_attempt(tmp_path, [{"fork": {"seconds": 300, "detached": detached}}, end], attempt=unique_name)

    attempt.run()

    assert attempt.outcome
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_invalid_task_fails_with_internal_and_prints_a_traceback(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path)
    (attempt.path / "job.json").write_text("{")

    assert attempt.run() == 1

    assert failure_of(attempt)[0] is FailedCode.INTERNAL
    assert "Traceback" in (attempt.path / "stderr.log").read_text()


def test_failure_names_an_unknown_provider(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, config=JobConfig(provider="oracle"))

    attempt.run()

    assert failure_of(attempt)[0] is FailedCode.AGENT_ERROR
    assert "oracle" in failure_of(attempt)[1]


def test_exceeding_a_limit_fails_with_budget(tmp_path: Path) -> None:
    steps = [{"usage": {"inputTokens": 60}}, {"usage": {"outputTokens": 60}}, {"log": "never said"}]
    attempt = an_attempt(tmp_path, steps, config=JobConfig(provider="mock", max_tokens=100))

    attempt.run()

    assert failure_of(attempt)[0] is FailedCode.BUDGET
    assert attempt.outcome.usage == Usage(input_tokens=60, output_tokens=60, cost_usd=0.0)
    assert attempt.logs == []


def test_secrets_are_removed_from_the_folder_and_redacted_in_the_output(tmp_path: Path) -> None:
    secret = "sk-test-0123456789"
    attempt = an_attempt(
        tmp_path, [{"log": f"the key is {secret}"}, {"fail": secret}], secrets={"API_KEY": secret + "\n"}
    )

    attempt.run()

    assert list((attempt.path / "secrets").iterdir()) == []
    assert attempt.logs == ["the key is [redacted]"]
    assert secret not in attempt.output.read_text()


def test_secret_is_passed_on_without_the_final_newline_of_its_file(tmp_path: Path) -> None:
    attempt = an_attempt_of(
        tmp_path,
        'printf "%s" "$NPM_TOKEN" > key',
        config=JobConfig(provider="claude", env={"NPM_TOKEN": SecretKey(secret="npm", key="token")}),
        secrets={"env.NPM_TOKEN.token": "test-key\n"},
    )

    attempt.run()

    assert (attempt.workspace / "key").read_text() == "test-key"


def test_git_user_name_with_a_password_is_not_redacted(tmp_path: Path) -> None:
    secrets = {"git-username": "octocat", "git-password": "test-token"}
    attempt = an_attempt(tmp_path, [{"log": "pushed by octocat with test-token"}], secrets=secrets)

    attempt.run()

    assert attempt.logs == ["pushed by octocat with [redacted]"]


def test_git_user_name_without_a_password_is_redacted(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "with test-token"}], secrets={"git-username": "test-token"})

    attempt.run()

    assert attempt.logs == ["with [redacted]"]


@pytest.mark.parametrize(("step", "status"), [({"exit": 3}, 3), ({"signal": 9}, -9), ({"signal": 15}, -15)])
def test_crash_leaves_no_outcome(tmp_path: Path, step: dict[str, int], status: int) -> None:
    attempt = an_attempt(tmp_path, [step])

    assert attempt.run() == status

    assert all(isinstance(event, StatusEvent) for event in attempt.events)


def test_other_processes_of_the_user_cannot_read_the_memory_of_the_executor(tmp_path: Path) -> None:
    look = "for pid in $$ $PPID; do (true < /proc/$pid/mem) && echo opened || echo refused; done > seen"
    attempt = an_attempt_of(tmp_path, look)

    attempt.run(without_capabilities=True)

    assert (attempt.workspace / "seen").read_text().splitlines() == ["opened", "refused"]


def test_attempt_fails_before_its_agent_starts_if_a_secret_cannot_be_removed(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "started"}], secrets={"OPENAI_API_KEY": "sk-0123456789"})
    (attempt.path / "secrets").chmod(0o500)

    attempt.run(without_capabilities=True)

    code, message = failure_of(attempt)
    assert (code, attempt.logs) == (FailedCode.INTERNAL, [])
    assert "the secret OPENAI_API_KEY cannot be removed" in message
    assert "sk-0123456789" not in message


def test_credentials_that_cannot_be_removed_fail_the_attempt_with_their_place() -> None:
    place = Path("/proc/self/fdinfo")  # the kernel lets nobody remove it
    failure = _remove_credentials(place)
    assert failure is not None
    assert str(failure) == (
        f"the folder {place} with the attempt's credentials cannot be removed: "
        "remove it by hand, and revoke the credentials"
    )


def test_agents_program_that_may_not_be_executed_is_named_with_its_path(tmp_path: Path) -> None:
    program = tmp_path / "codex"
    program.touch(mode=0o644)
    attempt = an_attempt(tmp_path, config=JobConfig(provider="codex"), programs={"codex": str(program)})

    attempt.run()

    code, message = failure_of(attempt)
    assert code is FailedCode.INVALID
    assert message.startswith("Codex cannot be run: permission denied: the user ")
    assert message.endswith(f" may not execute {program}")
