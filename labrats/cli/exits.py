"""How a command ends: its exit code, and the one exception that ends it early."""

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """What the shell is told. Documented in `labrats --help` and docs/operate.md; scripts rely on the numbers."""

    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    JOB_CANCELLED = 5


EXIT_CODES_HELP: Final = (
    "Exit codes: 0 ok, 1 the job failed, 2 wrong usage or refused values, 3 engine unreachable or overloaded, "
    "4 not found or not allowed, 5 the job was cancelled, 130 interrupted."
)

CODE_OF_STATUS: Final = {
    "completed": ExitCode.OK,
    "failed": ExitCode.JOB_FAILED,
    "cancelled": ExitCode.JOB_CANCELLED,
}
"""The exit code that an ended job's status means to a command that waited for it."""


class CommandError(Exception):
    """Ends the command. `message` is for people and goes to stderr."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


class EngineUnreachable(CommandError):
    """No answer came, or the connection broke: the engine may be down, or about to be back."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.UNREACHABLE)
