"""Tests of the credentials of MCP servers."""

from pathlib import Path

import pytest

from labrats.executor.mcp_servers import mcp_servers
from labrats.model.config import JobConfig
from labrats.model.mcp_server import McpServer
from tests.unit.executor.attempts import a_task, some_work

PROGRAM = McpServer(command="docs", env={"LEVEL": "debug"}, credentials_ref="docs")
ADDRESS = McpServer(url="https://mcp.example.com/mcp", headers={"X-Team": "red"}, credentials_ref="wiki")
TOKEN = "test-token-0123456789"


def servers_of(tmp_path: Path, servers: dict[str, McpServer] | None, secrets: dict[str, str]) -> dict[str, McpServer]:
    with some_work(tmp_path, a_task(tmp_path, config=JobConfig(mcp_servers=servers)), secrets) as work:
        return mcp_servers(work.context)


def test_credentials_are_in_the_environment_of_a_program_and_in_headers_for_a_url(tmp_path: Path) -> None:
    secrets = {"mcp.docs.TOKEN": TOKEN, "mcp.docs.a.b": "x", "mcp.wiki.Authorization": f"Bearer {TOKEN}"}
    found = servers_of(tmp_path, {"docs": PROGRAM, "wiki": ADDRESS}, secrets)
    assert found["docs"].env == {"LEVEL": "debug", "TOKEN": TOKEN, "a.b": "x"}
    assert found["wiki"].headers == {"X-Team": "red", "Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("name", ["docs-2", "ocs", "mcp"])
def test_server_does_not_receive_credentials_of_another(tmp_path: Path, name: str) -> None:
    secrets = {"mcp.docs.TOKEN": TOKEN, "ANTHROPIC_API_KEY": TOKEN, "git-password": TOKEN}
    assert servers_of(tmp_path, {name: PROGRAM}, secrets) == {name: PROGRAM}


def test_job_without_mcp_servers_has_none(tmp_path: Path) -> None:
    assert servers_of(tmp_path, None, {}) == {}
