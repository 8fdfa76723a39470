"""What Codex logs on its standard error: how long the server wants to be left alone is told in no event."""

import os
import re
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final, Self

LOG_VARIABLE: Final = "RUST_LOG"
LOG_FILTER: Final = "error,codex_http_client::client=debug"
"""A line for each answer of the server, with its headers, beside what it would complain of anyway."""

_TAIL_BYTES: Final = 64 * 1024
_ANSWERED: Final = " codex_http_client::client: Request completed "
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
        descriptor = self.file.fileno()
        tail = os.pread(descriptor, _TAIL_BYTES, max(0, os.fstat(descriptor).st_size - _TAIL_BYTES))
        return retry_after_in(tail.decode("utf-8", "replace"))


def retry_after_in(log: str) -> float | None:
    """How long the server asked to be left alone in the last of the answers that the log tells of."""
    answers = [line for line in log.splitlines() if _ANSWERED in line]
    asked = _RETRY_AFTER.search(answers[-1]) if answers else None
    return float(asked[1]) if asked else None


def complaints_in(log: str) -> str:
    """What Codex complains of: the log without the server's answers."""
    return "\n".join(line for line in log.splitlines() if _ANSWERED not in line)
