"""Tests of the real agent programs with a restricted network."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from labrats.model.mcp_server import McpServer
from labrats.model.network import AllowedHosts, Network
from labrats.model.protocol import Sandbox
from tests.agents import mcp_server
from tests.agents.agent_cli import AgentCli
from tests.agents.conftest import Prepare
from tests.support.http_server import ANSWER, an_http_server
from tests.support.scripted_model import Says


@pytest.mark.parametrize("network", ["none", AllowedHosts(allow=("registry.example",))], ids=["none", "allow"])
def test_program_reaches_its_model_and_its_tools_no_other_host(
    cli: AgentCli, attempt_on: Prepare, network: Network
) -> None:
    with an_http_server() as (port, requests):
        commands = [
            f"curl -sS -m 5 {options} http://localhost:{port}/" for options in ("--noproxy ''", "--noproxy '*'")
        ]
        with cli.serve(cli.shell(" 2>&1; ".join([*commands, "true"])), Says("ok")) as server:
            attempt = attempt_on(server)
            attempt.run()

    assert attempt.result == "ok"
    assert requests == []
    output = attempt.tool_events[-1].output or ""
    assert f"the network rule of this job does not allow localhost:{port}" in output
    assert "Failed to connect" in output
    assert attempt.outcome.outputs.refused_hosts == (f"localhost:{port}",)


def test_tools_reach_an_allowed_host(cli: AgentCli, attempt_on: Prepare) -> None:
    with an_http_server() as (port, requests):
        address = f"localhost:{port}"
        with cli.serve(cli.shell(f"curl -sS --noproxy '' http://{address}/package"), Says("ok")) as server:
            network = AllowedHosts(allow=(address,))
            attempt = attempt_on(server, config={"network": network})
            attempt.run()

    assert (attempt.result, requests) == ("ok", [f"GET /package {address}"])
    assert ANSWER.decode().strip() in (attempt.tool_events[-1].output or "")
    assert attempt.outcome.outputs.refused_hosts == ()


def test_program_of_an_mcp_server_reaches_an_allowed_host_and_no_other(
    cli: AgentCli, attempt_on: Prepare, sandbox: Sandbox, tmp_path: Path
) -> None:
    program = tmp_path / "server" / "mcp_server.py"
    program.parent.mkdir()
    program.write_text(Path(mcp_server.__file__).read_text())
    by_proxy_only = {"NO_PROXY": "", "no_proxy": ""}  # all test servers are on loopback
    docs = McpServer(command="/usr/bin/python3", args=(str(program), "fetch"), env=by_proxy_only)
    readable = replace(sandbox, readable=(*sandbox.readable, str(program.parent)))
    with an_http_server() as (port, requests):
        allowed, other = f"localhost:{port}", f"127.0.0.1:{port}"
        with cli.serve(*(cli.ask(f"http://{each}/") for each in (allowed, other)), Says("ok")) as server:
            config = {"network": AllowedHosts(allow=(allowed,)), "mcp_servers": {"docs": docs}}
            attempt = attempt_on(server, config=config, sandbox=readable)
            attempt.run()

    assert (attempt.result, requests) == ("ok", [f"GET / {allowed}"])
    outputs = [event.output or "" for event in attempt.tool_events if event.output]
    assert [ANSWER.decode().strip() in outputs[0], "HTTP Error 403" in outputs[1]] == [True, True]
    assert attempt.outcome.outputs.refused_hosts == (other,)
