"""One attempt, from its folder of inputs to its terminal event."""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from labrats.executor import pdf_sections
from labrats.executor.context import RunContext, SessionLost
from labrats.executor.event_writer import EventWriter
from labrats.executor.prices import require_price
from labrats.executor.providers.registry import WITH_SESSIONS, Provider, provider_named
from labrats.executor.workspace import prepare_workspace
from labrats.executor.workspace_diff import (
    Baseline,
    load_baseline,
    record_baseline,
    remove_baseline,
    report_changes,
    store_baseline,
)
from labrats.model.config import BUILT_IN_LAYER, GLOBAL_LAYER, TAKEN_BY, ResolvedConfig, wire_name
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import CREDENTIALS_FOLDER, NEXT_SEQ_FILE, REDACTED_ONLY, Task
from labrats.model.redaction import Redactor
from labrats.processes import hides_processes, kill_descendants
from labrats.sandbox import scope_sockets

STDOUT: Final = 1
_GENERAL_LAYERS: Final = (GLOBAL_LAYER, BUILT_IN_LAYER)
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc: Final = ctypes.CDLL(None, use_errno=True)
_TASK_DECODER: Final = msgspec.json.Decoder(Task)

RESUME_PROMPT: Final = """\
You were interrupted before you had finished. Now go on.

Your workspace is as you left it. Commands that were running have been ended, and may have been cut off in the middle of
their work. See how far you had come, then finish what you were asked to do at the beginning.
"""
"""What an agent is asked that goes on with its session."""


@dataclass(frozen=True)
class Succeeded:
    """The provider returned this."""

    result: Any


def execute(inputs: Path, scratch: Path | None = None) -> int:
    """Run the attempt whose inputs are in `inputs`, printing its events. Returns the status to exit with, at once.

    scratch: a folder to write to, of which nothing is kept. Without it everything is written beside the inputs.
    """
    become_subreaper()
    become_unreadable()
    # Not asyncio.run(): it tidies up a loop that the exit takes away anyhow, for a tenth of a short attempt's cost.
    return asyncio.new_event_loop().run_until_complete(run_attempt(inputs, scratch))


def become_subreaper() -> None:
    """From now on the orphans among this process's descendants become its children, whatever session they are in."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def become_unreadable() -> None:
    """Keep other processes of this user from reading the memory of this one, where the secrets are.

    What it executes can be read again. Where /proc shows a user only what that user may trace, this process would be
    hidden from the engine as well, which finds its executors there: it then stays as it is.
    """
    if not hides_processes() and _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


async def run_attempt(inputs: Path, scratch: Path | None = None) -> int:
    """Work until done, failed, out of time or asked to stop; end every process below this one; say how it ended."""
    stop_on_signals()
    secrets = read_secrets(inputs / "secrets")
    folder, redactor = scratch or inputs, Redactor(values_to_redact(secrets))
    events = EventWriter(STDOUT, None if scratch else inputs, redactor, first_seq=_first_seq(folder))

    async def work() -> Any:
        _remove_secrets(inputs / "secrets")
        return await run_with_timeout(_work, _read_run(inputs, folder, secrets, events))

    outcome = await outcome_of(work, events)
    if not _end_descendants():
        with contextlib.suppress(GiveUp):  # the output is full
            events.log("[a process of this attempt could not be ended]")
    if failure := _remove_credentials(folder / CREDENTIALS_FOLDER):
        outcome = failure
    if isinstance(outcome, Succeeded):
        try:
            events.result(outcome.result)
        except GiveUp as too_large:
            outcome = too_large
        else:
            return 0
    events.error(FailedCode(outcome.code), str(outcome), outcome.retry_after_seconds)
    return 1


def _remove_credentials(folder: Path) -> GiveUp | None:
    """Remove the files with secrets. Return a failure where one stays, for then the attempt has no other end."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        return GiveUp(FailedCode.INTERNAL, f"the attempt's credentials cannot be removed: {error.strerror}")
    return None


async def outcome_of(work: Callable[[], Awaitable[Any]], events: EventWriter) -> Succeeded | GiveUp:
    """Do the work, and return how it ended."""
    try:
        return Succeeded(await work())
    except GiveUp as failure:
        return failure
    except asyncio.CancelledError:
        return GiveUp(FailedCode.AGENT_ERROR, "stopped on request")
    except Exception as error:  # noqa: BLE001 - the last one to know of it: what is not said here is lost
        sys.stderr.write(events.clean(traceback.format_exc()))
        return GiveUp(FailedCode.INTERNAL, f"the executor failed unexpectedly: {type(error).__name__}: {error}")


async def run_with_timeout(work: Callable[[RunContext], Awaitable[Any]], context: RunContext) -> Any:
    """Return what `work` returns. Raises GiveUp when it takes longer than the job may."""
    seconds = ResolvedConfig(config=context.task.config).timeout_seconds
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            return await work(context)
    except TimeoutError as error:
        if deadline.expired():
            raise GiveUp(FailedCode.TIMEOUT, f"the run took longer than its {seconds:g} seconds") from error
        raise  # some other timeout, of the work itself


async def _work(context: RunContext) -> Any:
    provider = provider_named(context.task.config.provider or "")
    require_price(context.task)
    if context.task.repository is None:  # otherwise the step before this one has said so
        context.events.status("started")
    if context.task.sandbox:
        scope_sockets()
    _tell_ignored_settings(context)
    if earlier := _earlier_work(context):
        try:
            return await _let_work(*earlier, provider)
        except SessionLost:
            context.events.log("[it begins anew: the agent's program does not know that session any more]")
    await prepare_workspace(context)
    return await _let_work(context, await record_baseline(context), provider)


def _tell_ignored_settings(context: RunContext) -> None:
    """Log each setting that somebody has made for this job or its kind, and its provider does not take."""
    config, origins = context.task.config, context.task.selection.origins
    for field, providers in TAKEN_BY.items():
        name = wire_name(field)
        is_general = origins.get(name) in _GENERAL_LAYERS  # meant for all jobs, whatever their providers take
        value = getattr(config, field)
        if value and not is_general and config.provider not in providers:
            takers = f"providers {' and '.join(providers)} take" if providers[1:] else f"provider {providers[0]} takes"
            context.events.log(
                f"[config.{name} is left out: only the {takers} {'any' if isinstance(value, dict) else 'it'}]"
            )


def _earlier_work(context: RunContext) -> tuple[RunContext, Baseline] | None:
    """What the attempt goes on with, and what its workspace was like before the first that worked in it. None where it
    begins anew; where it was to go on, the log says so.
    """
    if (resumption := context.task.resumption) is None:
        return None
    number = resumption.session.attempt
    if resumption.workspace and resumption.folder:
        resumed = replace(context, prompt=RESUME_PROMPT, folder=Path(resumption.folder), resumption=resumption)
        if resumed.workspace.is_dir() and (baseline := load_baseline(resumed)):
            context.events.log(f"[it goes on with the session of attempt {number}, in its workspace]")
            return resumed, baseline
    context.events.log(f"[it begins anew: attempt {number} had a session, but its workspace is not kept]")
    return None


async def _let_work(context: RunContext, baseline: Baseline | None, provider: Provider) -> Any:
    """Raises SessionLost where the agent's program knows nothing of what it was to go on with."""
    context.events.status("running")
    if baseline and context.task.config.provider in WITH_SESSIONS:
        store_baseline(context, baseline)
    has_worked, may_go_on = True, True
    try:
        result = await (pdf_sections.run(context, provider) if context.task.pipeline else provider(context))
        may_go_on = False
        return result
    except SessionLost:
        has_worked = False
        raise
    finally:
        if has_worked and baseline and _end_descendants():  # what still writes would be missed, or seen half
            await report_changes(context, baseline)
        if baseline and not (may_go_on and context.events.session):
            remove_baseline(context, baseline)


def _read_run(inputs: Path, folder: Path, secrets: Mapping[str, str], events: EventWriter) -> RunContext:
    task = _TASK_DECODER.decode((inputs / "job.json").read_bytes())
    events.limit_output(task.output_bytes)
    prompt, instructions = inputs / "prompt", inputs / "instructions"
    return RunContext(
        task,
        prompt.read_text("utf-8"),
        instructions.read_text("utf-8") if instructions.exists() else "",
        {name: value for name, value in secrets.items() if not name.startswith(REDACTED_ONLY)},
        folder,
        folder / CREDENTIALS_FOLDER,
        events,
    )


def _first_seq(folder: Path) -> int:
    """The number of the first event: the steps before this one, in the same pod, may have printed some."""
    try:
        return int((folder / NEXT_SEQ_FILE).read_text())
    except FileNotFoundError:
        return 1


def read_secrets(folder: Path) -> dict[str, str]:
    """Return the secrets in `folder`, by name."""
    return {file.name: file.read_text("utf-8", "replace").rstrip("\r\n") for file in secret_files(folder)}


def secret_files(folder: Path) -> list[Path]:
    """The files of the secrets in `folder`, which may be missing."""
    files = folder.iterdir() if folder.is_dir() else ()
    return [file for file in files if file.is_file() and not file.name.startswith(".")]  # a mounted one has `..data`


def _remove_secrets(folder: Path) -> None:
    """Remove the files of the secrets, so that the agent finds none. Raises GiveUp when one stays."""
    for file in secret_files(folder):
        try:
            file.unlink()
        except OSError as error:
            reason = f"the secret {file.name} cannot be removed from the attempt's inputs: {error.strerror}"
            raise GiveUp(FailedCode.INTERNAL, f"{reason}. The agent could read it, so it was not started") from error


def values_to_redact(secrets: Mapping[str, str]) -> list[str]:
    """All of them but a user name: it may well be a word that the agent needs to say. On its own it is a token."""
    spared = "git-username" if secrets.get("git-password") else None
    return [value for name, value in secrets.items() if name != spared]


def stop_on_signals() -> None:
    """The first SIGTERM or SIGINT cancels the current task. Later ones do nothing: its clean-up goes on.

    It does what loop.add_signal_handler() does, at a tenth of the cost.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    # Python runs handlers between its own steps: one that comes just before the loop begins to wait would not wake it.
    awake, wake_up = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    loop.add_reader(awake, os.read, awake, 1)
    signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)

    def stop(number: int, frame: object) -> None:
        for each in _STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        loop.call_soon_threadsafe(task.cancel)

    for number in _STOP_SIGNALS:
        signal.signal(number, stop)


def _end_descendants() -> bool:
    """End every process below this one. Whether it succeeded.

    Only the kernel knows that none is left: it says so when this process, a subreaper, has no child any more. A look
    through /proc alone can miss one whose parent died during the look.
    """
    while _has_child():
        if not kill_descendants(os.getpid()):
            return False
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
    return True


def _has_child() -> bool:
    """Whether this process has a child, be it a dead one that is not reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
