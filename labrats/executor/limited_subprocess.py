"""Run a program of the executor that handles untrusted input with native code; see `limited_program`."""

import asyncio
import os
import sys
from pathlib import Path
from typing import IO, Final

from labrats.executor.agent_sandbox import sandboxed_tool
from labrats.executor.context import RunContext
from labrats.executor.providers.standard_error import StandardError
from labrats.executor.subprocesses import LineReader, child_process
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.sandbox.bubblewrap import contains

_SECONDS: Final = 120.0
"""Limit in wall-clock time, for a busy machine. The limit on CPU time is much lower."""

_SYSTEM: Final = Path("/usr")
_LIBRARIES: Final = (Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[1])

_MEMORY_ERROR: Final = MemoryError.__name__
_FIRST_OF_SIGNALS: Final = 128
"""Exit status of bubblewrap, plus the number of the signal, for a program that a signal has ended."""


async def output_of_limited(module: str, context: RunContext, stdin: bytes | Path) -> bytes | None:
    """Return the output of a module that runs as a program and limits itself. It runs in the attempt's sandbox, too.

    stdin: its input, or the file that contains it. Returns None if the program took more time or memory than it may.
    Raises GiveUp with the code `internal` if it failed for another reason, such as a sandbox that cannot be created.
    """
    program = [sys.executable, "-I", "-m", module]
    libraries = [path for path in _LIBRARIES if not contains(_SYSTEM, path)]
    with (
        _opened(stdin) as file,
        StandardError() as errors,
        sandboxed_tool(program, context, readable=libraries, offline=True) as command,
    ):
        try:
            async with (
                asyncio.timeout(_SECONDS),
                child_process(
                    command, context.workspace, context.environment(), stdin=file, stderr=errors.writable
                ) as process,
            ):
                errors.follow(process.kill)
                output = b"".join([line async for line in LineReader(process.output)])
                status = await process.exit_status()
        except TimeoutError:
            return None
        if status == 0:
            return output or None  # a line that is too long is skipped
        reason = errors.end.strip()
    if 0 < status < _FIRST_OF_SIGNALS and _MEMORY_ERROR not in reason:
        last = (reason.splitlines() or [f"exit status {status}"])[-1]
        raise GiveUp(FailedCode.INTERNAL, f"the program {module} failed: {last}")
    return None


def _opened(stdin: bytes | Path) -> IO[bytes]:
    if isinstance(stdin, Path):
        return stdin.open("rb")
    file = os.fdopen(os.memfd_create("stdin"), "w+b", buffering=0)
    file.write(stdin)
    file.seek(0)
    return file
