"""What Codex logs on its standard error, and tells in no event: how long the model's server wants to be left alone, and
which MCP servers failed to start.
"""

import os
import re
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final, Self

LOG_VARIABLE: Final = "RUST_LOG"
LOG_FILTER: Final = "error,codex_http_client::client=debug,codex_mcp::rmcp_client=warn"
"""A line for each answer of the server, with its headers, and one for each MCP server that is not there, beside what it
would complain of anyway.
"""

_END_BYTES: Final = 64 * 1024
"""How much is read of either end of the log, to which a long run adds a line for each answer."""

_ANSWERED: Final = " codex_http_client::client: Request completed "
_OF_MCP: Final = " codex_mcp::rmcp_client: "
_MCP_FAILED: Final = re.compile(_OF_MCP + r'MCP server startup failed server_name="([^"]+)" error=(.*)')
_RETRY_AFTER: Final = re.compile(r' status=(?:429|503|529) .* headers=\{.*"retry-after": "(\d{1,9})"')


class CodexLog:
    """The file that Codex complains and logs to, in `folder`. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.file: BinaryIO = TemporaryFile(dir=folder)  # noqa: SIM115 - closed on leaving

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def retry_after_seconds(self) -> float | None:
        """How long the server asked to be left alone in its latest answer, if that was a refusal that says so."""
        size = os.fstat(self.file.fileno()).st_size
        return retry_after_in(self._read(max(0, size - _END_BYTES)))

    @property
    def failed_mcp_servers(self) -> dict[str, str]:
        """The MCP servers that could not be started or reached, each with the reason. Codex says so first of all."""
        return dict(_MCP_FAILED.findall(self._read(0)))

    def _read(self, offset: int) -> str:
        return os.pread(self.file.fileno(), _END_BYTES, offset).decode("utf-8", "replace")


def retry_after_in(log: str) -> float | None:
    """How long the server asked to be left alone in the last of the answers that the log tells of."""
    answers = [line for line in log.splitlines() if _ANSWERED in line]
    asked = _RETRY_AFTER.search(answers[-1]) if answers else None
    return float(asked[1]) if asked else None


def complaints_in(log: str) -> str:
    """What Codex complains of: the log without what was asked of it."""
    return "\n".join(line for line in log.splitlines() if _ANSWERED not in line and _OF_MCP not in line)
