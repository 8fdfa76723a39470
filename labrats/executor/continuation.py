"""Continue earlier work in a copy of its workspace, or in a new workspace to which its changes are added."""

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath
from subprocess import DEVNULL
from typing import Final

from labrats.executor.agent_sandbox import sandboxed_tool
from labrats.executor.context import RunContext
from labrats.executor.git import apply_patch, check_out_bundle
from labrats.executor.session_files import restore_session_files
from labrats.executor.subprocesses import child_process
from labrats.executor.workspace import prepare_workspace, report_base
from labrats.executor.workspace_bundle import baseline_before
from labrats.executor.workspace_diff import Baseline, copy_baseline, has_baseline, record_baseline
from labrats.files.safe_paths import open_folder_inside, read_regular_file
from labrats.files.trees import is_plain_folder, remove_path
from labrats.model.conversation import with_conversation
from labrats.model.errors import GiveUp
from labrats.model.job import AgentSession, Outputs
from labrats.model.protocol import BUNDLE_BYTES, BUNDLE_FILE, PATCH_FILE, SESSION_FILE, Continuation, Resumption
from labrats.model.publication import PUBLICATION_FOLDER, PUBLICATION_PATH

_PREREQUISITE: Final = re.compile(rb"^-([0-9a-f]{40}|[0-9a-f]{64}) ?", re.MULTILINE)
"""The line of a bundle's head with the commit that was cloned."""

_REBUILT_NOTE: Final = """\
Your workspace was created again, with the changes that you had made. Files that git ignores are missing in it.

"""
"""Start of the prompt for an agent that resumes its session in a new workspace."""


async def continued_work(context: RunContext, earlier: Continuation) -> tuple[RunContext, Baseline | None]:
    """Return the context and the baseline to continue an ended job. The log says what was restored.

    The context has the session of the job, or else the conversation in its prompt.
    """
    told = f"follow-up of {earlier.job_id}"
    if earlier.workspace and earlier.folder and (baseline := await _copy(context, earlier.workspace, earlier.folder)):
        _report_seen(context, baseline)
        if earlier.session:
            context.events.log(f"[{told}: resuming its session in a copy of its workspace]")
            return _in_session(context, earlier.session), baseline
        context.events.log(f"[{told}: a copy of its workspace, the conversation in the prompt]")
        return with_conversation_in_prompt(context), baseline
    new, is_complete = await _rebuild(context, None if earlier.at_head else earlier.kept)
    _report_seen(context, new)
    is_complete = is_complete or earlier.at_head
    if is_complete and (resumed := await _in_restored_session(context, earlier)):
        context.events.log(f"[{told}: resuming its session in a new workspace with its changes]")
        return resumed, new
    changes = " with its changes" if is_complete else ""
    context.events.log(f"[{told}: a new workspace{changes}, the conversation in the prompt]")
    return with_conversation_in_prompt(context), new


def _report_seen(context: RunContext, baseline: Baseline | None) -> None:
    """Report the last commit of the earlier job, or else the one that it has started from.

    The engine has stored both: the workspace contains what the earlier agent has written.
    """
    if baseline and baseline.earlier:
        report_base(context, Outputs(commit=baseline.earlier))
    elif baseline:
        report_base(context, baseline.outputs)


async def resumed_work(context: RunContext, earlier: Resumption, prompt: str) -> tuple[RunContext, Baseline | None]:
    """Return the context and the baseline for an attempt without the workspace of the earlier one.

    It resumes the session with `prompt` if the session's files and the changes in the workspace are stored. Otherwise
    it starts over.
    """
    number, resuming = earlier.session.attempt, replace(context, prompt=prompt)
    new, is_complete = await _rebuild(context, earlier.kept)
    if is_complete and (resumed := _in_stored_session(resuming, earlier.session, earlier.kept)):
        context.events.log(f"[resuming the session of attempt {number} in a new workspace with its changes]")
        return resumed, new
    context.events.log(f"[starting over: attempt {number} had a session, but its workspace no longer exists]")
    return with_conversation_in_prompt(context), new


def with_conversation_in_prompt(context: RunContext) -> RunContext:
    """Return the context for an agent without its session, in the attempt's own workspace."""
    return replace(context, resumption=None, prompt=with_conversation(context.conversation, context.prompt))


def _in_session(context: RunContext, session: AgentSession) -> RunContext:
    own = AgentSession(provider=session.provider, id=session.id, attempt=context.task.number)
    resumption = Resumption(session=own, workspace=context.task.workspace, folder=str(context.folder))
    return replace(context, resumption=resumption)


async def _in_restored_session(context: RunContext, earlier: Continuation) -> RunContext | None:
    """Return the context in the job's session, from its home or from stored files; None if they no longer exist."""
    if earlier.session and earlier.folder and await _copy_folder(context, Path(earlier.folder, "home"), context.home):
        return _in_session(replace(context, prompt=_REBUILT_NOTE + context.prompt), earlier.session)
    return _in_stored_session(context, earlier.session, earlier.kept)


def _in_stored_session(context: RunContext, session: AgentSession | None, kept: str | None) -> RunContext | None:
    """Return the context in a session whose files are stored; None without them."""
    if session and kept and restore_session_files(context, session, Path(kept, SESSION_FILE)):
        return _in_session(replace(context, prompt=_REBUILT_NOTE + context.prompt), session)
    return None


async def _rebuild(context: RunContext, kept: str | None) -> tuple[Baseline | None, bool]:
    """Prepare a new workspace, and add the changes of the earlier attempt to it.

    kept: a folder with the attempt's bundle or patch. Return the baseline, and whether the workspace is as it was left.
    """
    bundle, patch = (Path(kept or os.devnull, name) for name in (BUNDLE_FILE, PATCH_FILE))
    has_bundle = context.repository is not None and bundle.is_file()
    cloned = None

    async def check_out() -> bool:
        nonlocal cloned
        found = _PREREQUISITE.search(read_regular_file(bundle, BUNDLE_BYTES))
        if found and await check_out_bundle(context, bundle):
            cloned = found[1].decode()
        return cloned is not None

    checked_out = await prepare_workspace(context, check_out if has_bundle else None)
    baseline = await record_baseline(context, checked_out)
    if baseline is None or kept is None:
        return baseline, False
    if has_bundle:
        if cloned is None:
            return baseline, False
        if earlier := await baseline_before(context, baseline, cloned):
            report_base(context, earlier.outputs)
        return earlier, True
    if not patch.is_file():
        return baseline, True
    return baseline, context.repository is None and await apply_patch(context, patch)


async def _copy(context: RunContext, workspace: str, folder: str) -> Baseline | None:
    """Copy the workspace, the home and the baseline. Return the baseline; None if any of them is gone or unreadable."""
    source = Path(folder)
    copied = await _copy_folder(context, Path(workspace), context.workspace)
    if copied and os.path.lexists(source / "home"):
        copied = await _copy_folder(context, source / "home", context.home)
    # Whoever removes a workspace removes its baseline first.
    if copied and (baseline := await copy_baseline(context, source)) and has_baseline(source):
        _remove_publication(context.workspace)
        return baseline
    remove_path(context.workspace)
    remove_path(context.home)
    return None


async def _copy_folder(context: RunContext, source: Path, target: Path) -> bool:
    """Copy a folder with its links and special files as they are. Return whether all of it was copied."""
    if not is_plain_folder(source):
        return False
    environment = context.environment()
    for folder in (context.workspace, target):
        folder.mkdir(parents=True, exist_ok=True)
    preserved = ("--archive", "--no-preserve=ownership", "--reflink=auto")
    command = ["cp", *preserved, "--no-target-directory", "--", str(source), str(target)]
    try:
        # In the sandbox, links that an agent puts in the place of folders meanwhile lead nowhere.
        with sandboxed_tool(command, context, readable=[source]) as sandboxed:
            async with child_process(sandboxed, context.folder, environment, stderr=DEVNULL) as process:
                return await process.exit_status() == 0
    except FileNotFoundError:  # no such program
        return False


def _remove_publication(workspace: Path) -> None:
    """Remove the publication of the earlier job, which is published already."""
    with suppress(GiveUp, OSError), open_folder_inside(workspace, PUBLICATION_FOLDER) as folder:
        os.unlink(PurePath(PUBLICATION_PATH).name, dir_fd=folder)
