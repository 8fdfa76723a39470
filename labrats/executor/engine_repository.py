"""The engine's own git repository beside a workspace, with the workspace as its work tree.

The repository in the workspace is not modified, and only its objects are read: the agent can change its configuration,
which could name programs to execute. Git trusts parts of these objects, such as the index of a pack. So each command
that may read them runs in the agent's sandbox, if there is one. It could leave links in this repository.
"""

import asyncio
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from subprocess import DEVNULL, STDOUT
from tempfile import TemporaryFile
from typing import Final, NamedTuple

from labrats.executor.subprocesses import child_process
from labrats.files.safe_paths import open_folder_inside, open_inside, write_new
from labrats.files.trees import is_plain_folder, make_accessible, remove_path
from labrats.model.errors import GiveUp, LabratsError
from labrats.model.publication import PUBLICATION_FOLDER

LIST_BYTES: Final = 64 * 1024 * 1024
"""Limit on the output of a git command that has no other limit."""

INDEX_BYTES: Final = 256 * 1024 * 1024
"""Limit on the index of a repository: an entry has some 100 bytes."""

OBJECTS: Final = ".git/objects"
"""The folder in the workspace with the objects of its repository."""

IGNORE_DIRTY_SUBMODULES: Final = "--ignore-submodules=dirty"
"""An option of each comparison. Without it, `.gitmodules` could hide the new commit of a submodule."""

_CHANGES: Final = ("diff-index", "--cached", "--raw", "-z", "--no-abbrev", "--no-renames", IGNORE_DIRTY_SUBMODULES)
"""A git command that lists the changes of the index since a tree."""

OUTSIDE_PUBLICATION: Final = ("--", ".", f":(exclude){PUBLICATION_FOLDER}")
"""Arguments that restrict a git command to files outside the folder of the publication."""

_NO_MODE, _SUBMODULE = b"000000", b"160000"
"""Modes of a file that does not exist, and of a submodule."""

_READ_BYTES: Final = 64 * 1024
_ERROR_BYTES: Final = 1024 * 1024
_DENIED: Final = os.strerror(errno.EACCES).encode()
_ERROR: Final = b"error: "
_ENDED_EARLY: Final = (b"fatal: ", b"bwrap: ")
"""The beginnings of lines about an error after which git, or the sandbox, has done nothing more."""

_NOT_ADDED: Final = re.compile("error: (?!unable to normalize alternate)|warning: could not open")
"""The beginning of git's messages about files that it leaves out, among hints and other warnings."""

_LEFT_OUT: Final = re.compile(
    r"fatal: (?:.* '(?P<file>.+)' (?:if encoded as|from) .*|bad config .* in file (?P<config>.+/\.git/config))"
)
"""Git's messages about a file or a repository because of which it adds nothing at all."""

_FATAL: Final = b"fatal: "
_MOST_LEFT_OUT: Final = 20
"""Files and repositories that are left out because git would add nothing otherwise. Each costs a run of git."""

_EXCLUDES_FILE: Final = "labrats-excludes"
_MADE: Final = ("__pycache__/", "*.pyc")
_INSTALLED: Final = ("node_modules/", ".venv/")
_EXCLUDED: Final = (*_MADE, *_INSTALLED)
_IS_EXCLUDED: Final = re.compile(rb"(^|/)(__pycache__|node_modules|\.venv)/|\.pyc$")
"""Patterns of new files that the patch omits: what programs make and install. A folder of `_INSTALLED` with files that
the repository tracks is its own work, and its new files are not omitted.
"""

_WITHOUT_FLAGS: Final = b"H "
"""The beginning of a line about a file that git compares with the index. It names others with other letters."""

_KEPT_INDEX: Final = "index-before"
_NO_PROGRAMS: Final = "no-programs"
"""The folder with a `git` that does nothing."""

_NO_FILES: Final = "no-files"
"""The folder that stands for the workspace while a command runs that needs no file of it. Git would open files there
for attributes and submodules, also those to which links lead; it reads them from the index instead.
"""

_SETTINGS: Final = (
    *("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false"),
    "core.safecrlf=false",  # it only warns, of each file
    "core.commitGraph=false",  # the workspace's own could name other parents than the commits
    "core.multiPackIndex=false",  # it could name packs of other repositories
    "pack.useBitmaps=false",  # they could name other objects than the commits have
    "pack.readReverseIndex=false",  # from git 2.41: it makes one in place of a file of the workspace
    "index.threads=1",  # git trusts the offsets in an index that it reads by several threads
)
_ENVIRONMENT: Final = {
    "LC_ALL": "C",
    "HOME": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",  # an agent could show other commits than it hands over
}


_LITERALLY: Final = {"GIT_LITERAL_PATHSPECS": "1"}
_EMPTY: Final = ("--quiet", "--bare", "--template=")
_CONFIGURATION_FILE: Final = "config"
_OBEYED: Final = (_CONFIGURATION_FILE, "config.worktree", "commondir", "info", _NO_PROGRAMS, _NO_FILES)
"""Files by which a repository changes what git does, also by programs, and the engine's own folders."""


class DiffFailed(LabratsError):
    """The changes cannot be computed."""


class GitFailed(DiffFailed):
    """A git command failed. output: what it has printed."""

    def __init__(self, message: str, output: bytes) -> None:
        super().__init__(message)
        self.output = output


class Entry(NamedTuple):
    """A file in a tree or an index. name: that of its object, in hexadecimal digits. Both are empty for no file."""

    mode: bytes
    name: bytes

    @classmethod
    def of(cls, mode: bytes, name: bytes) -> "Entry":
        return NO_ENTRY if mode == _NO_MODE else cls(mode, name)


NO_ENTRY: Final = Entry(b"", b"")


class Change(NamedTuple):
    """The entries of a path before and after a change."""

    before: Entry
    after: Entry

    @property
    def blobs(self) -> list[bytes]:
        """The names of the objects with its content. A submodule has none."""
        return [entry.name for entry in self if entry.name and entry.mode != _SUBMODULE]


class Added(NamedTuple):
    """The parts of a workspace that the index lacks after `add_all`.

    errors:   of git, about single files.
    left_out: paths that programs have made or installed, of which those of folders end with a slash.
    """

    errors: list[str]
    left_out: list[bytes]


@dataclass(frozen=True)
class EngineRepository:
    """The engine's repository. It shares the objects of the workspace's repository.

    confine: returns the command that runs another one in the agent's sandbox, if there is one.
    index:   the name of the index file.
    """

    workspace: Path
    git_dir: Path
    confine: Callable[[Sequence[str]], AbstractContextManager[Sequence[str]]]
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
        if self.git_dir.exists():
            return
        await self._run(["init", *_EMPTY, str(self.git_dir)])
        self.use_objects_of_workspace()
        (self.git_dir / _EXCLUDES_FILE).write_text("".join(f"{pattern}\n" for pattern in _EXCLUDED))

    async def reset_configuration(self) -> None:
        """Replace what git obeys in the repository. Raises DiffFailed.

        Without a sandbox, an agent can write to it, and name programs in it that would run after the agent's end. None
        of its processes is left. In the sandbox, `git add` could do so if an agent's files made it run a program.
        """
        if not os.path.lexists(self.git_dir):
            return
        fresh = self.git_dir.with_name(f"{self.git_dir.name}.{token_hex(8)}")
        try:
            if not is_plain_folder(self.git_dir):
                raise DiffFailed("the agent has replaced the engine's repository")
            for name in _OBEYED:
                remove_path(self.git_dir / name)
            await self._run(["init", *_EMPTY, str(fresh)])
            write_new(self.git_dir / _CONFIGURATION_FILE, (fresh / _CONFIGURATION_FILE).read_bytes())
            self.use_objects_of_workspace()
        except OSError as error:
            raise DiffFailed(f"the engine's repository cannot be used: {error.strerror}") from error
        finally:
            remove_path(fresh)

    @contextmanager
    def showing_text(self) -> Iterator[None]:
        """Let comparisons show the text of files that are binary according to `.gitattributes`. Raises DiffFailed."""
        attributes = self.git_dir / "info" / "attributes"
        try:
            remove_path(attributes.parent)  # the confined `git add` may write to it
            attributes.parent.mkdir()
            attributes.write_text("* !diff\n")
        except OSError as error:
            raise DiffFailed(f"the engine's repository cannot be used: {error.strerror}") from error
        try:
            yield
        finally:
            attributes.unlink()

    def use_objects_of_workspace(self) -> None:
        """Make git also read the objects of the workspace's repository."""
        information = self.git_dir / "objects" / "info"
        remove_path(information)
        information.mkdir()
        write_new(information / "alternates", f"{self.workspace / OBJECTS}\n".encode())

    def copy_index_of_workspace(self) -> None:
        """Copy the index of the workspace's repository, if there is one, so that git later reads only changed files.

        Git trusts an index, so no setup command may have run, which could have written it. Without a sandbox, others
        may replace it by a link, a pipe or a huge file.
        """
        with suppress(GiveUp, OSError), open_inside(self.workspace, ".git/index") as source:
            status = os.fstat(source.fileno())
            if status.st_size <= INDEX_BYTES:
                copy = self.git_dir / self.index
                copy.write_bytes(source.read(INDEX_BYTES))
                os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))  # git compares the times of files with it

    async def require_no_flags(self, commit: str) -> None:
        """Replace the index by that of a commit if it tells git to leave files out, or if there is none.

        Without a sandbox, setup commands, which are programs of the repository, may flag files so that no change shows.
        """
        with suppress(DiffFailed):
            if not (self.git_dir / self.index).exists():
                raise DiffFailed("there is no index")
            listed = await self.git("ls-files", "-v", "-z")
            if all(line.startswith(_WITHOUT_FLAGS) for line in listed.split(b"\0")[:-1]):
                return
        (self.git_dir / self.index).unlink(missing_ok=True)
        await self.git("read-tree", commit)

    def keep_index(self) -> None:
        """Keep the index as that of the files before the agent starts; see `changed_since_kept`."""
        with suppress(FileNotFoundError):
            self._copy_index(_KEPT_INDEX)

    async def keep_tree(self, tree: str) -> None:
        """Keep the files of a tree instead."""
        await replace(self, index=_KEPT_INDEX).git("read-tree", tree)

    async def changes_since(self, tree: str) -> dict[bytes, Change]:
        """Return how each path has changed in the index since a tree. The agent may have replaced this tree."""
        words = iter((await self.git(*_CHANGES, tree, *OUTSIDE_PUBLICATION)).split(b"\0")[:-1])
        changes = {}
        for line in words:
            mode, new_mode, name, new_name, _ = line.removeprefix(b":").split()
            changes[next(words)] = Change(Entry.of(mode, name), Entry.of(new_mode, new_name))
        return changes

    async def changes_since_kept(self) -> dict[bytes, Change] | None:
        """Return how each path has changed in the index since it was kept; None if no index was kept.

        Unlike a diff, this reads no object of the workspace. The agent can replace these, and git does not check their
        content when it compares them.
        """
        if not (self.git_dir / _KEPT_INDEX).is_file():
            return None
        kept, now = await replace(self, index=_KEPT_INDEX).entries(), await self.entries()
        found = {path: Change(kept.get(path, NO_ENTRY), now.get(path, NO_ENTRY)) for path in kept.keys() | now.keys()}
        return {path: change for path, change in found.items() if change.before != change.after}

    async def entries(self) -> dict[bytes, Entry]:
        """Return the entry of each file in the index, by its path."""
        listed = await self.git("ls-files", "--stage", "-z", *OUTSIDE_PUBLICATION)
        found = (line.partition(b"\t") for line in listed.split(b"\0")[:-1])
        return {path: Entry.of(*entry.split()[:2]) for entry, _, path in found}

    def require_own_objects(self, *, may_be_missing: bool = False) -> None:
        """Raise DiffFailed if git would read objects from outside the workspace, which may be other jobs' secrets.

        may_be_missing: whether the workspace may have no repository any more, so that git reads no objects of it.
        """
        try:
            with open_folder_inside(self.workspace, OBJECTS):
                pass
        except GiveUp as error:
            # A folder that this user may not enter is not missing: it may be opened later. A file names another folder,
            # of which git reads nothing here.
            place = self.workspace / ".git"
            is_missing = isinstance(error.__cause__, FileNotFoundError) or (place.is_file() and not place.is_symlink())
            if may_be_missing and is_missing:
                return
            raise DiffFailed(f"the workspace has no folder {OBJECTS} of its own") from error
        folders = [self.workspace / OBJECTS]
        while folders:
            try:
                with os.scandir(folders.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(Path(entry.path))
                        elif entry.name.endswith("alternates") or not entry.is_file(follow_symlinks=False):
                            raise DiffFailed(f"the workspace's repository has objects elsewhere, by {entry.name}")
            except OSError as error:
                raise DiffFailed(
                    f"the objects of the workspace's repository cannot be read: {error.strerror}"
                ) from error

    async def take_entries_of(self, commit: str) -> None:
        """Give the index what a commit has, also if it is ignored. `add_all` then updates it, unless git cannot.

        The commits that are handed over have the same entries.
        """
        listed = await self.git(*_CHANGES, "--diff-filter=DMT", commit, *OUTSIDE_PUBLICATION)
        entries = b"".join(entries_before(listed).values())
        await self.git("update-index", "-z", "--add", "--replace", "--index-info", stdin=entries)

    def with_own_index(self) -> "EngineRepository":
        """Return this repository with a copy of its index, which can be changed."""
        copy = replace(self, index="scratch-index")
        (self.git_dir / f"{copy.index}.lock").unlink(missing_ok=True)  # of a command that was ended
        with suppress(FileNotFoundError):
            self._copy_index(copy.index)  # so that git reads only changed files
        return copy

    def _copy_index(self, name: str) -> None:
        """Copy the index, with its time, to another one. Raises FileNotFoundError if there is none."""
        remove_path(self.git_dir / name)
        shutil.copy2(self.git_dir / self.index, self.git_dir / name, follow_symlinks=False)

    async def add_all(self, *, ignored_too: bool = False) -> "Added":
        """Update the index from the files of the workspace, in the sandbox.

        The index then has all but what the result names. Git refuses, for example, a repository without a commit, and
        files in `.GIT`.

        Git reads the commit of each repository in the workspace, where links may lead to it.
        `git add` would run `git status` in each submodule, with the programs that its configuration names. In its place
        it finds a program that does nothing. The commit of a submodule is recorded all the same.

        Files and folders that their owner may not read get the owner's permissions, since git leaves them out or fails.
        Tests of programs leave such files behind.
        """
        try:
            return await self._add_all(ignored_too=ignored_too)
        finally:
            await self.reset_configuration()

    async def _add_all(self, *, ignored_too: bool) -> "Added":
        folder = self.git_dir / _NO_PROGRAMS
        if not folder.exists():
            folder.mkdir()
            (folder / "git").write_text("#!/bin/sh\n")
            (folder / "git").chmod(0o755)
        no_programs = {"GIT_EXEC_PATH": str(folder), "PATH": str(folder)}
        add = ["add", "--all", "--ignore-errors", *(["--force"] if ignored_too else []), *OUTSIDE_PUBLICATION]
        errors, failure = await self._add(add, no_programs)
        if _DENIED in errors:
            await asyncio.to_thread(make_accessible, self.workspace)
            errors, failure = await self._add(add, no_programs)
        reasons = list[str]()
        while failure and (named := self._named_in(errors)) and len(reasons) < _MOST_LEFT_OUT:
            path, reason = named
            reasons.append(reason)
            add.append(f":(exclude,literal){path}")
            errors, failure = await self._add(add, no_programs)
        if failure:
            raise failure
        left_out = [] if ignored_too else await self._left_out()
        if new := [path for path in left_out if _is_in_tracked_folder(path)]:
            add = ["add", "--force", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul"]
            more, failure = await self._add(add, no_programs | _LITERALLY, stdin=b"\0".join(new))
            errors += b"\n" + more
            if failure:
                reasons.append(f"new files in folders with tracked ones, such as {os.fsdecode(new[0])!r}")
        reasons += [line for line in errors.decode("utf-8", "replace").splitlines() if _NOT_ADDED.match(line)]
        return Added(reasons, [path for path in left_out if path not in new])

    async def _left_out(self) -> list[bytes]:
        """Return the files and folders of `_EXCLUDED` that the repository's own rules do not ignore."""
        options = ("--others", "--directory", "--no-empty-directory", "--exclude-per-directory=.gitignore", "-z")
        listed = await self.git("ls-files", *options, *OUTSIDE_PUBLICATION, in_workspace=True)
        return list(filter(_IS_EXCLUDED.search, listed.split(b"\0")[:-1]))

    def _named_in(self, errors: bytes) -> tuple[str, str] | None:
        """Return the path that git names in the error after which it has added nothing, and what is left out.

        It is a file in another encoding than `.gitattributes` says, or a repository whose configuration is invalid.
        None for anything else: names of files can look like errors of git, so no whole folder is left out for one.
        """
        lines = [os.fsdecode(line) for line in errors.split(b"\n") if line.startswith(_FATAL)]
        for found in filter(None, map(_LEFT_OUT.match, lines[:_MOST_LEFT_OUT])):
            if found["file"] and self._is_file(found["file"]):
                return found["file"], f"the file {found['file']!r}, whose encoding is not as in .gitattributes"
            if found["config"] and (repository := self._repository_of(Path(found["config"]))):
                return repository, f"the repository {repository!r}, whose configuration is invalid"
        return None

    def _is_file(self, name: str) -> bool:
        with suppress(GiveUp, OSError), open_inside(self.workspace, name):
            return True
        return False

    def _repository_of(self, config: Path) -> str | None:
        """Return the path, from the workspace, of the repository to which a configuration in it belongs."""
        for workspace in (self.workspace, self.workspace.resolve()):
            if config.is_relative_to(workspace) and self._is_file(str(config.relative_to(workspace))):
                repository = str(config.parents[1].relative_to(workspace))
                return None if repository == "." else repository
        return None

    async def _add(
        self, arguments: Sequence[str], variables: Mapping[str, str], stdin: bytes = b""
    ) -> tuple[bytes, DiffFailed | None]:
        """Run `git add`. Return the start of its errors, and the failure if it has not added all that it can."""
        failure = None
        try:
            printed = await self.git(*arguments, stdin=stdin, variables=variables, stderr=STDOUT, in_workspace=True)
        except GitFailed as error:
            printed, failure = error.output, error
        errors = printed[:_ERROR_BYTES]
        lines = [*errors.splitlines(), *printed[-_ERROR_BYTES:].splitlines()]
        # Git fails, too, if it has left out single files.
        is_complete = any(line.startswith(_ERROR) for line in lines) and not any(
            line.startswith(_ENDED_EARLY) for line in lines
        )
        return errors, None if is_complete else failure

    async def git(
        self,
        *arguments: str,
        most_bytes: int = LIST_BYTES,
        stdin: bytes = b"",
        variables: Mapping[str, str] | None = None,
        stderr: int = DEVNULL,
        in_workspace: bool = False,
        take: Callable[[bytes], None] | None = None,
    ) -> bytes:
        """Return the output of a git command. Raises DiffFailed if it fails or prints more than `most_bytes`.

        in_workspace: let it read the files of the workspace.
        take:         called with each part of the output, of any length, instead of returning it.
        """
        work_tree = self.workspace if in_workspace else self._no_files()
        settings = [word for setting in (*_SETTINGS, self._excludes) for word in ("-c", setting)]
        options = ["-C", str(work_tree), *settings, f"--git-dir={self.git_dir}", f"--work-tree={work_tree}"]
        variables = {"GIT_INDEX_FILE": str(self.git_dir / self.index), **(variables or {})}
        with nullcontext() if in_workspace else self._keeping_time_of_index():
            return await self._run(arguments, options, most_bytes, stdin, variables, stderr, confined=True, take=take)

    @contextmanager
    def _keeping_time_of_index(self) -> Iterator[None]:
        """Keep the time of the index, by which git knows which files may have changed in the second of their entries.

        A command that writes the index would otherwise mark them, for which it needs the files.
        """
        index, status = self.git_dir / self.index, None
        with suppress(OSError):
            status = index.lstat()
        try:
            yield
        finally:
            if status:
                with suppress(OSError):
                    os.utime(index, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)

    def _no_files(self) -> Path:
        folder = self.git_dir / _NO_FILES
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DiffFailed(f"the engine's repository cannot be used: {error.strerror}") from error
        return folder

    @property
    def _excludes(self) -> str:
        return f"core.excludesFile={self.git_dir / _EXCLUDES_FILE}"

    async def word(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """Return the output of a git command that prints one word."""
        return (await self.git(*arguments, variables=variables)).decode().strip()

    async def _run(
        self,
        arguments: Sequence[str],
        options: Sequence[str] = (),
        most_bytes: int = LIST_BYTES,
        stdin: bytes = b"",
        variables: Mapping[str, str] | None = None,
        stderr: int = DEVNULL,
        *,
        confined: bool = False,
        take: Callable[[bytes], None] | None = None,
    ) -> bytes:
        environment = {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT, **(variables or {})}
        git = [shutil.which("git") or "git", *options, *arguments]
        printed = bytearray()
        with ExitStack() as files:
            source = files.enter_context(TemporaryFile()) if stdin else None
            if source:
                source.write(stdin)
                source.seek(0)
            try:
                command = files.enter_context(self.confine(git)) if confined else git
                async with child_process(
                    command, self.git_dir.parent, environment, stdin=source or DEVNULL, stderr=stderr
                ) as process:
                    while chunk := await process.output.read(_READ_BYTES):
                        if take:
                            take(chunk)
                            continue
                        printed += chunk
                        if len(printed) > most_bytes:
                            raise DiffFailed(f"the output of git {arguments[0]} exceeds {most_bytes // 2**20} MiB")
                    status = await process.exit_status()
            except OSError as error:
                raise DiffFailed(f"git cannot be run: {error.strerror}") from error
        if status != 0:
            raise GitFailed(f"git {arguments[0]} exited with status {status}", bytes(printed))
        return bytes(printed)


def _is_in_tracked_folder(path: bytes) -> bool:
    """Return whether something that was left out is in a folder of `_INSTALLED` that has tracked files, too.

    Otherwise git names only the folder.
    """
    return any(f"/{name}".encode() in b"/" + path.removesuffix(b"/") for name in _INSTALLED)


def entries_before(changes: bytes) -> dict[bytes, bytes]:
    """Return, by changed path, an entry for `git update-index --index-info` that restores the state before.

    changes: the output of a git command with the options `--raw`, `-z` and `--no-renames`.
    """
    words = iter(changes.split(b"\0")[:-1])
    found = ((change.lstrip(b":").split(), next(words)) for change in words)
    return {path: b"%s %s\t%s\0" % (mode, blob, path) for (mode, _, blob, *_), path in found}
