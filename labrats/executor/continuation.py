"""Continue an ended job in a copy of its workspace and home, so that its own files stay as they are."""

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath
from subprocess import DEVNULL
from typing import Final

from labrats.executor.context import RunContext
from labrats.executor.git import restore_commits
from labrats.executor.providers.agent_cli import is_plain_folder, remove_path
from labrats.executor.subprocesses import child_process
from labrats.executor.workspace_diff import Baseline, copy_baseline, has_baseline
from labrats.files.safe_paths import open_folder_inside, read_regular_file
from labrats.model.conversation import with_conversation
from labrats.model.errors import GiveUp
from labrats.model.job import AgentSession
from labrats.model.protocol import BUNDLE_BYTES, Continuation, Resumption
from labrats.model.publication import PUBLICATION_FOLDER, PUBLICATION_PATH

_PREREQUISITE: Final = re.compile(rb"^-([0-9a-f]{40}|[0-9a-f]{64}) ?", re.MULTILINE)
"""The line of a bundle's head with the commit that was cloned."""


async def continued_work(context: RunContext, earlier: Continuation) -> tuple[RunContext, Baseline] | None:
    """Copy the workspace and home of an ended job. Return the context and the baseline for the work in them.

    Return None if they no longer exist. The log says which of the two happens.
    """
    if earlier.workspace and earlier.folder and (baseline := await _copy(context, earlier.workspace, earlier.folder)):
        if earlier.session:
            context.events.log(f"[follow-up of {earlier.job_id}: resuming its session in a copy of its workspace]")
            return _in_session(context, earlier.session), baseline
        context.events.log(f"[follow-up of {earlier.job_id}: a copy of its workspace, the conversation in the prompt]")
        return with_conversation_in_prompt(context), baseline
    context.events.log(f"[follow-up of {earlier.job_id}: a new workspace, the conversation in the prompt]")
    return None


def with_conversation_in_prompt(context: RunContext) -> RunContext:
    """Return the context for an agent without its session, in the attempt's own workspace."""
    return replace(context, resumption=None, prompt=with_conversation(context.conversation, context.prompt))


async def restored_baseline(context: RunContext, earlier: Continuation, baseline: Baseline | None) -> Baseline | None:
    """Check out the commits of the ended job in a new clone. Return the baseline, from which those commits are new."""
    if not (earlier.bundle and baseline and context.repository):
        return baseline
    try:
        found = _PREREQUISITE.search(read_regular_file(Path(earlier.bundle), BUNDLE_BYTES))
    except OSError:
        return baseline
    if found and await restore_commits(context, Path(earlier.bundle)):
        context.events.log(f"[the commits of {earlier.job_id} are checked out]")
        return baseline.based_on(found[1].decode())
    context.events.log(f"[the commits of {earlier.job_id} cannot be checked out: the repository has changed]")
    return baseline


def _in_session(context: RunContext, session: AgentSession) -> RunContext:
    own = AgentSession(provider=session.provider, id=session.id, attempt=context.task.number)
    resumption = Resumption(session=own, workspace=context.task.workspace, folder=str(context.folder))
    return replace(context, resumption=resumption)


async def _copy(context: RunContext, workspace: str, folder: str) -> Baseline | None:
    """Copy the workspace, the home and the baseline. Return the baseline; None if any of them is gone or unreadable."""
    source = Path(folder)
    copied = await _copy_folder(context, Path(workspace), context.workspace)
    if copied and os.path.lexists(source / "home"):
        copied = await _copy_folder(context, source / "home", context.home)
    # Whoever removes a workspace removes its baseline first.
    if copied and (baseline := copy_baseline(context, source)) and has_baseline(source):
        _remove_publication(context.workspace)
        return baseline
    remove_path(context.workspace)
    remove_path(context.home)
    return None


async def _copy_folder(context: RunContext, source: Path, target: Path) -> bool:
    """Copy a folder with its links and special files as they are. Return whether all of it was copied."""
    if not is_plain_folder(source):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["cp", "--archive", "--reflink=auto", "--no-target-directory", "--", str(source), str(target)]
    try:
        async with child_process(command, context.folder, context.environment(), stderr=DEVNULL) as process:
            return await process.exit_status() == 0
    except FileNotFoundError:  # no such program
        return False


def _remove_publication(workspace: Path) -> None:
    """Remove the publication of the earlier job, which is published already."""
    with suppress(GiveUp, OSError), open_folder_inside(workspace, PUBLICATION_FOLDER) as folder:
        os.unlink(PurePath(PUBLICATION_PATH).name, dir_fd=folder)
