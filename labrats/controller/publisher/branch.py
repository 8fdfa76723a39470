"""Push the commits of an agent to a branch, from a repository that is made for it and removed afterwards.

The commits come from an agent, so nothing in them is trusted: no hook, filter or configuration of theirs is used, and
git checks every object. The agent never has the token that pushes them.
"""

import base64
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

from labrats.controller.publisher.commit_messages import neutralise_messages
from labrats.model.errors import LabratsError, RetryLater
from labrats.model.protocol import BUNDLE_REF

_SECONDS: Final = 120.0
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
    "gc.auto": "0",
}
_COMMIT: Final = re.compile(rb"^-([0-9a-f]{40}|[0-9a-f]{64}) ?", re.MULTILINE)
_UNREACHABLE: Final = re.compile(
    r"Could not resolve|Failed to connect|Couldn't connect|Connection (?:refused|timed out|reset)|unreachable"
    r"|Empty reply|Operation too slow|hung up|early EOF|error: 5\d\d|error: 429|timed out",
    re.IGNORECASE,
)
_DENIED: Final = re.compile(r"error: 4(?!29)\d\d|HTTP 4(?!29)\d\d|Authentication failed")
_NOT_FAST_FORWARD: Final = re.compile(r"non-fast-forward|fetch first|stale info|cannot lock ref", re.IGNORECASE)


class NotPushed(LabratsError):
    """The commits cannot be pushed. Its text is a sentence for people."""


class BranchHasOtherCommits(NotPushed):
    """The branch has commits that the agent's are not based on."""


@dataclass(frozen=True)
class Commits:
    """The commits of a bundle, in a temporary repository. base: the commit that they are based on. tip: the last one.

    files: paths of the changed files.
    """

    folder: Path
    url: str
    token: str
    base: str
    tip: str
    files: Sequence[str]

    @classmethod
    def fetch(cls, bundle: bytes, url: str, token: str, known_hosts: Collection[str] = ()) -> Self:
        """Read a bundle, and fetch the commit that it is based on. Blocks. Raises NotPushed, RetryLater.

        url:         of the repository over HTTP. token: may read and write it.
        known_hosts: hosts to which messages of commits may link.
        """
        head = bundle.partition(b"\n\n")[0]
        prerequisites = _COMMIT.findall(head)
        if len(prerequisites) != 1:
            raise NotPushed("the commits are not based on one commit of the repository")
        base = prerequisites[0].decode()
        folder = Path(tempfile.mkdtemp(prefix="labrats-publish-"))
        try:
            (folder / "commits.bundle").write_bytes(bundle)
            _git(folder, ["init", "--quiet", "--bare", "--template=", "repository.git"])
            _git(folder, [*_IN, "fetch", "--quiet", "--depth=1", "--no-tags", url, base], url, token)
            _git(folder, [*_IN, "fetch", "--quiet", "--no-tags", "commits.bundle", f"{BUNDLE_REF}:{BUNDLE_REF}"])
            _neutralise(folder, base, known_hosts)
            tip = _git(folder, [*_IN, "rev-parse", "--verify", BUNDLE_REF]).decode().strip()
            names = _git(folder, [*_IN, "diff", "--name-only", "--no-renames", "-z", base, tip])
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(
            folder, url, token, base, tip, [name.decode(errors="replace") for name in names.split(b"\0") if name]
        )

    def close(self) -> None:
        """Remove the temporary repository."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def patch(self, most_bytes: int) -> str:
        """Return the start of the changes as a patch."""
        arguments = [*_IN, "diff", "--no-ext-diff", "--no-textconv", "--no-color", self.base, self.tip]
        return _git(self.folder, arguments)[:most_bytes].decode(errors="replace")

    def remote_head(self, branch: str) -> str | None:
        """Return the last commit of a branch on GitHub; None if the branch does not exist."""
        listed = _git(self.folder, ["ls-remote", "--heads", self.url, f"refs/heads/{branch}"], self.url, self.token)
        return listed.split()[0].decode() if listed.split() else None

    def push(self, branch: str) -> None:
        """Push to the branch, and never over commits of others. Pushing again changes nothing.

        Raises BranchHasOtherCommits, NotPushed, RetryLater.
        """
        command = [*_IN, "push", "--quiet", self.url, f"{BUNDLE_REF}:refs/heads/{branch}"]
        try:
            _git(self.folder, command, self.url, self.token)
        except BranchHasOtherCommits:
            if self.remote_head(branch) != self.tip:  # git repeats a request whose answer was lost
                raise


_IN: Final = ("--git-dir=repository.git",)


def _neutralise(folder: Path, base: str, known_hosts: Collection[str]) -> None:
    """Let the reference of the bundle name commits whose messages have no active parts."""
    tip = _git(folder, [*_IN, "rev-parse", "--verify", BUNDLE_REF]).decode().strip()
    git = partial(_in_repository, folder)
    written = neutralise_messages(git, folder, f"{base}..{tip}", known_hosts)
    if tip in written:
        git(["update-ref", BUNDLE_REF, written[tip]])


def _in_repository(folder: Path, arguments: Sequence[str]) -> bytes:
    return _git(folder, [*_IN, *arguments])


def _git(folder: Path, arguments: Sequence[str], url: str | None = None, token: str | None = None) -> bytes:
    """Return the output of a git command. Raises NotPushed, BranchHasOtherCommits, RetryLater."""
    try:
        run = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=_environment(url, token),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RetryLater("git took too long to reach GitHub", delay_seconds=30) from error
    except OSError as error:
        raise NotPushed(f"git cannot be run: {error.strerror}") from error
    if run.returncode == 0:
        return run.stdout
    message = " ".join(run.stderr.decode(errors="replace").split())[:400]
    if token:
        message = message.replace(token, "***")
    if _DENIED.search(message):
        raise NotPushed(f"git refuses the commits: {message}")
    if _UNREACHABLE.search(message):
        raise RetryLater(f"git could not reach GitHub: {message}", delay_seconds=30)
    if _NOT_FAST_FORWARD.search(message):
        raise BranchHasOtherCommits("the branch has commits of others")
    raise NotPushed(f"git refuses the commits: {message}")


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
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    for number, (key, value) in enumerate(config.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment
