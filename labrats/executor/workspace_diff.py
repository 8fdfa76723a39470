"""What an attempt has changed in its workspace, as a patch.

Compared by a repository of our own beside the workspace. The agent's, if there is one, stays as the agent left it, and
its configuration, which may name programs to run, is not read; only its objects are.
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
from labrats.files.plain_files import read_plain
from labrats.model.errors import LabratsError
from labrats.model.job import Outputs
from labrats.model.protocol import BASELINE_FILE
from labrats.model.record import Record, encode

PATCH_BYTES: Final = 5 * 1024 * 1024
"""A larger patch is not kept: nobody reads it."""

MOST_COMMITS: Final = 50
SECONDS: Final = 60.0
SECONDS_WHEN_STOPPED: Final = 5.0
"""Whoever asked the attempt to end does not wait for ever."""

_READ_BYTES: Final = 64 * 1024
_NOTE_BYTES: Final = 1024 * 1024
_LIST_BYTES: Final = 64 * 1024 * 1024
_EXCLUDES_FILE: Final = "labrats-excludes"
_EXCLUDED: Final = (
    *("__pycache__/", "*.py[cod]", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".venv/", "node_modules/"),
    *(".DS_Store", "Thumbs.db", "*.swp", "*~", ".idea/", ".vscode/"),
)
"""New files of these names are no work of an agent's: what people ignore everywhere, whatever a repository says."""

_SETTINGS: Final = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0")
_ENVIRONMENT: Final = {
    "LC_ALL": "C",
    "HOME": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
}


class DiffFailed(LabratsError):
    """Git cannot say what changed."""


@dataclass(frozen=True)
class Baseline:
    """The workspace as the agent found it. tree: None where it was empty. outputs: what was checked out."""

    repository: "_Repository"
    tree: str | None
    outputs: Outputs


class _Note(Record):
    """A baseline, written down beside its repository."""

    tree: str | None
    outputs: Outputs


_NOTE_DECODER: Final = msgspec.json.Decoder(_Note)


async def record_baseline(context: RunContext) -> Baseline | None:
    """Remember what the workspace is like before the agent comes. None where git cannot tell, as the log then says."""
    repository = _repository_of(context)
    try:
        return Baseline(repository, await _tree_of(repository), read_head(context.workspace))
    except DiffFailed as error:
        _say_why(context, error)
        return None


def store_baseline(context: RunContext, baseline: Baseline) -> None:
    """Keep it beyond the attempt, for another one that goes on in its workspace."""
    (context.folder / BASELINE_FILE).write_bytes(encode(_Note(tree=baseline.tree, outputs=baseline.outputs)))


def load_baseline(context: RunContext) -> Baseline | None:
    """What the workspace was like before the first of the attempts that work in it; None where that is not kept."""
    repository = _repository_of(context)
    (repository.git_dir / "index.lock").unlink(missing_ok=True)  # whoever had it is no more
    try:
        note = _NOTE_DECODER.decode(read_plain(context.folder / BASELINE_FILE, _NOTE_BYTES))
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    if note.tree is None:  # nothing: what the index holds is of an earlier report
        (repository.git_dir / "index").unlink(missing_ok=True)
    return Baseline(repository, note.tree, note.outputs)


def remove_baseline(context: RunContext, baseline: Baseline) -> None:
    """No other attempt needs it."""
    (context.folder / BASELINE_FILE).unlink(missing_ok=True)
    shutil.rmtree(baseline.repository.git_dir, ignore_errors=True)


def _repository_of(context: RunContext) -> "_Repository":
    return _Repository(context.workspace, context.folder / "baseline.git")


async def report_changes(context: RunContext, baseline: Baseline) -> None:
    """Say what is different by now, and keep the patch. A change that cannot be told is said in the log."""
    stopped = (task := asyncio.current_task()) is not None and task.cancelling() > 0
    seconds = SECONDS_WHEN_STOPPED if stopped else SECONDS
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await _report(context, baseline)
    except DiffFailed as error:
        _say_why(context, error)
    except TimeoutError:
        if not limit.expired():
            raise
        context.events.log(f"[what changed in the workspace could not be told within {seconds:g} s]")


async def _report(context: RunContext, baseline: Baseline) -> None:
    repository, after = baseline.repository, read_head(context.workspace)
    made = replace(context.events.outputs, pull_request_url=_pull_request(context))
    if after.commit and after != baseline.outputs:
        made = replace(made, branch=after.branch, commit=after.commit)
    if baseline.tree or repository.has_files():
        made = replace(
            made,
            commits=await _commits(repository, baseline.outputs.commit, after.commit),
            files_changed=await _keep_patch(context, repository, baseline.tree),
        )
    if made != context.events.outputs:
        context.events.report_outputs(made)


def _pull_request(context: RunContext) -> str | None:
    """The one that the agent made, as far as can be told: it may read about others."""
    url, setup = context.events.pull_request_url, context.task.workspace_setup
    repository = context.task.repository or (setup.git_repo if setup else None)
    return url if url and repository and belongs_to_repository(url, repository) else None


async def _tree_of(repository: "_Repository") -> str | None:
    """The state of the workspace: the commit that was just checked out, or the files that came with the job."""
    if commit := read_head(repository.workspace).commit:
        await repository.create()
        index = repository.workspace / ".git" / "index"
        if index.is_file():
            shutil.copy2(index, repository.git_dir / "index")  # it knows the files: only changed ones are read later
        return commit
    if not repository.has_files():
        return None
    await repository.create()
    await repository.git("add", "--all", "--force")
    return await repository.word("write-tree")


async def _keep_patch(context: RunContext, repository: "_Repository", tree: str | None) -> int:
    """Hand the patch over, and return how many files it is about."""
    await repository.create()
    tree = tree or await repository.word("write-tree")  # of nothing yet
    await repository.git("add", "--all", "--ignore-errors")
    difference = ("diff", "--cached", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty", "--no-color")
    names = await repository.git(*difference, "--name-only", "-z", "--no-renames", tree, "--")
    patch = await repository.git(*difference, "--binary", "--full-index", tree, "--", most_bytes=PATCH_BYTES)
    if patch:
        context.events.patch(patch)
    return names.count(b"\0")


async def _commits(repository: "_Repository", before: str | None, after: str | None) -> tuple[str, ...]:
    """The commits that were made, newest first."""
    if not after or after == before:
        return ()
    await repository.create()
    known = [f"^{before}"] if before else []
    listed = await repository.git("rev-list", f"--max-count={MOST_COMMITS}", after, *known, "--")
    return tuple(listed.decode().split())


@dataclass(frozen=True)
class _Repository:
    """Ours, beside the workspace that it looks at."""

    workspace: Path
    git_dir: Path

    def has_files(self) -> bool:
        with os.scandir(self.workspace) as entries:
            return any(True for _ in entries)

    async def create(self) -> None:
        """Make it, where that was not done before. It finds the objects of the workspace's repository."""
        if self.git_dir.exists():
            return
        await self._run(["git", "init", "--quiet", "--bare", "--template=", str(self.git_dir)])
        alternates = self.git_dir / "objects" / "info" / "alternates"
        alternates.parent.mkdir(exist_ok=True)
        alternates.write_text(f"{self.workspace / '.git' / 'objects'}\n")
        (self.git_dir / _EXCLUDES_FILE).write_text("".join(f"{pattern}\n" for pattern in _EXCLUDED))

    async def git(self, *arguments: str, most_bytes: int = _LIST_BYTES) -> bytes:
        """What git prints. Raises DiffFailed when it fails, or prints more than `most_bytes`."""
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
                        raise DiffFailed(f"it is more than {most_bytes // 2**20} MiB")
                status = await process.exit_status()
        except OSError as error:
            raise DiffFailed(f"git cannot be run: {error.strerror}") from error
        if status != 0:
            raise DiffFailed(f"git {command[-1]} ended with status {status}")
        return printed


def _say_why(context: RunContext, error: DiffFailed) -> None:
    context.events.log(f"[what changed in the workspace cannot be told: {error}]")
