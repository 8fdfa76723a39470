"""Runs programs for the model, to their end or to a limit, and leaves none of them behind."""

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT
from typing import Final

from labrats.executor.providers.react.arguments import InvalidToolCall
from labrats.executor.subprocesses import Subprocess, child_process
from labrats.processes import kill_descendants

OUTPUT_BYTES: Final = 4 * 1024 * 1024
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Ended:
    """A program that has ended. status: of its exit; None where it was ended at a limit, which `limit` names."""

    output: str
    status: int | None
    limit: str = ""


async def run_program(command: Sequence[str], cwd: Path, environment: Mapping[str, str], seconds: float) -> Ended:
    """Run a program to its end; it is ended after `seconds`, and when it has printed 4 MiB. Raises InvalidToolCall or OSError.

    Everything below this process is then ended: what a program leaves running would work on unseen.
    """
    if any("\0" in word for word in command):
        raise InvalidToolCall("A command cannot contain a NUL character.")
    output = bytearray()
    async with child_process(command, cwd, environment, stderr=STDOUT) as child:
        ended = asyncio.create_task(_end_of(child))
        try:
            async with asyncio.timeout(seconds):
                while len(output) < OUTPUT_BYTES and (chunk := await child.output.read(_READ_BYTES)):
                    output += chunk
                limit = f"it had printed more than {OUTPUT_BYTES // 1024**2} MiB" if len(output) >= OUTPUT_BYTES else ""
                status = None if limit else await ended
        except TimeoutError:
            status, limit = None, f"it had run for {seconds:g} seconds"
        finally:
            ended.cancel()
            kill_descendants(os.getpid())
    return Ended(output.decode("utf-8", "replace"), status, limit)


def shell() -> str:
    """The shell that models expect, or the one that is there."""
    return shutil.which("bash") or "sh"


async def _end_of(child: Subprocess) -> int:
    """Wait for its exit status; then end what it left running, which may hold its output open for ever."""
    status = await child.exit_status()
    kill_descendants(os.getpid())
    return status
