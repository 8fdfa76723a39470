"""Servers of tools for agents, which speak the Model Context Protocol (MCP)."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from labrats.model.record import Record

MCP_SERVER_NAME: Final = r"^[A-Za-z0-9_-]{1,64}$"
MCP_SERVERS_BYTES: Final = 16 * 1024
"""All of them together, as JSON. They are part of a job's settings, which stay small."""


class McpServer(Record):
    """A server of tools: a program to start, or an address.

    command, args, env: the program, which speaks on standard input and output, in the agent's place and surroundings.
    url, headers:       where another one listens, for streamable HTTP.
    credentials_ref:    the Secret whose keys are added to `env`, or to `headers`. Agents have it, and no submission.
    """

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str | None = None
    headers: dict[str, str] = {}
    credentials_ref: str | None = None


def problem_of_mcp_servers(servers: Mapping[str, McpServer]) -> str | None:
    """What is wrong with them, in words; None where all is well."""
    for name, server in servers.items():
        if not re.fullmatch(MCP_SERVER_NAME, name):
            return f"the name {name[:100]!r} must be of 1 to 64 letters, digits, dashes and underscores"
        if problem := problem_of_mcp_server(server):
            return f"{name}: {problem}"
    if len(msgspec.json.encode(servers)) > MCP_SERVERS_BYTES:
        return f"must be at most {MCP_SERVERS_BYTES // 1024} KiB in all"
    return None


def problem_of_mcp_server(server: McpServer) -> str | None:
    """What is wrong with this one."""
    if (server.command is None) == (server.url is None):
        return "must have either a `command` to start or the `url` of one that runs"
    if server.command is None and (server.args or server.env):
        return "`args` and `env` are for a `command`"
    if server.url is None and server.headers:
        return "`headers` are for a `url`"
    return None


def credential_file(server: str, key: str) -> str:
    """How the value that a server's Secret has by `key` is called among the secrets of an attempt."""
    return f"mcp.{server}.{key}"  # no server has a dot in its name
