"""Run a program of the executor that handles untrusted input with native code; see `limited_program`."""

import asyncio
import os
import sys
from pathlib import Path
from typing import IO, Final

from labrats.executor.agent_sandbox import sandboxed_tool
from labrats.executor.context import RunContext
from labrats.executor.subprocesses import LineReader, child_process

_SECONDS: Final = 120.0
"""Limit in wall-clock time, for a busy machine. The limit on CPU time is much lower."""

_PACKAGE: Final = Path(__file__).parents[1]


async def output_of_limited(module: str, context: RunContext, stdin: bytes | Path) -> bytes | None:
    """Return the output of a module that runs as a program and limits itself. It runs in the attempt's sandbox, too.

    stdin: its input, or the file that contains it. Returns None if the program took more time or memory than it may.
    """
    program = [sys.executable, "-I", "-m", module]
    libraries = [Path(sys.base_prefix), Path(sys.prefix), _PACKAGE]
    with _opened(stdin) as file, sandboxed_tool(program, context, readable=libraries, offline=True) as command:
        try:
            async with (
                asyncio.timeout(_SECONDS),
                child_process(command, context.workspace, context.environment(), stdin=file) as process,
            ):
                output = b"".join([line async for line in LineReader(process.output)])
                status = await process.exit_status()
        except TimeoutError:
            return None
    return output if status == 0 and output else None


def _opened(stdin: bytes | Path) -> IO[bytes]:
    if isinstance(stdin, Path):
        return stdin.open("rb")
    file = os.fdopen(os.memfd_create("stdin"), "w+b", buffering=0)
    file.write(stdin)
    file.seek(0)
    return file
