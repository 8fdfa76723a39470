"""MCP servers, which offer tools to agents through the Model Context Protocol."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from labrats.model.record import Record

MCP_SERVER_NAME: Final = r"^[A-Za-z0-9_-]{1,64}$"
MCP_SERVERS_BYTES: Final = 16 * 1024
"""The limit on all servers of a job together, as JSON. They are part of its settings, which stay small."""


class McpServer(Record):
    """An MCP server: a program to start, or a URL.

    command, args, env: the program, which uses standard input and output and runs in the environment of the agent.
    url, headers:       a running server that speaks streamable HTTP.
    credentials_ref:    the Secret whose keys are added to `env` or `headers`. Only agents may set it, not submissions.
    """

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str | None = None
    headers: dict[str, str] = {}
    credentials_ref: str | None = None


def problem_of_mcp_servers(servers: Mapping[str, McpServer]) -> str | None:
    """Return the first problem of the servers; None if all are valid."""
    for name, server in servers.items():
        if not re.fullmatch(MCP_SERVER_NAME, name):
            return f"the name {name[:100]!r} must be 1 to 64 letters, digits, dashes or underscores"
        if problem := problem_of_mcp_server(server):
            return f"{name}: {problem}"
    if len(msgspec.json.encode(servers)) > MCP_SERVERS_BYTES:
        return f"must be at most {MCP_SERVERS_BYTES // 1024} KiB in total"
    return None


def problem_of_mcp_server(server: McpServer) -> str | None:
    """Return the first problem of a server; None if it is valid."""
    if (server.command is None) == (server.url is None):
        return "must have either a `command` to start or the `url` of one that runs"
    if server.command is None and (server.args or server.env):
        return "`args` and `env` are for a `command`"
    if server.url is None and server.headers:
        return "`headers` are for a `url`"
    return None


def credential_file(server: str, key: str) -> str:
    """Return the name, among the secrets of an attempt, of a value from a server's Secret."""
    return f"mcp.{server}.{key}"  # no server has a dot in its name
