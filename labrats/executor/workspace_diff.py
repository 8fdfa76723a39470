"""Compute the changes of an attempt in its workspace, as a patch.

The comparison uses a separate repository beside the workspace. The repository in the workspace is not modified, and
only its objects are read: its configuration could name programs to execute.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from labrats.executor.context import RunContext
from labrats.executor.git_outputs import belongs_to_repository, read_head
from labrats.executor.subprocesses import child_process
from labrats.files.safe_paths import read_regular_file
from labrats.model.errors import LabratsError
from labrats.model.job import Outputs
from labrats.model.protocol import BASELINE_FILE
from labrats.model.record import Record, encode

PATCH_BYTES: Final = 5 * 1024 * 1024
"""Largest patch that is stored, since nobody reads a larger one."""

MOST_COMMITS: Final = 50
SECONDS: Final = 60.0
SECONDS_WHEN_STOPPED: Final = 5.0
"""Shorter limit for an attempt that was asked to stop and is killed soon."""

_READ_BYTES: Final = 64 * 1024
_BASELINE_BYTES: Final = 1024 * 1024
_LIST_BYTES: Final = 64 * 1024 * 1024
_EXCLUDES_FILE: Final = "labrats-excludes"
_EXCLUDED: Final = (
    *("__pycache__/", "*.py[cod]", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".venv/", "node_modules/"),
    *(".DS_Store", "Thumbs.db", "*.swp", "*~", ".idea/", ".vscode/"),
)
"""Patterns of new files that the patch omits: caches and editor files that people ignore in every repository."""

_SETTINGS: Final = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0")
_ENVIRONMENT: Final = {
    "LC_ALL": "C",
    "HOME": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
}


class DiffFailed(LabratsError):
    """The changes cannot be computed."""


@dataclass(frozen=True)
class Baseline:
    """The state of the workspace before the agent started.

    tree: the git tree; None if the workspace was empty. outputs: the branch and commit that were checked out.
    """

    repository: "_Repository"
    tree: str | None
    outputs: Outputs


class _StoredBaseline(Record):
    """A baseline in a file beside its repository."""

    tree: str | None
    outputs: Outputs


_BASELINE_DECODER: Final = msgspec.json.Decoder(_StoredBaseline)


async def record_baseline(context: RunContext) -> Baseline | None:
    """Record the state of the workspace before the agent starts. If git fails, log the reason and return None."""
    repository = _repository_of(context)
    try:
        tree = await _tree_of(repository, is_prepared=bool(context.setup.setup))
        return Baseline(repository, tree, read_head(context.workspace))
    except DiffFailed as error:
        _log_failure(context, error)
        return None


def store_baseline(context: RunContext, baseline: Baseline) -> None:
    """Store the baseline for a later attempt that resumes in the same workspace."""
    stored = _StoredBaseline(tree=baseline.tree, outputs=baseline.outputs)
    (context.folder / BASELINE_FILE).write_bytes(encode(stored))


def load_baseline(context: RunContext) -> Baseline | None:
    """Return the baseline that an earlier attempt in this workspace has stored, or None."""
    repository = _repository_of(context)
    (repository.git_dir / "index.lock").unlink(missing_ok=True)  # the process that held the lock is dead
    try:
        stored = _BASELINE_DECODER.decode(read_regular_file(context.folder / BASELINE_FILE, _BASELINE_BYTES))
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    if stored.tree is None:  # the workspace was empty, so the index contains only files of an earlier report
        (repository.git_dir / "index").unlink(missing_ok=True)
    return Baseline(repository, stored.tree, stored.outputs)


def remove_baseline(context: RunContext, baseline: Baseline) -> None:
    """Remove the baseline, which no later attempt needs."""
    (context.folder / BASELINE_FILE).unlink(missing_ok=True)
    shutil.rmtree(baseline.repository.git_dir, ignore_errors=True)


def _repository_of(context: RunContext) -> "_Repository":
    return _Repository(context.workspace, context.folder / "baseline.git")


async def report_changes(context: RunContext, baseline: Baseline) -> None:
    """Report the changes since the baseline and store the patch. If that fails, log the reason."""
    stopped = (task := asyncio.current_task()) is not None and task.cancelling() > 0
    seconds = SECONDS_WHEN_STOPPED if stopped else SECONDS
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await _report(context, baseline)
    except DiffFailed as error:
        _log_failure(context, error)
    except TimeoutError:
        if not limit.expired():
            raise
        context.events.log(f"[the changes in the workspace could not be computed within {seconds:g} s]")


async def _report(context: RunContext, baseline: Baseline) -> None:
    repository, after = baseline.repository, read_head(context.workspace)
    outputs = replace(context.events.outputs, pull_request_url=_pull_request(context))
    if after.commit and after != baseline.outputs:
        outputs = replace(outputs, branch=after.branch, commit=after.commit)
    if baseline.tree or repository.has_files():
        outputs = replace(
            outputs,
            commits=await _commits(repository, baseline.outputs.commit, after.commit),
            files_changed=await _store_patch(context, repository, baseline.tree),
        )
    if outputs != context.events.outputs:
        context.events.report_outputs(outputs)


def _pull_request(context: RunContext) -> str | None:
    """Return the URL of the agent's pull request. URLs in other repositories are ignored."""
    url, setup = context.events.pull_request_url, context.task.workspace_setup
    repository = context.task.repository or (setup.git_repo if setup else None)
    return url if url and repository and belongs_to_repository(url, repository) else None


async def _tree_of(repository: "_Repository", *, is_prepared: bool) -> str | None:
    """Return the tree of the workspace: the commit that was just checked out, or else a tree of the files.

    is_prepared: whether setup commands may have changed files since the commit was checked out.
    """
    if commit := read_head(repository.workspace).commit:
        await repository.create()
        index = repository.workspace / ".git" / "index"
        if index.is_file():
            shutil.copy2(index, repository.git_dir / "index")  # so that git later reads only changed files
        if not is_prepared:
            return commit
        await repository.git("add", "--all", "--ignore-errors")
        return await repository.word("write-tree")
    if not repository.has_files():
        return None
    await repository.create()
    await repository.git("add", "--all", "--force")
    return await repository.word("write-tree")


async def _store_patch(context: RunContext, repository: "_Repository", tree: str | None) -> int:
    """Store the patch, and return the number of changed files."""
    await repository.create()
    tree = tree or await repository.word("write-tree")  # the empty tree
    await repository.git("add", "--all", "--ignore-errors")
    difference = ("diff", "--cached", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty", "--no-color")
    names = await repository.git(*difference, "--name-only", "-z", "--no-renames", tree, "--")
    patch = await repository.git(*difference, "--binary", "--full-index", tree, "--", most_bytes=PATCH_BYTES)
    if patch:
        context.events.patch(patch)
    return names.count(b"\0")


async def _commits(repository: "_Repository", before: str | None, after: str | None) -> tuple[str, ...]:
    """Return the new commits, newest first."""
    if not after or after == before:
        return ()
    await repository.create()
    known = [f"^{before}"] if before else []
    listed = await repository.git("rev-list", f"--max-count={MOST_COMMITS}", after, *known, "--")
    return tuple(listed.decode().split())


@dataclass(frozen=True)
class _Repository:
    """The engine's git repository beside the workspace, with the workspace as its work tree."""

    workspace: Path
    git_dir: Path

    def has_files(self) -> bool:
        with os.scandir(self.workspace) as entries:
            return any(True for _ in entries)

    async def create(self) -> None:
        """Create the repository unless it exists. It shares the objects of the workspace's repository."""
        if self.git_dir.exists():
            return
        await self._run(["git", "init", "--quiet", "--bare", "--template=", str(self.git_dir)])
        alternates = self.git_dir / "objects" / "info" / "alternates"
        alternates.parent.mkdir(exist_ok=True)
        alternates.write_text(f"{self.workspace / '.git' / 'objects'}\n")
        (self.git_dir / _EXCLUDES_FILE).write_text("".join(f"{pattern}\n" for pattern in _EXCLUDED))

    async def git(self, *arguments: str, most_bytes: int = _LIST_BYTES) -> bytes:
        """Return the output of a git command. Raises DiffFailed if it fails or prints more than `most_bytes`."""
        settings = [word for setting in (*_SETTINGS, self._excludes) for word in ("-c", setting)]
        place = [f"--git-dir={self.git_dir}", f"--work-tree={self.workspace}"]
        return await self._run(["git", *settings, *place, *arguments], most_bytes)

    @property
    def _excludes(self) -> str:
        return f"core.excludesFile={self.git_dir / _EXCLUDES_FILE}"

    async def word(self, *arguments: str) -> str:
        return (await self.git(*arguments)).decode().strip()

    async def _run(self, command: Sequence[str], most_bytes: int = _LIST_BYTES) -> bytes:
        environment = {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT}
        printed = b""
        try:
            async with child_process(command, self.workspace, environment) as process:
                while chunk := await process.output.read(_READ_BYTES):
                    printed += chunk
                    if len(printed) > most_bytes:
                        raise DiffFailed(f"git printed more than {most_bytes // 2**20} MiB")
                status = await process.exit_status()
        except OSError as error:
            raise DiffFailed(f"git cannot be run: {error.strerror}") from error
        if status != 0:
            raise DiffFailed(f"git {command[-1]} exited with status {status}")
        return printed


def _log_failure(context: RunContext, error: DiffFailed) -> None:
    context.events.log(f"[the changes in the workspace cannot be computed: {error}]")
