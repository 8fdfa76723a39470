"""Runs of git for the publisher, in threads of their own: git may wait for GitHub for minutes, and nobody with it.

Nothing that an agent has written is trusted: no hook, filter or configuration counts. The token is in the environment.
"""

import asyncio
import base64
import errno
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread, Timer
from typing import IO, Final, TypeVar

from labrats.files.trees import sizes_on_disk
from labrats.model.errors import LabratsError, RetryLater

T = TypeVar("T")

_THREADS: Final = 8
"""As many as reports are written at a time."""

_SECONDS: Final = 120.0
_SECONDS_TO_END: Final = 10.0
_SECONDS_OF_TRANSFER: Final = 900.0
"""Time for a transfer from or to GitHub. git ends one that has stalled by itself."""

_WITH_LITTLE_MEMORY: Final = ("/bin/sh", "-c", 'ulimit -d 262144 && exec "$@"', "sh")
"""The start of a command that may take 256 MiB of memory, since an agent can make its work very long.

That is half of what the chart gives the publisher. If a container has too little, many nodes end all of its processes.
"""

_CONFIG: Final[Mapping[str, str]] = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "protocol.allow": "never",
    "protocol.http.allow": "always",
    "protocol.https.allow": "always",
    "protocol.file.allow": "always",
    "core.bigFileThreshold": "16m",  # larger files are not read into memory, and count as binary
    "gc.auto": "0",
    "maintenance.auto": "false",
}
_UNREACHABLE: Final = re.compile(
    r"Could not resolve|Failed to connect|Couldn't connect|Connection (?:refused|timed out|reset)|unreachable"
    r"|Empty reply|Operation too slow|hung up|early EOF|error: 5\d\d|error: 429|timed out",
    re.IGNORECASE,
)
_REFUSED: Final = re.compile(r"error: 4(?!29)\d\d|HTTP 4(?!29)\d\d")
_DENIED: Final = re.compile(
    r"(?:error:|HTTP) (?:30[1278]|40[134])|Authentication failed|could not read Username|repository '[^']*' not found",
    re.IGNORECASE,
)
_SHORTAGE: Final = re.compile(r"No space left on device|Resource temporarily unavailable|Too many open files")
_SHORTAGES: Final = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})
"""Errors of starting git for which this machine is to blame, not the commits. The pattern is for git's own words."""

_SHORTAGE_SECONDS: Final = 60.0
_NOT_FAST_FORWARD: Final = re.compile(r"non-fast-forward|fetch first|stale info|cannot lock ref", re.IGNORECASE)
_UNVERIFIED: Final = re.compile(r"Commits must have (?:verified|valid) signatures", re.IGNORECASE)
"""Words of a ruleset, and of the protection of a branch."""

_HOLDS_SECRETS: Final = re.compile(r"Push cannot contain secrets")
_KIND_OF_SECRET: Final = re.compile(r"^remote: +\u2014\u2014 (.+?) \u2014+ *$")
_COMMIT_WITH_SECRET: Final = re.compile(r"^remote: +- commit: ([0-9a-f]{40,64}) *$")
_PATH_OF_SECRET: Final = re.compile(r"^remote: +path: (.+):(\d+) *$")
"""Lines of GitHub's push protection, in this order."""

_MESSAGE_LENGTH: Final = 400

_NAMES_OF_CONFLICTS: Final = 64 * 1024
_LISTED_CONFLICTS: Final = 5

PORCELAIN: Final = "--porcelain"
"""With this option, `git push` prints what it did to each branch, and why it was refused, to its output."""

TEMPORARY: Final = "labrats-publish-"
"""Prefix of the names of temporary repositories; the id of the process follows."""

_MEASURE_SECONDS: Final = 0.2
_MOST_OF_SCRATCH: Final = 0.75
"""Share of the space for temporary repositories that they may use: git writes on while they are measured."""


class NotPushed(LabratsError):
    """The commits cannot be pushed. Its text is a sentence for people."""


class Denied(NotPushed):
    """GitHub does not let the token reach the repository, which may not last: a new token, or a new name."""


class BranchHasOtherCommits(NotPushed):
    """The branch has commits that the agent's are not based on."""


class MustBeVerified(NotPushed):
    """The branch takes only commits with a signature that GitHub has verified."""


class CannotPick(NotPushed):
    """The commits cannot be picked onto a branch. Its text says why, as the end of a sentence."""


@dataclass(frozen=True)
class PlaceOfSecret:
    """The place at which GitHub has found a secret. kind: GitHub's name of the secret."""

    kind: str
    commit: str
    path: str
    line: int


class HoldsSecrets(NotPushed):
    """GitHub's push protection has found secrets in the commits. places: those that it names."""

    def __init__(self, places: Sequence[PlaceOfSecret]) -> None:
        super().__init__("GitHub refuses the commits, since they hold secrets")
        self.places = places


@dataclass(frozen=True)
class Scratch:
    """The space for the temporary repositories of this process, which all reports share.

    most_bytes: its size; None for half of what is free on its disk.
    """

    most_bytes: int | None = None

    def problem(self, folder: Path) -> LabratsError | None:
        """Return the error for git to be ended in a temporary repository, so that the space does not run out."""
        sizes = {each: sum(sizes_on_disk([each])) for each in folder.parent.glob(f"{TEMPORARY}{os.getpid()}-*")}
        own, total = sizes.get(folder, 0), sum(sizes.values())
        most = self.most_bytes and round(self.most_bytes * _MOST_OF_SCRATCH)
        limit = shutil.disk_usage(folder.parent).free if most is None else most  # `folder` may be removed meanwhile
        if total <= limit or own < max(sizes.values()):
            return None
        if own <= limit:
            return RetryLater("the repositories of other reports use the publisher's disk", delay_seconds=30)
        allowed = "half of the publisher's free disk" if most is None else f"{most / 2**20:.0f} MiB of temporary files"
        return NotPushed(f"the repository needs more than {allowed}, see LABRATS_PUBLISHER_SCRATCH")


_scratch: Final[ContextVar[Scratch]] = ContextVar("labrats-git-scratch")


@contextmanager
def limited_scratch(most_bytes: int | None) -> Iterator[None]:
    """Limit the temporary repositories of the block, and of the tasks that it creates. most_bytes: see Scratch."""
    token = _scratch.set(Scratch(most_bytes))
    try:
        yield
    finally:
        _scratch.reset(token)


@dataclass
class _Run:
    """A call in a thread, and the process of git that it waits for."""

    is_stopped: bool = False
    process: subprocess.Popen[bytes] | None = None
    lock: Lock = field(default_factory=Lock)

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a program in a process group of its own. Raises RetryLater if the call is stopped, OSError."""
        pipe = subprocess.PIPE
        with self.lock:
            if self.is_stopped:
                raise RetryLater("the publisher stops")
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, process_group=0
            )
            return self.process

    def stop(self) -> None:
        """Kill the process, and let the call start no further one."""
        with self.lock:
            self.is_stopped = True
        self.kill()

    def kill(self) -> None:
        """Kill the process and those that it has started."""
        with self.lock:
            if self.process and self.process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)


_threads: Final = ThreadPoolExecutor(_THREADS, thread_name_prefix="publish-git")
_run: Final[ContextVar[_Run]] = ContextVar("labrats-git-run")


async def in_git_thread(call: Callable[..., T], *arguments: object) -> T:
    """Return the result of a call that runs git. If the caller is cancelled, its git is killed."""
    run, context = _Run(), copy_context()
    context.run(_run.set, run)
    future = asyncio.get_running_loop().run_in_executor(_threads, partial(context.run, call, *arguments))
    try:
        return await future
    except asyncio.CancelledError:
        run.stop()
        raise


def run_git(
    folder: Path, arguments: Sequence[str], url: str | None = None, token: str | None = None, *, stdin: bytes = b""
) -> bytes:
    """Return the output of a git command. Blocks. Raises NotPushed or a subclass, RetryLater.

    url: of the repository on GitHub, if the command reaches it with the token. Other commands have a limit on their
         memory.
    """
    run, scratch, environment = _run.get(None) or _Run(), _scratch.get(Scratch()), _environment(url, token)
    seconds = _SECONDS_OF_TRANSFER if url else _SECONDS
    try:
        process = run.start([*(() if url else _WITH_LITTLE_MEMORY), "git", *arguments], folder, environment)
        with _measured(run, scratch, folder) as problems:
            output, errors = process.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        run.stop()
        with suppress(subprocess.TimeoutExpired):  # it waits for a disk that does not answer
            process.communicate(timeout=_SECONDS_TO_END)
        if url:
            raise RetryLater("git took too long to reach GitHub", delay_seconds=30) from error
        message = f"git took more than {seconds:g} seconds to process the commits"
        raise RetryLater(message, delay_seconds=300) from error
    except OSError as error:
        raise _not_run(error) from error
    if url and (problem := scratch.problem(folder)):  # a short transfer has not been measured yet
        problems.append(problem)
    if problems:
        raise problems[0]
    if process.returncode == 0:
        return output
    said = (errors + output if PORCELAIN in arguments else errors).decode(errors="replace")
    if _HOLDS_SECRETS.search(said):
        raise HoldsSecrets(_places_of_secrets(said))
    raise _problem(" ".join(said.split()), token)


def _places_of_secrets(said: str) -> Sequence[PlaceOfSecret]:
    """Return the places of secrets in the words of GitHub's push protection."""
    places, kind, commit = list[PlaceOfSecret](), "", ""
    for line in said.splitlines():
        if found := _KIND_OF_SECRET.match(line):
            kind = found[1]
        elif found := _COMMIT_WITH_SECRET.match(line):
            commit = found[1]
        elif found := _PATH_OF_SECRET.match(line):
            places.append(PlaceOfSecret(kind, commit, found[1], int(found[2])))
    return places


def _not_run(error: OSError) -> LabratsError:
    """Return the error for git that could not be started, or has no folder to work in."""
    problem = f"git cannot be run: {error.strerror}"
    return RetryLater(problem, _SHORTAGE_SECONDS) if error.errno in _SHORTAGES else NotPushed(problem)


@contextmanager
def _measured(run: _Run, scratch: Scratch, folder: Path) -> Iterator[list[LabratsError]]:
    """Kill git if the temporary repositories fill their disk while the block runs. Yield a list for the error."""
    errors: list[LabratsError] = []
    has_ended = Event()

    def measure() -> None:
        while not has_ended.wait(_MEASURE_SECONDS):
            if error := scratch.problem(folder):
                errors.append(error)
                run.kill()
                return

    thread = Thread(target=measure, name="measure-git")
    thread.start()
    try:
        yield errors
    finally:
        has_ended.set()
        thread.join()


def start_of_output(folder: Path, arguments: Sequence[str], most_bytes: int) -> bytes:
    """Return the start of the output of a git command, which may be very long. Blocks. Raises NotPushed, RetryLater.

    It ends early if the command needs more memory than its limit.
    """
    with _started(folder, arguments) as (_, output):
        return output.read(most_bytes)


def short_output(folder: Path, arguments: Sequence[str], most_bytes: int, refusal: str) -> bytes:
    """Return the output of a git command. Blocks.

    refusal: the reason of NotPushed if the output is longer, or git fails or needs more memory. Raises RetryLater, too.
    """
    with _started(folder, arguments) as (process, output):
        content = output.read(most_bytes + 1)
        if len(content) > most_bytes or process.wait() != 0:
            raise NotPushed(refusal)
        return content


def merged_tree(folder: Path, git_folder: Sequence[str], ours: str, theirs: str) -> str:
    """Return the tree of a merge without conflicts. Blocks. Raises CannotPick, NotPushed, RetryLater."""
    options = ["--write-tree", "--name-only", "--no-messages", "-z"]
    command = [*git_folder, "merge-tree", *options, ours, theirs]
    with _started(folder, command) as (process, output):
        printed = output.read(_NAMES_OF_CONFLICTS)
        status = process.wait() if len(printed) < _NAMES_OF_CONFLICTS else 1
    tree, *files = printed.split(b"\0")[:-1] or [b""]
    if status == 0 and tree:
        return tree.decode()
    if status != 1:
        raise CannotPick("git cannot merge the changes with the new commits")
    listed = ", ".join(f"`{name.decode(errors='replace')}`" for name in files[:_LISTED_CONFLICTS])
    raise CannotPick(f"the changes conflict with the new commits in {listed or 'some files'}")


@contextmanager
def _started(folder: Path, arguments: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Run a git command during the block, in limited time and memory. Yield its process and output."""
    run = _run.get(None) or _Run()
    try:
        process = run.start([*_WITH_LITTLE_MEMORY, "git", *arguments], folder, _environment(None, None))
    except OSError as error:
        raise _not_run(error) from error
    assert process.stdout
    limit = Timer(_SECONDS, run.kill)
    limit.start()
    try:
        yield process, process.stdout
    finally:
        limit.cancel()
        run.kill()
        process.communicate()


def _problem(text: str, token: str | None) -> LabratsError:
    """Return the error for what git says."""
    message = (text.replace(token, "***") if token else text)[:_MESSAGE_LENGTH]
    if _UNVERIFIED.search(text):
        return MustBeVerified("GitHub accepts only verified commits on this branch")
    if _DENIED.search(message):
        return Denied(f"git refuses the commits: {message}")
    if _REFUSED.search(message):
        return NotPushed(f"git refuses the commits: {message}")
    if _UNREACHABLE.search(message):
        return RetryLater(f"git could not reach GitHub: {message}", delay_seconds=30)
    if _SHORTAGE.search(message):
        return RetryLater(f"git lacks space or processes: {message}", _SHORTAGE_SECONDS)
    if _NOT_FAST_FORWARD.search(message):
        return BranchHasOtherCommits("the branch has commits of others")
    return NotPushed(f"git refuses the commits: {message}")


def _environment(url: str | None, token: str | None) -> dict[str, str]:
    """Return git's environment. The token is in it, and not in the arguments, which everybody can read."""
    config = dict(_CONFIG)
    if url and token:
        credential = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        config[f"http.{url}.extraHeader"] = f"Authorization: Basic {credential}"
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",  # an agent could show other commits than it hands over
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    for number, (key, value) in enumerate(config.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment
