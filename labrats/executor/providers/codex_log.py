"""Read the log of Codex on its standard error.

It contains information that no event has: the pause that the model's server asks for, and the MCP servers that failed
to start.
"""

import re
from typing import Final

from labrats.executor.providers.standard_error import StandardError

LOG_VARIABLE: Final = "RUST_LOG"
LOG_FILTER: Final = "error,codex_http_client::client=debug,codex_mcp::rmcp_client=warn"
"""Log levels: errors as usual, a line with the headers of each response, and a line for each failed MCP server."""

_RESPONSE: Final = " codex_http_client::client: Request completed "
_MCP: Final = " codex_mcp::rmcp_client: "
_MCP_FAILED: Final = re.compile(_MCP + r'MCP server startup failed server_name="([^"]{1,200})" error=(.*)')
_PAUSING: Final = re.compile(r" status=(?:429|503|529) ")
_RETRY_AFTER: Final = re.compile(r'"retry-after": "(\d{1,9})"')


class CodexLog(StandardError):
    """The standard error of Codex, which grows by a line with each response."""

    @property
    def retry_after_seconds(self) -> float | None:
        """The pause that the server asked for in its latest response, if that was an error with Retry-After."""
        return retry_after_in(self.end)

    @property
    def failed_mcp_servers(self) -> dict[str, str]:
        """The MCP servers that failed to start, each with the reason. Codex logs them at its start."""
        return dict(_MCP_FAILED.findall(self.beginning))


def retry_after_in(log: str) -> float | None:
    """Return the pause that the server asked for in the last response in the log."""
    responses = [line for line in log.splitlines() if _RESPONSE in line]
    if not (responses and (status := _PAUSING.search(responses[-1]))):
        return None
    retry_after = _RETRY_AFTER.search(responses[-1], status.end())
    return float(retry_after[1]) if retry_after else None


def without_requested_lines(log: str) -> str:
    """Return the log without the lines that only LOG_FILTER has requested."""
    return "\n".join(line for line in log.splitlines() if _RESPONSE not in line and _MCP not in line)
