"""Run the command-line program of an agent. Shared by the providers that drive one."""

import asyncio
import fcntl
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from labrats.executor.agent_sandbox import sandboxed_command
from labrats.executor.context import RunContext, SessionLost
from labrats.executor.egress.agent_network import agent_network
from labrats.executor.leftovers import LeftRunning
from labrats.executor.process_exit import describe_status, run_to_end
from labrats.executor.providers.standard_error import MOST_BYTES, StandardError
from labrats.executor.subprocesses import LineReader, Subprocess, child_process
from labrats.files.trees import is_plain_folder, remove_links_and_special_files, remove_path
from labrats.model.acp_programs import install_command_of
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.provider_spec import AGENT_PROGRAMS
from labrats.processes import denied_program

_GRACE_SECONDS: Final = 3.0
_FINAL_OUTPUT_SECONDS: Final = 3.0
"""Time to read a program's output after SIGINT. Both periods together are shorter than the grace period of an attempt,
so that its outcome can still be reported.
"""

_STDERR_SUMMARY_BYTES: Final = 2000

_ALL_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

MAX_PAUSE_SECONDS: Final = 10.0
"""Longest pause for which a program may wait. If a server asks for more, the attempt ends and releases its slot."""


@dataclass(frozen=True)
class ProgramExit:
    """The exit of a program.

    status:            the exit status; negative for a signal.
    stderr:            the end of standard error.
    has_skipped_lines: True if the program has printed a line that was too long to read.
    """

    status: int
    stderr: str = ""
    has_skipped_lines: bool = False

    def __str__(self) -> str:
        return describe_status(self.status)

    @property
    def stderr_summary(self) -> str:
        """The end of standard error, in one line."""
        return " ".join(self.stderr[-_STDERR_SUMMARY_BYTES:].split()) or "it gave no reason"


async def run_cli(
    context: RunContext,
    command: Sequence[str],
    environment: Mapping[str, str],
    on_line: Callable[[bytes], None],
    *,
    on_final_line: Callable[[bytes], None] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    inherited: Collection[int] = (),
    stderr: StandardError | None = None,
    shared: Collection[Path] = (),
    stdin: BinaryIO | None = None,
    interrupt: Callable[[Subprocess], None] = Subprocess.interrupt,
) -> ProgramExit:
    """Run `command` in the workspace with the prompt on standard input, and call `on_line` with each line of output.

    Reading continues until the program and the processes that it left running have exited. If `on_line` raises or the
    caller is cancelled, the program is ended early. Raises LeftRunning if a process survives.

    on_final_line: called with the output after `interrupt` when the program is ended early. If None, it is not
                   interrupted.
    stop_signal:   the signal that then asks the program to end.
    inherited:     file descriptors that the program inherits.
    stderr:        the program's standard error, if the caller reads it while the program runs.
    shared:        see `sandboxed_command`.
    stdin:         the program's standard input, if it is not the prompt.
    interrupt:     asks the program to stop its work; by default SIGINT.
    """
    with (
        nullcontext(stdin) if stdin else _file_in_memory(context.prompt) as input_file,
        nullcontext(stderr) if stderr else StandardError() as errors,
        sandboxed_command(command, context, shared) as full_command,
    ):
        async with agent_network(context) as network:
            program = child_process(
                full_command,
                context.workspace,
                {**environment, **network.variables},
                stdin=input_file,
                stderr=errors.writable,
                grace_seconds=_GRACE_SECONDS,
                stop_signal=stop_signal,
                inherited=inherited,
                in_sandbox=context.task.sandbox is not None,
                enter=network.enter,
            )
            async with run_to_end(program, FailedCode.AGENT_ERROR) as (process, exited):
                errors.follow(on_overflow=process.kill)
                lines = LineReader(process.output)
                try:
                    async for line in lines:
                        on_line(line)
                    status = await exited
                except BaseException:
                    if on_final_line:
                        interrupt(process)
                        await _read_final_lines(lines, on_final_line)
                    raise
        errors.finish()
        if errors.has_overflowed:
            message = f"the agent's program wrote more than {MOST_BYTES // 2**20} MiB to standard error"
            raise GiveUp(FailedCode.OUTPUT_LIMIT, message)
        return ProgramExit(status, context.events.clean(errors.end), lines.has_skipped_lines)


@contextmanager
def _file_in_memory(text: str) -> Iterator[BinaryIO]:
    """Yield a file with `text` that is on no disk, to be read from its start. Its reader cannot fill it."""
    with open(os.memfd_create("prompt", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b", buffering=0) as file:
        file.write(text.encode())
        file.seek(0)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _ALL_SEALS)
        yield file


def no_result_failure(name: str, program_exit: ProgramExit) -> GiveUp:
    """Return the failure of a program that has exited without a result."""
    if program_exit.has_skipped_lines:
        return GiveUp(FailedCode.OUTPUT_LIMIT, f"{name} printed a line of more than 64 MiB and no result")
    return GiveUp(FailedCode.AGENT_ERROR, f"{name} {program_exit} without a result: {program_exit.stderr_summary}")


async def _read_final_lines(lines: LineReader, on_final_line: Callable[[bytes], None]) -> None:
    """Pass the further output of an interrupted program to `on_final_line` for a limited time."""
    with suppress(TimeoutError, LeftRunning):
        async with asyncio.timeout(_FINAL_OUTPUT_SECONDS):
            async for line in lines:
                on_final_line(line)


def recreate_config_folder(context: RunContext, name: str, sessions: str) -> Path:
    """Create the program's configuration folder `name` in the agent's home, without the files of an earlier attempt.

    Only the files of `sessions` are retained. Other files could redirect the program and its credentials, since an
    agent can write them. At a pipe, or a link to a device, the program would wait for ever. Raises SessionLost if the
    folder cannot be created.
    """
    home = context.home
    folder, old = home / name, home / f"{name}.{secrets.token_hex(4)}"
    try:
        if os.path.lexists(folder):
            folder.rename(old)
        folder.mkdir(mode=0o700)
        if is_plain_folder(old) and is_plain_folder(old / sessions):
            (old / sessions).rename(folder / sessions)
            remove_links_and_special_files(folder / sessions)
        remove_path(old)
    except OSError as error:
        raise SessionLost(f"the home of the earlier attempt cannot be used: {error.strerror}") from error
    return folder


def find_program(context: RunContext, provider: str, name: str, package: str) -> str:
    """Return the path of a provider's program, named like the provider. Raises GiveUp if it cannot be executed."""
    variable, configured = f"LABRATS_{provider.upper()}_PATH", context.task.programs.get(provider)
    if program := shutil.which(configured or provider):
        return program
    if denied := denied_program(configured or provider):
        raise GiveUp(FailedCode.INVALID, f"{name} cannot be run: {denied}")
    problem = (
        f"{variable} is {configured}, which is no program"
        if configured
        else f"{name} is not installed: run `npm install -g {package}`, or set {variable} to the program"
    )
    raise GiveUp(FailedCode.INVALID, f"{problem}; on Kubernetes, add it to the executor's image")


def find_acp_program(name: str) -> str:
    """Return the path of the program that an AiModel's command names. Raises GiveUp if it cannot be executed."""
    if program := shutil.which(name):
        return program
    if denied := denied_program(name):
        raise GiveUp(FailedCode.INVALID, f"{name} cannot be run: {denied}")
    command = install_command_of(name)
    advice = f"run `{command}`" if command else "install it, or name its path in the AiModel's `command`"
    raise GiveUp(
        FailedCode.INVALID, f"{name} is not installed: {advice}; on Kubernetes, add it to the executor's image"
    )


def warn_of_old_program(context: RunContext, provider: str, version: str) -> None:
    """Write a warning to the log if the version that the program has reported is older than the minimum."""
    if problem := AGENT_PROGRAMS[provider].problem_of(version):
        context.events.log(f"[{problem}]")
