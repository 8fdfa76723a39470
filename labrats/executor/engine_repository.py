"""The engine's own git repository beside a workspace. The workspace is a remote from which the engine fetches.

The repository starts as a copy of what was cloned, before any program of the clone has run. Later objects arrive by
`git fetch` alone (`workspace_remote.py`), and git computes the name of each from its content: an agent can leave out
objects, but cannot pass one off as another. So these commands need no sandbox, and obey no configuration of the agent.
"""

import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from subprocess import DEVNULL, STDOUT
from tempfile import TemporaryFile
from typing import Final, NamedTuple

from labrats.executor.subprocesses import child_process, read_tail
from labrats.files.trees import is_plain_folder, remove_path
from labrats.model.errors import LabratsError
from labrats.model.publication import PUBLICATION_FOLDER

LIST_BYTES: Final = 64 * 1024 * 1024
"""Limit on the output of a git command that has no other limit."""

IGNORE_DIRTY_SUBMODULES: Final = "--ignore-submodules=dirty"
"""An option of each comparison. Without it, `.gitmodules` could hide the new commit of a submodule."""

RAW: Final = ("-r", "-z", "--raw", "--no-abbrev", "--no-renames", IGNORE_DIRTY_SUBMODULES)
"""Options of a git command whose output `parse_changes` reads."""

OUTSIDE_PUBLICATION: Final = ("--", ".", f":(exclude){PUBLICATION_FOLDER}")
"""Arguments that restrict a git command to files outside the folder of the publication."""

EMPTY_REPOSITORY: Final = ("init", "--quiet", "--bare", "--template=")

SETTINGS: Final = (
    *("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false"),
    "core.safecrlf=false",  # it only warns, of each file
    "core.commitGraph=false",  # the workspace's own could name other parents than the commits
    "index.threads=1",  # git trusts the offsets in an index that it reads by several threads
    "fetch.fsckObjects=true",
    "safe.directory=*",
)
_ENVIRONMENT: Final = {
    "LC_ALL": "C",
    "HOME": os.devnull,
    "GIT_ALLOW_PROTOCOL": "file",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",  # an agent could show other commits than it hands over
}

_OWN: Final = ("objects", "refs", "shallow", "index")
"""The parts of the repository that `restore` keeps. The rest changes what git does."""

_ALTERNATES: Final = "objects/info"
_START_REF: Final = "refs/labrats/start"
_NO_MODE, _SUBMODULE = b"000000", b"160000"
"""Modes of a file that does not exist, and of a submodule."""

_READ_BYTES: Final = 64 * 1024


class DiffFailed(LabratsError):
    """The changes cannot be computed."""


class GitFailed(DiffFailed):
    """A git command failed. output: what it has printed."""

    def __init__(self, message: str, output: bytes) -> None:
        super().__init__(message)
        self.output = output


class Entry(NamedTuple):
    """A file in a tree. name: that of its object, in hexadecimal digits. A file that does not exist has `_NO_MODE`."""

    mode: bytes
    name: bytes

    def at(self, path: bytes) -> bytes:
        """Return the line for `git update-index -z --index-info` that puts the file at a path, or removes it."""
        return b"%s %s\t%s\0" % (self.mode, self.name, path)


class Change(NamedTuple):
    """The entries of a path before and after a change."""

    before: Entry
    after: Entry

    def reversed(self) -> "Change":
        """Return the change in the other direction."""
        return Change(self.after, self.before)

    @property
    def blobs(self) -> list[bytes]:
        """The names of the objects with its content. A submodule has none."""
        return [entry.name for entry in self if entry.mode not in (_NO_MODE, _SUBMODULE)]


class GitObject(NamedTuple):
    """An object. kind: `blob`, `tree`, `commit` or `tag`."""

    name: str
    kind: str
    content: bytes


@dataclass(frozen=True)
class EngineRepository:
    """The engine's repository.

    confine: returns the command that runs another one in the agent's sandbox, if there is one. It takes the folders
             outside the workspace that the command may read (`readable`) and change (`writable`).
    index:   the name of the index file.
    """

    workspace: Path
    git_dir: Path
    confine: Callable[..., AbstractContextManager[Sequence[str]]]
    index: str = "index"

    def has_files(self) -> bool:
        """Return whether the workspace contains anything. Raises DiffFailed if the agent has removed it."""
        try:
            with os.scandir(self.workspace) as entries:
                return any(True for _ in entries)
        except OSError as error:
            raise DiffFailed(f"the workspace cannot be read: {error.strerror}") from error

    async def create(self) -> None:
        """Create the repository unless it exists."""
        if not self.git_dir.exists():
            await run_git([*EMPTY_REPOSITORY, str(self.git_dir)], self.git_dir.parent)

    async def copy_clone(self, commit: str) -> None:
        """Copy the repository in the workspace, before any program of the clone has run, with its index.

        A copy, since an agent could change what a hard link leads to.
        """
        await self.create()
        clone = self.workspace / ".git"
        command = ["cp", "--archive", "--no-preserve=ownership", "--reflink=auto", "--no-target-directory", "--"]
        objects = [str(clone / "objects"), str(self.git_dir / "objects")]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        try:
            async with child_process([*command, *objects], self.git_dir, environment, stderr=STDOUT) as process:
                printed, status = await read_tail(process.output), await process.exit_status()
            if status != 0:
                raise DiffFailed(f"the repository cannot be copied: {printed.strip()}")
            for name in ("shallow", "index"):
                if (clone / name).exists():
                    shutil.copy2(clone / name, self.git_dir / name)  # with the time, which git compares with files
        except OSError as error:
            raise DiffFailed(f"the repository cannot be copied: {error.strerror}") from error
        await self.git("update-ref", _START_REF, commit)

    async def restore(self) -> None:
        """Replace what git obeys in the repository. Raises DiffFailed.

        Without a sandbox, an agent can write to it, and name programs in it that would run after the agent's end. None
        of its processes is left.
        """
        if not os.path.lexists(self.git_dir):
            return
        fresh = self.git_dir.with_name(f"{self.git_dir.name}.{token_hex(8)}")
        try:
            if not is_plain_folder(self.git_dir):
                raise DiffFailed("the agent has replaced the engine's repository")
            await run_git([*EMPTY_REPOSITORY, str(fresh)], self.git_dir.parent)
            remove_path(self.git_dir / _ALTERNATES)
            for name in _OWN:
                if os.path.lexists(self.git_dir / name):
                    remove_path(fresh / name)
                    (self.git_dir / name).rename(fresh / name)
            remove_path(self.git_dir)
            fresh.rename(self.git_dir)
        except OSError as error:
            raise DiffFailed(f"the engine's repository cannot be used: {error.strerror}") from error
        finally:
            remove_path(fresh)

    def is_complete(self) -> bool:
        """Return whether the repository has its objects. Version 0.2 and older read those of the workspace."""
        return not (self.git_dir / _ALTERNATES / "alternates").exists()

    def copy_state(self, git_dir: Path) -> None:
        """Copy the index and the list of shallow commits to another repository."""
        for name in ("shallow", "index"):
            with suppress(FileNotFoundError):
                # With its time, by which git knows which files may have changed in the second of their entries.
                shutil.copy2(self.git_dir / name, git_dir / name, follow_symlinks=False)

    async def has(self, name: str) -> bool:
        """Return whether the repository has an object."""
        try:
            await self.git("cat-file", "-e", name)
        except GitFailed:
            return False
        return True

    async def is_ancestor(self, commit: str, other: str) -> bool:
        """Return whether the history of `other` has `commit`."""
        try:
            await self.git("merge-base", "--is-ancestor", commit, other)
        except GitFailed:
            return False
        return True

    @contextmanager
    def showing_text(self) -> Iterator[None]:
        """Let comparisons show the text of files that are binary according to `.gitattributes`. Raises DiffFailed."""
        attributes = self.git_dir / "info" / "attributes"
        try:
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text("* !diff\n")
        except OSError as error:
            raise DiffFailed(f"the engine's repository cannot be used: {error.strerror}") from error
        try:
            yield
        finally:
            attributes.unlink()

    async def with_index_of(self, tree: str) -> "EngineRepository":
        """Return this repository with another index, which contains a tree."""
        copy = replace(self, index="scratch-index")
        for name in (copy.index, f"{copy.index}.lock"):
            (self.git_dir / name).unlink(missing_ok=True)
        await copy.git("read-tree", tree)
        return copy

    async def changes(self, before: str, after: str) -> dict[bytes, Change]:
        """Return how each path has changed between two trees or commits."""
        return parse_changes(await self.git("diff-tree", *RAW, before, after, *OUTSIDE_PUBLICATION))

    async def read_objects(self, names: Iterable[bytes], most_bytes: int) -> list[GitObject]:
        """Return the objects, in this order. Raises DiffFailed if they have more than `most_bytes`."""
        request = b"".join(b"%s\n" % name for name in names)
        printed = await self.git("cat-file", "--batch", "--buffer", stdin=request, most_bytes=most_bytes)
        objects, at = list[GitObject](), 0
        while at < len(printed):
            start = printed.index(b"\n", at) + 1
            name, kind, size = printed[at:start].decode().split()
            at = start + int(size) + 1
            objects.append(GitObject(name, kind, printed[start : at - 1]))
        return objects

    async def fetch(self, remote: Path, ref: str, upload_pack: Sequence[str]) -> None:
        """Fetch a ref, with all objects that this repository lacks. Git checks each of them.

        upload_pack: the command that reads `remote`.
        """
        program = f"--upload-pack={shlex.join(upload_pack)}"
        await self.git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", program, str(remote), f"+{ref}:{ref}")

    async def word(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """Return the output of a git command that prints one word."""
        return (await self.git(*arguments, variables=variables)).decode().strip()

    async def git(
        self,
        *arguments: str,
        most_bytes: int = LIST_BYTES,
        stdin: bytes = b"",
        variables: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the output of a git command, which reads no file of the workspace.

        Raises DiffFailed if it fails or prints more than `most_bytes`.
        """
        folder = self.git_dir / "no-files"  # git reads attributes and submodules from the index instead
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DiffFailed(f"the engine's repository cannot be used: {error.strerror}") from error
        variables = {"GIT_INDEX_FILE": str(self.git_dir / self.index), **(variables or {})}
        command = [*git_options(folder, self.git_dir), *arguments]
        return await run_git(command, folder, most_bytes=most_bytes, stdin=stdin, variables=variables)


def parse_changes(printed: bytes) -> dict[bytes, Change]:
    """Return how each path has changed, from the output of a git command with the options `RAW`."""
    words = iter(printed.split(b"\0")[:-1])
    changes = {}
    for line in words:
        mode, new_mode, name, new_name, _ = line.removeprefix(b":").split()
        changes[next(words)] = Change(Entry(mode, name), Entry(new_mode, new_name))
    return changes


def git_options(work_tree: Path, git_dir: Path, *settings: str) -> list[str]:
    """Return the options of git for a repository and a work tree."""
    words = [word for setting in (*SETTINGS, *settings) for word in ("-c", setting)]
    return ["-C", str(work_tree), *words, f"--git-dir={git_dir}", f"--work-tree={work_tree}"]


def git_program() -> str:
    """Return the path of git, or its name if there is none."""
    return shutil.which("git") or "git"


async def run_git(
    arguments: Sequence[str],
    folder: Path,
    *,
    most_bytes: int = LIST_BYTES,
    stdin: bytes = b"",
    variables: Mapping[str, str] | None = None,
    stderr: int = DEVNULL,
    confine: Callable[[Sequence[str]], AbstractContextManager[Sequence[str]]] | None = None,
) -> bytes:
    """Return the output of a git command. Raises DiffFailed if it fails or prints more than `most_bytes`.

    arguments: git's options, the name of its command, and the arguments of this command.
    folder:    the folder in which to start it.
    confine:   returns the command that runs another one in the agent's sandbox.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT, **(variables or {})}
    printed, name = bytearray(), _command_in(arguments)
    with ExitStack() as files:
        source = files.enter_context(TemporaryFile()) if stdin else None
        if source:
            source.write(stdin)
            source.seek(0)
        try:
            git = [git_program(), *arguments]
            command = files.enter_context(confine(git)) if confine else git
            async with child_process(command, folder, environment, stdin=source or DEVNULL, stderr=stderr) as process:
                while chunk := await process.output.read(_READ_BYTES):
                    printed += chunk
                    if len(printed) > most_bytes:
                        raise DiffFailed(f"the output of git {name} exceeds {most_bytes // 2**20} MiB")
                status = await process.exit_status()
        except OSError as error:
            raise DiffFailed(f"git cannot be run: {error.strerror}") from error
    if status != 0:
        raise GitFailed(f"git {name} exited with status {status}", bytes(printed))
    return bytes(printed)


def _command_in(arguments: Sequence[str]) -> str:
    """Return the name of git's command, after the options of `git_options`."""
    words = iter(arguments)
    for word in words:
        if word in ("-c", "-C"):
            next(words)
        elif not word.startswith("-"):
            return word
    return ""
