"""Compute the changes of an attempt in its workspace, as a patch."""

import asyncio
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from labrats.executor.agent_sandbox import sandboxed_tool
from labrats.executor.context import RunContext
from labrats.executor.engine_repository import (
    IGNORE_DIRTY_SUBMODULES,
    OUTSIDE_PUBLICATION,
    Change,
    DiffFailed,
    EngineRepository,
)
from labrats.executor.git_outputs import belongs_to_repository, read_head, read_ref
from labrats.executor.workspace_remote import Files, fetch_commit, fetch_files
from labrats.files.safe_paths import read_regular_file
from labrats.files.trees import remove_special_files
from labrats.model.job import MOST_COMMITS, Outputs
from labrats.model.protocol import BASELINE_FILE, BUNDLE_REF
from labrats.model.record import Record, encode

PATCH_BYTES: Final = 5 * 1024 * 1024
"""Largest patch that is stored, since nobody reads a larger one."""

BINARY_BYTES: Final = 16 * 1024 * 1024
"""Limit on the changed files of a patch with binary files. All are searched for secrets, at some 6 MiB a second."""

_MOST_NAMES: Final = 5
_MOST_ERRORS: Final = 5
"""Limits on what the log says about files that git cannot add."""

_DIFFERENCE: Final = ("diff", "--cached", "--no-ext-diff", "--no-textconv", IGNORE_DIRTY_SUBMODULES, "--no-color")
_BINARY: Final = b"\nGIT binary patch\n"
_GIT_DIR: Final = "baseline.git"
_BASELINE_BYTES: Final = 1024 * 1024


class Baseline(Record):
    """The state of the workspace before the agent started, which is stored in a file of the attempt.

    tree: the git tree; None if the workspace was empty. outputs: the branch and commit that were checked out.
    earlier: the last commit in the bundle of the job that this one continues; None without one.
    prepared: the branch and commit after the setup commands, if these have changed them; otherwise None.
    """

    tree: str | None
    outputs: Outputs
    earlier: str | None = None
    prepared: Outputs | None = None

    @property
    def head(self) -> Outputs:
        """The branch and commit from which the agent started."""
        return self.prepared or self.outputs


_BASELINE_DECODER: Final = msgspec.json.Decoder(Baseline)


@dataclass(frozen=True)
class Work:
    """The work of an agent in the engine's repository.

    head:   the commit that is checked out; None if there is none, or if it cannot be fetched.
    tree:   the tree of the files; None if they cannot be fetched, or if there has never been one.
    reason: why they cannot be fetched.
    """

    head: str | None = None
    tree: str | None = None
    reason: DiffFailed | None = None


async def record_clone(context: RunContext) -> None:
    """Copy what was cloned, before setup commands, which are programs of the repository, can change it."""
    if commit := read_head(context.workspace).commit:
        with logged_failure(context):
            await repository_of(context).copy_clone(commit)


async def record_baseline(context: RunContext, checked_out: Outputs) -> Baseline | None:
    """Record the state of the workspace before the agent starts. If git fails, log the reason and return None.

    checked_out: the branch and commit before the setup commands, which are programs of the repository.
    """
    repository, head = repository_of(context), read_head(context.workspace)
    try:
        await repository.restore()
        tree = await _tree_of(context, repository, head.commit)
    except DiffFailed as error:
        context.events.log(f"[the changes in the workspace cannot be computed: {context.events.field(str(error))}]")
        return None
    return Baseline(tree=tree, outputs=checked_out, prepared=None if head == checked_out else head)


@contextmanager
def logged_failure(
    context: RunContext, failure: str = "the changes in the workspace cannot be computed"
) -> Iterator[None]:
    """Log why git fails, and do not raise the error."""
    try:
        yield
    except DiffFailed as error:
        context.events.log(f"[{failure}: {context.events.field(str(error))}]")


async def _tree_of(context: RunContext, repository: EngineRepository, head: str | None) -> str | None:
    """Return the tree of the workspace: the commit that was just checked out, or else a tree of the files."""
    if head:
        await fetch_commit(repository, head)
        # Setup commands and files of the job may change the files of the clone.
        if not (context.setup.setup or context.task.workspace_files):
            return head
    elif not repository.has_files():
        return None
    await repository.create()
    await clear_special_files(context)
    return (await fetch_files(repository, head, ignored_too=head is None, are_start=True)).tree


async def clear_special_files(context: RunContext) -> None:
    """Remove pipes, at which git would wait for ever, and sockets from the workspace. Their processes have ended."""
    if removed := await remove_special_files(context.workspace):
        context.events.log(f"[removed {removed} pipes, sockets or devices from the workspace: git cannot read them]")


def store_baseline(context: RunContext, baseline: Baseline) -> None:
    """Store the baseline for a later attempt that resumes in the same workspace."""
    (context.folder / BASELINE_FILE).write_bytes(encode(baseline))


def load_baseline(context: RunContext) -> Baseline | None:
    """Return the baseline that an earlier attempt in this workspace has stored, or None."""
    if not repository_of(context).is_complete():
        return None
    try:
        return _BASELINE_DECODER.decode(read_regular_file(context.folder / BASELINE_FILE, _BASELINE_BYTES))
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def has_baseline(folder: Path) -> bool:
    """Return whether the attempt in `folder` has a baseline, and so a workspace in which to continue."""
    return (folder / BASELINE_FILE).is_file()


async def copy_baseline(context: RunContext, folder: Path) -> Baseline | None:
    """Copy the baseline of the attempt in `folder`, which did its work in a copy of this workspace, or return None."""
    repository, source = repository_of(context), folder / _GIT_DIR
    try:
        shutil.copy2(folder / BASELINE_FILE, context.folder / BASELINE_FILE)
        if source.is_dir():
            shutil.copytree(source, repository.git_dir, symlinks=True)
    except (OSError, shutil.Error, DiffFailed):
        return None
    baseline = load_baseline(context)
    return baseline and replace(baseline, earlier=read_ref(repository.git_dir, BUNDLE_REF))


def repository_of(context: RunContext) -> EngineRepository:
    """Return the engine's repository beside the workspace of the attempt."""
    git_dir = context.folder / _GIT_DIR
    return EngineRepository(context.workspace, git_dir, partial(sandboxed_tool, context=context))


async def fetch_work(context: RunContext, baseline: Baseline, seconds: float) -> Work:
    """Fetch the agent's commit and files into the engine's repository. If git fails, log or return the reason.

    seconds: the limit on the time for the files.
    """
    repository, start, head = repository_of(context), baseline.head.commit, read_head(context.workspace).commit
    try:
        await repository.restore()
        if not (baseline.tree or repository.has_files()):
            return Work()
        await repository.create()
    except DiffFailed as error:
        return Work(reason=error)
    if head:
        try:
            await fetch_commit(repository, head)
        except DiffFailed as error:
            reason = context.events.field(str(error))
            context.events.log(f"[the agent's commits cannot be fetched, so their changes are one commit: {reason}]")
            head = None
    since = start if head and start and await repository.is_ancestor(start, head) else None
    try:
        async with asyncio.timeout(seconds):
            files = await fetch_files(repository, head, since)
    except DiffFailed as error:
        return Work(head, reason=error)
    except TimeoutError:
        return Work(head, reason=DiffFailed(f"git took more than {seconds:g} s"))
    _log_omissions(context, files)
    return Work(head, files.tree)


def _log_omissions(context: RunContext, files: Files) -> None:
    for error in files.errors[:_MOST_ERRORS]:
        context.events.log(f"[the patch omits what git cannot add: {context.events.field(error)}]")
    if more := len(files.errors[_MOST_ERRORS:]):
        context.events.log(f"[the patch omits {more} more that git cannot add]")
    if files.left_out:
        what = f"{len(files.left_out)} files or folders that programs have made or installed"
        context.events.log(f"[the patch leaves out {what}: {_named(context, files.left_out)}]")


async def report_changes(context: RunContext, baseline: Baseline, work: Work) -> None:
    """Report the changes since the baseline and store the patch.

    Raises DiffFailed. What needs no patch is reported all the same.
    """
    repository, after = repository_of(context), read_head(context.workspace)
    outputs = replace(context.events.outputs, pull_request_url=_pull_request(context))
    if after.commit and after != baseline.head:
        outputs = replace(outputs, branch=after.branch, commit=after.commit)
    try:
        if work.reason:
            raise work.reason
        if work.tree:
            outputs = replace(
                outputs,
                commits=await _commits(repository, baseline.head.commit, work.head),
                files_changed=await _store_patch(context, repository, baseline, work.tree),
            )
    finally:
        if outputs != context.events.outputs:
            context.events.report_outputs(outputs)


def _pull_request(context: RunContext) -> str | None:
    """Return the URL of the agent's pull request. URLs in other repositories are ignored."""
    url, repository = context.events.pull_request_url, context.repository
    return url if url and repository and belongs_to_repository(url, repository) else None


async def _store_patch(context: RunContext, repository: EngineRepository, baseline: Baseline, tree: str) -> int:
    """Store the patch up to a tree, and return the number of changed files."""
    changes, patch = await changes_since(baseline, context, repository, tree, context.events.log)
    if patch:
        context.events.patch(patch)
        if prepared := sorted(changes.keys() & await _prepared(repository, baseline)):
            names = _named(context, prepared)
            context.events.log(f"[the patch applies only after the job's setup commands and files, for: {names}]")
    return len(changes)


async def changes_since(
    baseline: Baseline, context: RunContext, repository: EngineRepository, tree: str, log: Callable[[str], None]
) -> tuple[dict[bytes, Change], bytes]:
    """Return the changes of files up to a tree, and their patch. log: called with what is special about the patch."""
    before = baseline.tree or await repository.word("mktree")  # the empty tree
    changes = await repository.changes(before, tree)
    blobs = {name for change in changes.values() for name in change.blobs}
    return changes, await _patch(context, await repository.with_index_of(tree), before, blobs, log)


def _named(context: RunContext, paths: Sequence[bytes]) -> str:
    names = ", ".join(context.events.field(path.decode(errors="replace")) for path in paths[:_MOST_NAMES])
    return f"{names} and {len(paths) - _MOST_NAMES} more" if len(paths) > _MOST_NAMES else names


async def _prepared(repository: EngineRepository, baseline: Baseline) -> set[bytes]:
    """Return the paths that the setup commands and the files of the job have changed in the clone."""
    cloned, tree = baseline.outputs.commit, baseline.tree
    return set(await repository.changes(cloned, tree)) if cloned and tree and tree != cloned else set()


async def _patch(
    context: RunContext,
    repository: EngineRepository,
    tree: str,
    blobs: Collection[bytes],
    log: Callable[[str], None],
) -> bytes:
    """Return the patch, with the text of files that `.gitattributes` marks as binary, unless that is too large.

    An agent could otherwise hide changes from readers (`*.py -diff`).

    blobs: the names of the objects of the changed files, before and after.
    """
    with suppress(DiffFailed), repository.showing_text():
        return await _patch_without_hidden_secrets(context, repository, tree, blobs, log)
    patch = await _patch_without_hidden_secrets(context, repository, tree, blobs, log)
    log("[the patch would be too large with the text of files that .gitattributes marks as binary]")
    return patch


async def _patch_without_hidden_secrets(
    context: RunContext,
    repository: EngineRepository,
    tree: str,
    blobs: Collection[bytes],
    log: Callable[[str], None],
) -> bytes:
    compared = ("--full-index", tree, *OUTSIDE_PUBLICATION)
    patch = await repository.git(*_DIFFERENCE, "--binary", *compared, most_bytes=PATCH_BYTES)
    if _BINARY in patch and await _may_hide_a_secret(context, repository, blobs):
        log("[a binary file contains a secret, or is too large to tell: the patch only names such files]")
        patch = await repository.git(*_DIFFERENCE, *compared, most_bytes=PATCH_BYTES)
    return patch


async def _may_hide_a_secret(context: RunContext, repository: EngineRepository, blobs: Collection[bytes]) -> bool:
    """Return whether a changed file contains or contained a secret, which could not be redacted in compressed form."""
    try:
        contents = b"\n".join([each.content for each in await repository.read_objects(blobs, BINARY_BYTES)])
    except DiffFailed:
        return True
    return await asyncio.to_thread(context.events.contains_secret, contents)


async def _commits(repository: EngineRepository, before: str | None, after: str | None) -> tuple[str, ...]:
    """Return the new commits, newest first."""
    if not after or after == before:
        return ()
    known = [f"^{before}"] if before else []
    listed = await repository.git("rev-list", f"--max-count={MOST_COMMITS}", after, *known, "--")
    return tuple(listed.decode().split())
