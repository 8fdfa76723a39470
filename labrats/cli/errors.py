"""The errors that end a command, and the exit codes of commands."""

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """The exit codes, documented in `labrats --help` and docs/operate.md. Scripts rely on the numbers."""

    OK = 0
    JOB_FAILED = 1
    CHECK_FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    JOB_CANCELLED = 5
    OUTPUT_FAILED = 6


EXIT_CODES_HELP: Final = (
    "Exit codes: 0 ok, 1 the job failed, 2 wrong usage or rejected values, 3 engine unreachable or overloaded, "
    "4 not found or not allowed, 5 the job was cancelled, 6 the output could not be written, 130 interrupted."
)

CODE_OF_STATUS: Final = {
    "completed": ExitCode.OK,
    "failed": ExitCode.JOB_FAILED,
    "cancelled": ExitCode.JOB_CANCELLED,
}
"""The exit code of a command that waited for a job, by the status with which the job ended."""


class CommandError(Exception):
    """An error that ends the command. Its message is for people and goes to stderr."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


class EngineUnreachable(CommandError):
    """A failed request: the engine did not answer, or the connection broke. It may be down or restarting."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.UNREACHABLE)
