"""Read the log of Codex on its standard error.

It contains information that no event has: the pause that the model's server asks for, and the MCP servers that failed
to start.
"""

import os
import re
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final, Self

LOG_VARIABLE: Final = "RUST_LOG"
LOG_FILTER: Final = "error,codex_http_client::client=debug,codex_mcp::rmcp_client=warn"
"""Log levels: errors as usual, a line with the headers of each response, and a line for each failed MCP server."""

_READ_BYTES: Final = 64 * 1024
"""Size of the part that is read from the start or end of the log, which grows by a line with each response."""

_RESPONSE: Final = " codex_http_client::client: Request completed "
_MCP: Final = " codex_mcp::rmcp_client: "
_MCP_FAILED: Final = re.compile(_MCP + r'MCP server startup failed server_name="([^"]+)" error=(.*)')
_RETRY_AFTER: Final = re.compile(r' status=(?:429|503|529) .* headers=\{.*"retry-after": "(\d{1,9})"')


class CodexLog:
    """The file for the standard error of Codex, in `folder`. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.file: BinaryIO = TemporaryFile(dir=folder)  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def retry_after_seconds(self) -> float | None:
        """The pause that the server asked for in its latest response, if that was an error with Retry-After."""
        size = os.fstat(self.file.fileno()).st_size
        return retry_after_in(self._read(max(0, size - _READ_BYTES)))

    @property
    def failed_mcp_servers(self) -> dict[str, str]:
        """The MCP servers that failed to start, each with the reason. Codex logs them at its start."""
        return dict(_MCP_FAILED.findall(self._read(0)))

    def _read(self, offset: int) -> str:
        return os.pread(self.file.fileno(), _READ_BYTES, offset).decode("utf-8", "replace")


def retry_after_in(log: str) -> float | None:
    """Return the pause that the server asked for in the last response in the log."""
    responses = [line for line in log.splitlines() if _RESPONSE in line]
    retry_after = _RETRY_AFTER.search(responses[-1]) if responses else None
    return float(retry_after[1]) if retry_after else None


def without_requested_lines(log: str) -> str:
    """Return the log without the lines that only LOG_FILTER has requested."""
    return "\n".join(line for line in log.splitlines() if _RESPONSE not in line and _MCP not in line)
