"""Prepare the folder in which an agent works."""

import shutil
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from labrats.executor import git
from labrats.executor.clone_retries import PAUSES
from labrats.executor.context import RunContext
from labrats.executor.git_outputs import read_head
from labrats.executor.setup_commands import run_setup
from labrats.executor.workspace_diff import record_clone
from labrats.files.safe_paths import create_inside
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Outputs, WorkspaceFile


async def prepare_workspace(
    context: RunContext,
    check_out: Callable[[], Awaitable[bool]] | None = None,
    pauses: Sequence[float] = PAUSES,
) -> Outputs:
    """Create the workspace: clone the repository, add the job's files, then run its setup commands.

    Return the branch and commit from which the agent's work is measured: those of the clone, before any program of the
    repository has run, or those of earlier work.

    check_out: checks out the commits of an earlier attempt, and returns whether it could. It comes last: the setup
               commands would run what an agent has written, with a network rule and caches that are not the agent's.

    Raises GiveUp with the code `git_clone`, `workspace` or `setup`.
    """
    await clone_repository(context, pauses)
    checked_out = read_head(context.workspace)
    report_base(context, checked_out)
    await record_clone(context)
    _copy_files(context)
    await run_setup(context)
    if check_out and await check_out():
        checked_out = read_head(context.workspace)
        _copy_files(context)
    return checked_out


def report_base(context: RunContext, checked_out: Outputs) -> None:
    """Report the commit that the agent starts from, so that a verdict of the agent is about this commit alone."""
    if checked_out.commit:
        context.events.report_outputs(replace(context.events.outputs, base_commit=checked_out.commit))


async def clone_repository(context: RunContext, pauses: Sequence[float] = PAUSES) -> None:
    """Create the workspace, and clone the repository into it if the task names one. Raises GiveUp."""
    context.workspace.mkdir(parents=True, exist_ok=True)
    if setup := context.task.workspace_setup:
        if any(context.workspace.iterdir()):  # git would obey the configuration of a repository in it
            raise GiveUp(
                FailedCode.WORKSPACE, f"the workspace {context.workspace} is not empty; remove it, then retry the job"
            )
        context.events.status("workspace", "cloning the repository")
        await git.clone(context, setup, pauses)


def _copy_files(context: RunContext) -> None:
    for file in context.task.workspace_files:
        _copy(file, context)


def _copy(file: WorkspaceFile, context: RunContext) -> None:
    try:
        with open(file.path, "rb") as source, create_inside(context.workspace, file.name) as target:
            shutil.copyfileobj(source, target)
    except OSError as error:
        reason = f"the file {file.name!r} cannot be put into the workspace: {error.strerror}"
        raise GiveUp(FailedCode.WORKSPACE, reason) from error
