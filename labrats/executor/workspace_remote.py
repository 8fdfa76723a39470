"""Fetch the commits and the files of a workspace into the engine's repository.

Git reads a workspace only in the agent's sandbox, and by a repository that exists meanwhile: the configuration of the
workspace's own could name programs to execute.
"""

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import STDOUT
from typing import Final

from labrats.executor.engine_repository import (
    EMPTY_REPOSITORY,
    OUTSIDE_PUBLICATION,
    RAW,
    DiffFailed,
    EngineRepository,
    GitFailed,
    git_options,
    git_program,
    parse_changes,
    run_git,
)
from labrats.files.safe_paths import open_inside
from labrats.files.trees import make_accessible, remove_path
from labrats.model.errors import GiveUp

STAGING_FOLDER: Final = "staging.git"
"""The repository from which the engine fetches, beside the engine's own."""

_INDEX_BYTES: Final = 256 * 1024 * 1024
"""Limit on an index: an entry has some 100 bytes."""

_COMMIT_REF, _FILES_REF = "refs/labrats/commit", "refs/labrats/files"

_ERROR_BYTES: Final = 1024 * 1024
_DENIED: Final = os.strerror(errno.EACCES).encode()
_ERROR: Final = b"error: "
_ENDED_EARLY: Final = (b"fatal: ", b"bwrap: ")
"""The beginnings of lines about an error after which git, or the sandbox, has done nothing more."""

_NOT_ADDED: Final = re.compile("error: |warning: could not open")
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
_IS_EXCLUDED: Final = re.compile(rb"(^|/)(__pycache__|node_modules|\.venv)/|\.pyc$")
"""Patterns of new files that are left out: what programs make and install. A folder of `_INSTALLED` with files that
the repository tracks is its own work, and its new files are not left out.
"""

_LITERALLY: Final = {"GIT_LITERAL_PATHSPECS": "1"}


@dataclass(frozen=True)
class Files:
    """The files of a workspace in the engine's repository.

    tree:     the tree of all files but those that the rest names.
    errors:   of git, about single files.
    left_out: paths that programs have made or installed, of which those of folders end with a slash.
    """

    tree: str
    errors: Sequence[str]
    left_out: Sequence[bytes]


async def fetch_commit(repository: EngineRepository, commit: str) -> None:
    """Fetch a commit of the workspace's repository, with its history.

    Raises DiffFailed if an object is missing, or has other content than its name says.
    """
    if await repository.has(f"{commit}^{{commit}}"):
        return
    async with _staging_of(repository, repository.workspace / ".git" / "objects") as staging:
        await staging.hand_over(commit, _COMMIT_REF)


async def fetch_files(
    repository: EngineRepository,
    commit: str | None,
    since: str | None = None,
    *,
    ignored_too: bool = False,
    are_start: bool = False,
    may_change_access: bool = True,
) -> Files:
    """Fetch the files of the workspace. Raises DiffFailed.

    They are the files in the index of the engine's repository and those that git does not ignore.

    commit:      the commit that is checked out. Its files belong to the workspace even if git ignores them.
    since:       an earlier commit. Files that later commits have removed are not in the index any more.
    ignored_too: whether to fetch the ignored files, too.
    are_start:   whether later changes are measured from these files, so that git later reads only changed ones.
    may_change_access: whether unreadable files may be made readable. Otherwise they are left out.
    """
    async with _staging_of(repository) as staging:
        if commit:
            await staging.take_entries(commit, since)
        errors, left_out = await staging.add_all(ignored_too=ignored_too, may_change_access=may_change_access)
        tree = (await staging.git("write-tree")).decode().strip()
        if not await repository.has(tree):
            await staging.hand_over(tree, _FILES_REF)
        if are_start:
            staging.store_index()
    return Files(tree, errors, left_out)


@asynccontextmanager
async def _staging_of(repository: EngineRepository, *objects: Path) -> AsyncIterator["_StagingRepository"]:
    """Create a repository with the objects and the index of the engine's, and remove it when the context exits.

    objects: further folders with objects.
    """
    git_dir = repository.git_dir.with_name(STAGING_FOLDER)
    try:
        await asyncio.to_thread(remove_path, git_dir)
        await run_git([*EMPTY_REPOSITORY, str(git_dir)], git_dir.parent)
        alternates = [repository.git_dir / "objects", *objects]
        (git_dir / "objects" / "info").mkdir(exist_ok=True)
        (git_dir / "objects" / "info" / "alternates").write_text("".join(f"{folder}\n" for folder in alternates))
        (git_dir / _EXCLUDES_FILE).write_text("".join(f"{pattern}\n" for pattern in (*_MADE, *_INSTALLED)))
        await asyncio.to_thread(repository.copy_state, git_dir)
        yield _StagingRepository(repository, git_dir)
    except OSError as error:
        raise DiffFailed(f"the workspace cannot be fetched: {error.strerror}") from error
    finally:
        await asyncio.to_thread(remove_path, git_dir)


@dataclass(frozen=True)
class _StagingRepository:
    """A repository with the workspace as its work tree, from which the engine fetches."""

    repository: EngineRepository
    git_dir: Path

    @property
    def workspace(self) -> Path:
        return self.repository.workspace

    async def hand_over(self, name: str, ref: str) -> None:
        """Let the engine fetch an object, with all that it refers to. Raises DiffFailed."""
        await self.git("update-ref", ref, name)
        upload_pack = [git_program(), *git_options(self.workspace, self.git_dir)[:-2], "upload-pack"]
        with self._confine(upload_pack) as command:
            await self.repository.fetch(self.git_dir, ref, command)

    def store_index(self) -> None:
        """Make the index that of the engine's repository. Git could have left a link in its place."""
        with suppress(GiveUp), open_inside(self.git_dir, "index") as source:
            target, status = self.repository.git_dir / self.repository.index, os.fstat(source.fileno())
            target.write_bytes(source.read(_INDEX_BYTES))
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    async def take_entries(self, commit: str, since: str | None) -> None:
        """Update the index by a commit: by what it changed `since` another one, or else by all of its files."""
        if since:
            changes = await self.repository.changes(since, commit)
        else:
            listed = await self.git("diff-index", "--cached", *RAW, "--diff-filter=DMT", commit, *OUTSIDE_PUBLICATION)
            changes = {path: change.reversed() for path, change in parse_changes(listed).items()}
        lines = b"".join(change.after.at(path) for path, change in changes.items())
        await self.git("update-index", "-z", "--add", "--replace", "--index-info", stdin=lines)

    async def add_all(self, *, ignored_too: bool, may_change_access: bool) -> tuple[list[str], list[bytes]]:
        """Update the index from the files of the workspace. Return git's errors and what was left out, as in `Files`.

        Git refuses, for example, a repository without a commit, and files in `.GIT`.

        Git reads the commit of each repository in the workspace, where links may lead to it.
        `git add` would run `git status` in each submodule, with the programs that its configuration names. In its place
        it finds a program that does nothing. The commit of a submodule is recorded all the same.

        Files and folders that their owner may not read get the owner's permissions, since git leaves them out or fails.
        Tests of programs leave such files behind.
        """
        folder = self.git_dir / "no-programs"
        folder.mkdir()
        (folder / "git").write_text("#!/bin/sh\n")
        (folder / "git").chmod(0o755)
        no_programs = {"GIT_EXEC_PATH": str(folder), "PATH": str(folder)}
        add = ["add", "--all", "--ignore-errors", *(["--force"] if ignored_too else []), *OUTSIDE_PUBLICATION]
        errors, failure = await self._add(add, no_programs)
        if _DENIED in errors and may_change_access:
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
        return reasons, [path for path in left_out if path not in new]

    async def _left_out(self) -> list[bytes]:
        """Return the new files and folders of programs that the repository's own rules do not ignore."""
        patterns = f"--exclude-from={self.git_dir / _EXCLUDES_FILE}"
        listed = await self.git(
            "ls-files", "--others", "--ignored", "--directory", "-z", patterns, *OUTSIDE_PUBLICATION
        )
        made = list(filter(_IS_EXCLUDED.search, listed.split(b"\0")[:-1]))
        no_excludes = ("-c", "core.excludesFile=")
        try:
            printed = await self.git(
                *no_excludes, "check-ignore", "--no-index", "-z", "--stdin", stdin=b"\0".join(made)
            )
        except GitFailed:  # it ignores none
            return made
        ignored = set(printed.split(b"\0"))
        return [path for path in made if path not in ignored]

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
            printed = await self.git(*arguments, stdin=stdin, variables=variables, stderr=STDOUT)
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
        self, *arguments: str, stdin: bytes = b"", variables: Mapping[str, str] | None = None, **options: int
    ) -> bytes:
        """Return the output of a git command on the workspace, in the agent's sandbox. Raises DiffFailed."""
        excludes = f"core.excludesFile={self.git_dir / _EXCLUDES_FILE}"
        command = [*git_options(self.workspace, self.git_dir, excludes), *arguments]
        folder = self.git_dir.parent
        return await run_git(command, folder, stdin=stdin, variables=variables, confine=self._confine, **options)

    @property
    def _confine(self) -> partial[AbstractContextManager[Sequence[str]]]:
        return partial(self.repository.confine, readable=[self.repository.git_dir], writable=[self.git_dir])


def _is_in_tracked_folder(path: bytes) -> bool:
    """Return whether something that was left out is in a folder of `_INSTALLED` that has tracked files, too.

    Otherwise git names only the folder.
    """
    return any(f"/{name}".encode() in b"/" + path.removesuffix(b"/") for name in _INSTALLED)
