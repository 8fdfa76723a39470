"""Run programs for the model, to their end or to a limit, without leaving processes behind."""

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT
from typing import Final

from labrats.executor.process_exit import run_to_end
from labrats.executor.providers.react.arguments import InvalidToolCall
from labrats.executor.subprocesses import child_process
from labrats.model.job import FailedCode

OUTPUT_BYTES: Final = 4 * 1024 * 1024
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class CommandResult:
    """The result of a program. status: the exit status; None if it was killed at a limit, which `limit` describes."""

    output: str
    status: int | None
    limit: str = ""


async def run_program(
    command: Sequence[str],
    cwd: Path,
    environment: Mapping[str, str],
    seconds: float,
    enter: Callable[[], None] | None = None,
) -> CommandResult:
    """Run a program to its end, or kill it after `seconds` or 4 MiB of output.

    enter: see `child_process`. Raises InvalidToolCall, OSError, or LeftRunning if a process survives.
    """
    if any("\0" in word for word in command):
        raise InvalidToolCall("A command cannot contain a NUL character.")
    output = bytearray()
    program = child_process(command, cwd, environment, stderr=STDOUT, enter=enter)
    async with run_to_end(program, FailedCode.AGENT_ERROR) as (child, exited):
        try:
            async with asyncio.timeout(seconds):
                while len(output) < OUTPUT_BYTES and (chunk := await child.output.read(_READ_BYTES)):
                    output += chunk
                limit = f"printing {OUTPUT_BYTES // 1024**2} MiB" if len(output) >= OUTPUT_BYTES else ""
                status = None if limit else await exited
        except TimeoutError:
            status, limit = None, f"{seconds:g} seconds"
    return CommandResult(output.decode("utf-8", "replace"), status, limit)


def shell() -> str:
    """Return bash, which models expect, or sh if it is not installed."""
    return shutil.which("bash") or "sh"
