"""Tests of MCP servers with the real agent programs."""

import sys
from typing import Any

import pytest

from labrats.model.mcp_server import McpServer
from tests.agents import mcp_server
from tests.agents.agent_cli import AgentCli, words
from tests.agents.claude import CLAUDE
from tests.agents.codex import CODEX
from tests.agents.conftest import Prepare
from tests.agents.http_mcp_server import http_mcp_server
from tests.support.scripted_model import Says

TOKEN = "test-mcp-token-0123456789"


def docs(**server: Any) -> dict[str, Any]:
    """Return the settings of a job with this MCP server."""
    return {"mcp_servers": {"docs": McpServer(**server)}}


def test_tool_of_a_server_program_is_called(cli: AgentCli, attempt_on: Prepare) -> None:
    program = docs(
        command=sys.executable, args=(mcp_server.__file__, 'an "odd" word'), env={"MCP_TEST_KNOWS": "the answer"}
    )
    with cli.serve(cli.ask("Why?"), Says("done")) as server:
        attempt = attempt_on(server, config=program)
        attempt.run()

    call, answer = attempt.tool_events
    assert (call.name, call.input) == (cli.mcp_tool, {"question": "Why?"})
    assert answer.output == f"""Why? ['an "odd" word'] the answer in {attempt.workspace}"""
    assert attempt.result == "done"


def test_server_program_has_the_variables_of_the_job_and_its_own_take_precedence(
    cli: AgentCli, attempt_on: Prepare
) -> None:
    settings = {
        "env": {"MCP_TEST_KNOWS": "the job's value"},
        "mcp_servers": {
            "docs": McpServer(command=sys.executable, args=(mcp_server.__file__,)),
            "other": McpServer(
                command=sys.executable, args=(mcp_server.__file__,), env={"MCP_TEST_KNOWS": "its own value"}
            ),
        },
    }
    with cli.serve(cli.ask("Why?"), cli.ask("Why?", server="other"), Says("done")) as server:
        attempt = attempt_on(server, config=settings)
        attempt.run()

    answers = [event.output or "" for event in attempt.tool_events if event.output]
    assert ["the job's value" in answers[0], "its own value" in answers[1]] == [True, True]


def test_credentials_are_only_in_the_environment_of_the_server(cli: AgentCli, attempt_on: Prepare) -> None:
    environments = cli.shell("tr '\\0' '\\n' < /proc/$PPID/environ; env; echo looked")
    with cli.serve(cli.ask("Why?"), environments, Says("done")) as server:
        program = docs(command=sys.executable, args=(mcp_server.__file__,))
        attempt = attempt_on(server, config=program, secrets=cli.secrets | {"mcp.docs.MCP_TEST_KNOWS": TOKEN})
        attempt.run()

    assert f"Why? [] {TOKEN} in" in words(server.requests[1][cli.conversation])
    _, answer, _, found = [event.output or "" for event in attempt.tool_events]
    assert answer.startswith("Why? [] [redacted] in")
    assert found.rstrip().endswith("\nlooked")
    assert "MCP_TEST_KNOWS" not in found
    assert "[redacted]" not in found
    assert TOKEN not in attempt.output.read_text()


def test_credentials_are_not_on_disk_while_the_model_works(cli: AgentCli, attempt_on: Prepare) -> None:
    look = cli.shell("grep -rlF test-mcp-token $HOME/.. . ; echo looked")
    with cli.serve(look, cli.ask("Why?"), Says("done")) as server:
        program = docs(command=sys.executable, args=(mcp_server.__file__,))
        attempt = attempt_on(server, config=program, secrets=cli.secrets | {"mcp.docs.MCP_TEST_KNOWS": TOKEN})
        attempt.run()

    _, found, _, answer = [event.output or "" for event in attempt.tool_events]
    assert found.strip().splitlines()[-1] == "looked"
    assert "mcp.json" not in found
    assert "config.toml" not in found
    assert "[redacted]" in answer  # the server has the token
    assert attempt.result == "done"


def test_credentials_are_not_on_disk_after_the_attempt(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(cli.ask("Why?"), Says("done")) as server:
        program = docs(command=sys.executable, args=(mcp_server.__file__,))
        secrets = cli.secrets | {"mcp.docs.MCP_TEST_TOKEN": TOKEN}
        attempt = attempt_on(server, config=program, secrets=secrets)
        attempt.run()

    assert attempt.result == "done"
    files = [file for file in attempt.path.parent.rglob("*") if file.is_file() and file.name != "requests"]
    for secret in secrets.values():
        assert [file for file in files if secret.encode() in file.read_bytes()] == []


def test_tool_of_a_server_with_a_url_is_called_with_headers_and_credentials(cli: AgentCli, attempt_on: Prepare) -> None:
    with http_mcp_server() as mcp, cli.serve(cli.ask("Why?"), Says("done")) as server:
        # With a rule, the programs do not ask the proxy for a server on loopback, where their model is, too.
        settings = docs(url=mcp.url, headers={"X-Team": "red"}) | {"network": "open"}
        secrets = cli.secrets | {"mcp.docs.Authorization": f"Bearer {TOKEN}"}
        attempt = attempt_on(server, config=settings, secrets=secrets)
        attempt.run()

    assert attempt.tool_events[-1].output == "Why? over HTTP"
    assert (mcp.headers["X-Team"], mcp.headers["Authorization"]) == ("red", f"Bearer {TOKEN}")


@pytest.mark.parametrize(
    ("cli", "reason"), [(CLAUDE, "does not say why"), (CODEX, "No such file")], ids=["claude", "codex"]
)
def test_server_that_fails_to_start_is_logged(cli: AgentCli, attempt_on: Prepare, reason: str) -> None:
    with cli.serve(Says("done")) as server:
        attempt = attempt_on(server, config=docs(command="no-such-program"))
        attempt.run()

    assert any("the MCP server docs failed to start" in line and reason in line for line in attempt.logs)
    assert attempt.result == "done"
