"""Runs the command line of an agent to its end: what the providers that drive one have in common."""

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final

from labrats.executor.agent_sandbox import sandboxed_command
from labrats.executor.context import RunContext, SessionLost
from labrats.executor.subprocesses import LineReader, Subprocess, child_process
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.processes import kill_descendants

_GRACE_SECONDS: Final = 3.0
_LAST_WORDS_SECONDS: Final = 3.0
"""Together less than the time an attempt has to stop, so that its outcome can still be reported."""

_LAST_WORDS_BYTES: Final = 2000
_COMPLAINTS_BYTES: Final = 64 * 1024
_MOST_COMPLAINTS_BYTES: Final = 64 * 1024 * 1024

MAX_PAUSE_SECONDS: Final = 10.0
"""A longer pause is none of the program's: the attempt gives up, so that its slot is not held by a job that waits."""


@dataclass(frozen=True)
class ProgramExit:
    """The end of a program. status: of its exit; negative for a signal. complaints: the end of its standard error.

    has_left_out: whether it has printed a line that was too long to be read.
    """

    status: int
    complaints: str = ""
    has_skipped_lines: bool = False

    def __str__(self) -> str:
        if self.status >= 0:
            return f"exited with code {self.status}"
        return f"was ended by {signal.Signals(-self.status).name}"

    @property
    def stderr_summary(self) -> str:
        """Its complaints in one line."""
        return " ".join(self.complaints[-_LAST_WORDS_BYTES:].split()) or "it gave no reason"


async def run_cli(
    context: RunContext,
    command: Sequence[str],
    environment: Mapping[str, str],
    tell: Callable[[bytes], None],
    *,
    tell_ending: Callable[[bytes], None] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    inherited: Collection[int] = (),
    complaints: BinaryIO | None = None,
    shared: Collection[Path] = (),
) -> ProgramExit:
    """Run `command` in the workspace, with the prompt on its standard input, and `tell` each line that it prints.

    All that it prints is read, until it and what it left running have ended. It is ended early when `tell` raises, or
    the caller is cancelled. tell_ending: hears what a program prints that is then asked by SIGINT to end, before
    anything else is done to it. stop_signal: what ends it next. inherited: file descriptors that it is to find open.
    complaints: the file that its standard error goes to, where it is of interest meanwhile. shared: see `sandboxed_command`.
    """
    scratch = environment["TMPDIR"]
    with TemporaryFile(dir=scratch) as stdin, _kept_open(complaints, scratch) as stderr:
        stdin.write(context.prompt.encode())
        stdin.seek(0)
        async with child_process(
            sandboxed_command(command, context, shared),
            context.workspace,
            environment,
            stdin=stdin,
            stderr=stderr,
            grace_seconds=_GRACE_SECONDS,
            stop_signal=stop_signal,
            inherited=inherited,
            in_sandbox=context.task.sandbox is not None,
        ) as process:
            ended = asyncio.create_task(_end_of(process))
            flooded = asyncio.create_task(_flood(stderr, process))
            lines = LineReader(process.output)
            try:
                async for line in lines:
                    tell(line)
            except BaseException:
                if tell_ending:
                    await _hear_ending(process, lines, tell_ending)
                raise
            finally:
                flooded.cancel()
            status = await ended
        if flooded.done() and not flooded.cancelled():
            message = f"the agent's program wrote more than {_MOST_COMPLAINTS_BYTES // 2**20} MiB to standard error"
            raise GiveUp(FailedCode.OUTPUT_LIMIT, message)
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _COMPLAINTS_BYTES))
        return ProgramExit(status, stderr.read().decode("utf-8", "replace"), lines.has_skipped_lines)


async def _flood(stderr: BinaryIO, process: Subprocess) -> None:
    """Kill the program, and return, once standard error has grown too large: a file that nobody sees."""
    while os.fstat(stderr.fileno()).st_size <= _MOST_COMPLAINTS_BYTES:
        await asyncio.sleep(1)
    process.kill()


def no_result_failure(name: str, ending: ProgramExit) -> GiveUp:
    """Return the failure of a program that has ended without a result."""
    if ending.has_skipped_lines:
        return GiveUp(FailedCode.OUTPUT_LIMIT, f"{name} printed a line of more than 64 MiB, and no shorter result")
    return GiveUp(FailedCode.AGENT_ERROR, f"{name} {ending} without a result: {ending.stderr_summary}")


def _kept_open(file: BinaryIO | None, folder: str) -> AbstractContextManager[BinaryIO]:
    """`file`, which stays open afterwards; or a new one in `folder`, which is gone then."""
    return nullcontext(file) if file else TemporaryFile(dir=folder)


async def _hear_ending(process: Subprocess, lines: LineReader, tell: Callable[[bytes], None]) -> None:
    """Ask the program by SIGINT to end, and `tell` what it still prints, for a while."""
    process.interrupt()
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            async for line in lines:
                tell(line)


async def _end_of(process: Subprocess) -> int:
    """Wait for its exit status; then end what it left running, which may hold its output open for ever."""
    status = await process.exit_status()
    kill_descendants(os.getpid())
    return status


def recreate_config_folder(context: RunContext, name: str, sessions: str) -> Path:
    """The folder `name` in the agent's home that its program is set up by, made anew.

    Of what an earlier attempt has left there only `sessions` stays: whatever else an agent puts there could lead the
    program elsewhere, together with the credentials that it is given. Raises SessionLost where that cannot be done.
    """
    home = Path(context.agent_environment()["HOME"])
    folder, left = home / name, home / f"{name}.{secrets.token_hex(4)}"
    try:
        if os.path.lexists(folder):
            folder.rename(left)
        folder.mkdir(mode=0o700)
        if is_plain_folder(left) and is_plain_folder(left / sessions):
            (left / sessions).rename(folder / sessions)
        remove_path(left)
    except OSError as error:
        raise SessionLost(f"the home of the earlier attempt cannot be used: {error.strerror}") from error
    return folder


def is_plain_folder(path: Path) -> bool:
    """Whether a folder is there, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def remove_path(path: Path) -> None:
    """Remove what an agent may have put there: a file, a folder, a link, or nothing."""
    if is_plain_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def find_program(context: RunContext, provider: str, name: str, package: str) -> str:
    """The path of a provider's program, which is called `provider` on PATH. Raises GiveUp when it is not there."""
    if program := context.task.programs.get(provider) or shutil.which(provider):
        return program
    raise GiveUp(
        FailedCode.AGENT_ERROR,
        f"{name} is not installed here: run `npm install -g {package}`, or set LABRATS_{provider.upper()}_PATH to the "
        "program; on Kubernetes, have the executor's image bring it",
    )
