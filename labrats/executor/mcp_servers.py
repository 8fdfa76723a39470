"""The MCP servers of a job, with their credentials."""

from msgspec.structs import replace

from labrats.executor.context import RunContext
from labrats.model.mcp_server import McpServer, credential_file


def mcp_servers(context: RunContext) -> dict[str, McpServer]:
    """Return the job's MCP servers, each with the values of its Secret in its environment or its headers."""
    return {
        name: _with_credentials(server, name, context)
        for name, server in (context.task.config.mcp_servers or {}).items()
    }


def _with_credentials(server: McpServer, name: str, context: RunContext) -> McpServer:
    prefix = credential_file(name, "")
    credentials = {
        file.removeprefix(prefix): value for file, value in context.secrets.items() if file.startswith(prefix)
    }
    if server.url is not None:
        return replace(server, headers=server.headers | credentials)
    return replace(server, env=server.env | credentials)
