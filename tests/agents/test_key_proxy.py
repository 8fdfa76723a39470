"""Tests of the key proxy with the real agent programs: they work through it, and never have the model's key."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from labrats.model.job import FailedCode
from labrats.model.protocol import RequestEvent
from tests.agents.agent_cli import KEY, AgentCli
from tests.agents.claude import CLAUDE
from tests.agents.conftest import Prepare
from tests.cluster.certificates import Authority
from tests.support.scripted_model import Refuses, Says, scripted_model
from tests.unit.executor.attempts import AttemptFolder

ONLY_CLAUDE = pytest.mark.parametrize("cli", [CLAUDE], ids=str)

FINDS_KEY = r"""python3 - <<'END'
import os, pathlib, re
pattern = rb'sk-test-012345678[9]'
mine = b'LABRATS_ATTEMPT=' + os.environb[b'LABRATS_ATTEMPT']

def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b''

def regions(process):
    for line in read(process / 'maps').decode().splitlines():
        start, end = (int(each, 16) for each in line.split()[0].split('-'))
        if 'rw' in line.split()[1] and end - start < 2**25:
            yield start, end

def memory(process):
    try:
        with (process / 'mem').open('rb') as file:
            for start, end in regions(process):
                file.seek(start)
                yield file.read(end - start)
    except (OSError, ValueError):
        return

for process in pathlib.Path('/proc').glob('[0-9]*'):
    for name in ('environ', 'cmdline'):
        if re.search(pattern, read(process / name)):
            print('found in', process / name)
    # The memory of the agent and its tools. That of the executor, which only root could read here, has the key.
    if process.name != str(os.getpid()) and mine in read(process / 'environ'):
        if any(re.search(pattern, part) for part in memory(process)):
            print('found in the memory of', process.name)
for root in ('..', os.environ['HOME'], os.environ['TMPDIR'], '/attempt'):
    for folder, _, names in os.walk(root):
        for name in names:
            path = pathlib.Path(folder, name)
            if path.is_file() and re.search(pattern, read(path)):
                print('found in', path)
print('searched')
END"""


def requests_of(attempt: AttemptFolder) -> list[RequestEvent]:
    return [event for event in attempt.events if isinstance(event, RequestEvent)]


def test_key_is_in_no_environment_file_or_memory_of_the_agent(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell(FINDS_KEY), Says("ok")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.result == "ok"
    assert server.key == KEY
    output = attempt.tool_events[-1].output or ""
    assert "searched" in output
    assert "found in" not in output


def test_each_request_is_reported_without_contents(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("true"), Says("ok")) as server:
        attempt = attempt_on(server)
        attempt.run()

    requests = [event.request for event in requests_of(attempt)]
    assert [(each.method, each.path, each.status) for each in requests] == [("POST", cli.api.path, 200)] * 2
    assert [each.usage.output_tokens for each in requests] == [10, 10]
    assert cli.model in (requests[0].model or "")
    assert "Fix the bug" not in str(requests)


def test_exceeding_the_token_limit_ends_the_run_although_the_program_would_continue(
    cli: AgentCli, attempt_on: Prepare
) -> None:
    with cli.serve(cli.shell("sleep 30", output_tokens=5000)) as server:
        attempt = attempt_on(server, config={"max_tokens": 3000})
        attempt.run()

    assert attempt.failure[0] is FailedCode.BUDGET
    assert "maxTokens" in attempt.failure[1]
    assert attempt.outcome.usage.output_tokens == 5000
    assert len(server.requests) == 1


@ONLY_CLAUDE
def test_claude_code_is_told_that_a_subagents_model_is_refused(attempt_on: Prepare) -> None:
    """The refusal is an event with the model's name, and the run continues."""
    task = {"description": "t", "prompt": "say hi", "subagent_type": "general-purpose", "model": "opus"}
    call = CLAUDE.shell("true")
    subagent = type(call)("Agent", task)
    with CLAUDE.serve(subagent, Says("done")) as server:
        attempt = attempt_on(server)
        attempt.run()

    refusals = [event.request for event in requests_of(attempt) if event.request.refusal]
    assert attempt.result == "done"
    assert refusals
    assert all("opus" in (each.model or "") and each.status == 404 for each in refusals)
    assert not any("opus" in request["model"] for request in server.requests)


@ONLY_CLAUDE
def test_pause_that_the_server_asks_for_is_known_although_the_program_does_not_report_it(attempt_on: Prepare) -> None:
    """Claude Code gives up at once, and reports no time, if a server asks for a long pause."""
    with CLAUDE.serve(Refuses(429, CLAUDE.rate_limit, "slow down", {"Retry-After": "900"})) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.failure[0] is FailedCode.RATE_LIMITED
    assert attempt.error.retry_after_seconds == pytest.approx(900, abs=30)


@ONLY_CLAUDE
def test_token_of_a_subscription_is_proxied_as_one_and_its_cost_is_notional(attempt_on: Prepare) -> None:
    """Claude Code sends other headers with such a token than with a key."""
    with CLAUDE.serve(Says("ok")) as server:
        attempt = attempt_on(server, secrets={"CLAUDE_CODE_OAUTH_TOKEN": KEY})
        attempt.run()

    assert attempt.result == "ok"
    assert not attempt.outcome.outputs.key_exposed
    requests = [event.request for event in requests_of(attempt)]
    assert [request.status for request in requests if request.path == "/v1/messages"] == [200]
    assert server.headers["Authorization"] == f"Bearer {KEY}"
    assert "oauth-" in server.headers["Anthropic-Beta"]
    assert attempt.outcome.usage.is_notional
    assert attempt.outcome.usage.cost_usd


def test_job_with_a_key_does_not_expose_it(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(Says("ok")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert not attempt.outcome.outputs.key_exposed


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[socket.socket, Path]]:
    """A listening socket that speaks TLS as `localhost`, and the file of its certificate's authority."""
    authority = Authority(tmp_path / "authority", "https://unused.test")
    authority.create()
    authority.issue("server", "/CN=localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.folder / "server.crt", authority.folder / "server.key")
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        yield listener, authority.certificate


def test_server_with_tls_is_reached_with_the_operators_certificates(
    cli: AgentCli, attempt_on: Prepare, secure: tuple[socket.socket, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, certificate = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with scripted_model(cli.api, [Says("secure")], listener) as server:
        attempt = attempt_on(f"https://localhost:{server.port}")
        attempt.run()

    assert attempt.result == "secure"
    assert server.key == KEY


def test_server_with_an_unknown_certificate_gets_no_key(
    cli: AgentCli, attempt_on: Prepare, secure: tuple[socket.socket, Path]
) -> None:
    with scripted_model(cli.api, [Says("secure")], secure[0]) as server:
        attempt = attempt_on(f"https://localhost:{server.port}")
        attempt.run()

    assert "its certificate is not trusted" in attempt.failure[1]
    assert server.requests == []
