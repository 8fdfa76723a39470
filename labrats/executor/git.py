"""Clone a job's repository, with credentials that are removed afterwards.

The repository is untrusted: nothing in it is executed, and this machine's git configuration is not read. The address
policy decides which addresses of the host are allowed, and git may connect to no others. In a pod with a restricted
network the cluster's egress proxy decides that.
"""

import contextlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT
from typing import Final

from labrats.executor.agent_sandbox import sandboxed_tool
from labrats.executor.clone_retries import PAUSES, PassingFailure, RefusedForNow, with_retries
from labrats.executor.context import RunContext
from labrats.executor.egress.agent_network import gateway_of, proxy_on_loopback
from labrats.executor.egress.gateway import Gateway
from labrats.executor.egress.proxy import HostRule
from labrats.executor.process_exit import run_to_end
from labrats.executor.subprocesses import child_process, read_tail
from labrats.model.errors import GiveUp, Invalid
from labrats.model.git_repo import GitRepo, is_plain_branch, parse_git_repo
from labrats.model.job import FailedCode, WorkspaceSetup
from labrats.model.protocol import BUNDLE_REF
from labrats.model.publication import PUBLICATION_FOLDER
from labrats.net import address_policy
from labrats.processes import denied_program

SSH_KEY: Final = "ssh-privatekey"
SSH_KNOWN_HOSTS: Final = "known_hosts"
"""Keys of a repository's Secret for clones over ssh, named as in Kubernetes (`kubernetes.io/ssh-auth`)."""

_OLDEST_GIT: Final = (2, 37)
"""First version with http.curloptResolve. Without it git resolves the name again and may get another address."""

_REF: Final = re.compile(r"(?![-/])(?!.*(?:\.\.|@\{))[^\x00-\x20\x7f~^:?*\[\\]+")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.IGNORECASE)
_SHORT_COMMIT: Final = re.compile(r"[0-9a-f]{7,39}", re.IGNORECASE)

_CONFIG: Final[Mapping[str, str]] = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "http.followRedirects": "false",  # the address policy has not checked their targets
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    # Otherwise it goes on beside the agent, outside of its sandbox, in a repository that the agent changes.
    "gc.auto": "0",
    "maintenance.auto": "false",
}
_SSH_OPTIONS: Final[Mapping[str, str]] = {
    "BatchMode": "yes",
    "ConnectTimeout": "30",
    "GSSAPIAuthentication": "no",
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "ServerAliveInterval": "15",
}
_NO_ADDRESS: Final = (
    "its host is not known, or has no address that the engine may reach; OUTBOUND_ALLOWED_CIDRS allows networks that "
    "are not public"
)
"""Message that does not reveal whether the name exists, so that callers cannot probe the names of a private network."""

_NO_SSH_KEY: Final = (
    "access was denied, and there is no SSH key: set LABRATS_GIT_SSH_KEY, or store the key as "
    f"{SSH_KEY} in the Secret that the job's workspaceSetup.credentialsRef names"
)
_NO_REPOSITORY: Final = Path(os.devnull)
_NO_SSH: Final = "false"  # a program that always fails
_ASKPASS: Final = """#!/bin/sh
case "$1" in
Username*) cat "${0%/*}/username" ;;
*) cat "${0%/*}/password" ;;
esac
"""

_NO_COMMIT: Final = "Not a valid object name HEAD"
"""The message of git about a repository without a commit."""

_NO_SUCH_REF: Final = re.compile(
    "Remote branch .* not found|couldn't find remote ref|not our ref|unadvertised object|not a tree|did not match any"
    "|unable to read tree|invalid reference|no such ref",
    re.IGNORECASE,
)
_DENIED: Final = re.compile(
    "could not read (Username|Password)|Authentication failed|terminal prompts disabled|error: 40[13]"
    "|Permission denied|Access denied|Host key verification failed",
    re.IGNORECASE,
)
_MISSING: Final = re.compile(
    "not found|error: 404|does not appear to be a git repository|does not exist|not a git repository", re.IGNORECASE
)
_UNREACHABLE: Final = re.compile(
    "Failed to connect|Couldn't connect|Connection (refused|timed out|reset|closed)|unreachable|No route to host"
    "|Empty reply|Operation (too slow|timed out)|hung up|early EOF|RPC failed; curl|unexpected disconnect"
    "|transfer closed|non-properly terminated|SSL_ERROR_SYSCALL|unexpected eof|unexpected length"
    "|(response|HTTP code|cannot be reached:) 50[0-9]",  # of a proxy
    re.IGNORECASE,
)
_SERVER_ERROR: Final = re.compile(r"(?:error:|RPC failed; HTTP) (?P<status>408|429|5\d\d)\b", re.IGNORECASE)
_REASONS: Final = (  # git's messages in the C locale, and their explanations; the first match is used
    (_DENIED, "access was denied: check that the token or key is still valid and may read this repository"),
    (_MISSING, "the repository does not exist, or the credentials may not read it"),
    (re.compile("Could not resolve"), "the server's name is not known"),
    (_UNREACHABLE, "the server could not be reached, or closed the connection"),
    (re.compile("redirect|error: 30[1278]"), "the server redirects: use the repository's final address"),
    (re.compile("dubious ownership"), "it belongs to another user of this machine, whom git does not trust"),
    (re.compile("Could not read from remote repository"), "the server closed the connection, or denied access"),
    (re.compile("No space left"), "the disk is full"),
)


class UnknownRef(GiveUp):
    """The repository exists, but does not contain the requested branch, tag or commit."""


async def clone(context: RunContext, setup: WorkspaceSetup, pauses: Sequence[float] = PAUSES) -> None:
    """Clone the repository into the empty workspace. Raises GiveUp with the code `git_clone`.

    pauses: seconds before each further try after a failure that may pass.
    """
    remote = _parsed(setup.git_repo, context.task.repo_roots)
    ref = _checked_ref(setup.git_ref)
    if gateway := gateway_of(context):
        await _clone_through(gateway, remote, ref, context, setup, pauses)
        return
    addresses = await _allowed_addresses(context, remote)
    await _clone_from(remote, ref, _Direct(addresses), context, setup, pauses)


async def _clone_through(
    gateway: Gateway, remote: GitRepo, ref: str, context: RunContext, setup: WorkspaceSetup, pauses: Sequence[float]
) -> None:
    """Clone through the cluster's egress proxy, which resolves the name and decides about the addresses."""
    refused: list[tuple[str, str]] = []
    rule = HostRule(
        lambda *server: server == (remote.host, remote.port), (), lambda *each: refused.append(each), gateway=gateway
    )
    async with proxy_on_loopback(rule) as proxy:
        try:
            await _clone_from(remote, ref, _Proxied(proxy), context, setup, pauses)
        except GiveUp as failure:
            if not refused:
                raise
            raise GiveUp(FailedCode.GIT_CLONE, f"cannot clone {remote.url}: {_NO_ADDRESS}") from failure


async def _clone_from(
    remote: GitRepo,
    ref: str,
    way: "_Direct | _Proxied",
    context: RunContext,
    setup: WorkspaceSetup,
    pauses: Sequence[float],
) -> None:
    with _credential_files(context) as credentials:
        environment = context.environment() | {
            "LC_ALL": "C",  # failures are recognised by git's English messages
            "GIT_ALLOW_PROTOCOL": remote.transport,
            "GIT_ASKPASS": str(credentials.askpass),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_SSH_COMMAND": _ssh_command(remote, way, credentials),
            "GIT_TERMINAL_PROMPT": "0",
        }
        config = {**_CONFIG, **way.configuration(remote)}
        git = _Git(
            context.workspace,
            environment,
            config,
            remote,
            has_ssh_key=credentials.ssh_key is not None,
            has_token=any(context.secrets.get(name) for name in ("git-username", "git-password")),
        )
        commit = await with_retries(
            lambda: _fetch_ref(git, ref, setup.git_depth), context.workspace, context.events, pauses
        )
    _exclude_publication(context.workspace)
    await _check_out(context, remote, commit)


async def _check_out(context: RunContext, remote: GitRepo, commit: str | None) -> None:
    """Check out a commit, or the branch or tag of the clone, in the agent's sandbox. Raises GiveUp.

    The repository chooses the code that converts its files, such as a library for an unusual encoding, and parts of it
    have had defects by which a file can run a program.
    """
    git_dir = context.workspace / ".git"
    whole_clone = ("read-tree", "--reset", "-u", "HEAD")
    command = whole_clone if commit is None else ("checkout", "--quiet", "--detach", commit, "--")
    status, output = await _run_offline(context, git_dir, *command)
    is_empty = commit is None and _NO_COMMIT in output
    if status != 0 and not is_empty:
        failure = _failure(remote.url, output)
        if commit is not None and isinstance(failure, UnknownRef):
            raise UnknownRef(FailedCode.GIT_CLONE, f"{remote.url} has no commit {commit!r}")
        raise failure


async def check_out_bundle(context: RunContext, bundle: Path) -> bool:
    """Check out the last commit of a bundle in a workspace that was just cloned. Return whether that succeeded.

    It fails if the clone lacks the commit that the bundle is based on.
    """
    git_dir = context.workspace / ".git"
    fetch = ("fetch", "--quiet", "--no-tags", str(bundle), BUNDLE_REF)
    for command in (fetch, ("reset", "--quiet", "--hard", "FETCH_HEAD")):
        status, _ = await _run_offline(context, git_dir, *command, readable=[bundle])
        if status != 0:
            return False
    return True


async def apply_patch(context: RunContext, patch: Path) -> bool:
    """Apply a patch in a workspace without a repository. Return whether that succeeded."""
    command = ("apply", "--whitespace=nowarn", str(patch))
    status, _ = await _run_offline(context, _NO_REPOSITORY, *command, readable=[patch])
    return status == 0


async def _run_offline(
    context: RunContext, git_dir: Path, *arguments: str, readable: Collection[Path] = ()
) -> tuple[int, str]:
    """Run a git command in the agent's sandbox, without a network. Return its exit status and the end of its output.

    It may run programs that the setup commands have named in the configuration of the repository.

    git_dir:  the repository to use. Without it, git would take one that it finds in the workspace.
    readable: the files to read that lie outside the sandbox.
    """
    environment = context.environment() | {
        "LC_ALL": "C",
        "GIT_DIR": str(git_dir),
        "GIT_WORK_TREE": str(context.workspace),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }
    config = {**_CONFIG, "fetch.fsckObjects": "true"}
    settings = [word for name, value in config.items() for word in ("-c", f"{name}={value}")]
    git = ["git", *settings, *arguments]
    with sandboxed_tool(git, context, readable=readable, offline=True) as command:
        return await _run(command, context.workspace, environment)


def _exclude_publication(workspace: Path) -> None:
    """Keep the agent's `git add` from adding its publication to its commits."""
    info = workspace / ".git" / "info"
    info.mkdir(exist_ok=True)
    (info / "exclude").write_text(f"/{PUBLICATION_FOLDER}/\n")


def _parsed(address: str, roots: Sequence[str]) -> GitRepo:
    """Parse the address. A job that was applied with kubectl may have an invalid one."""
    try:
        return parse_git_repo(address, roots)
    except Invalid as error:
        raise GiveUp(FailedCode.GIT_CLONE, f"the repository cannot be cloned: {error}") from error


@dataclass(frozen=True)
class _Direct:
    """Connections to these addresses only."""

    addresses: Sequence[str]

    def configuration(self, remote: GitRepo) -> dict[str, str]:
        return _pinned_addresses(remote, self.addresses)

    def ssh_options(self) -> dict[str, str]:
        return {"HostName": self.addresses[0]}


@dataclass(frozen=True)
class _Proxied:
    """Connections through a proxy. url: `http://address:port`."""

    url: str

    def configuration(self, remote: GitRepo) -> dict[str, str]:
        return {"http.proxy": self.url}

    def ssh_options(self) -> dict[str, str]:
        program = shlex.join(
            [sys.executable, "-P", "-m", "labrats.executor.egress.tunnel", self.url.removeprefix("http://")]
        )
        return {"ProxyCommand": f"{program} %h:%p"}


@dataclass(frozen=True)
class _Git:
    """The git program, bound to one workspace and one remote.

    has_token: whether git has a user name or password for the server, which may not know a new token for some seconds.
    """

    workspace: Path
    environment: Mapping[str, str]
    config: Mapping[str, str]
    remote: GitRepo
    has_ssh_key: bool
    has_token: bool

    async def run(self, *arguments: str) -> None:
        """Run a git command. Raises UnknownRef, PassingFailure or another GiveUp, with the reason, if it fails."""
        settings = [word for name, value in self.config.items() for word in ("-c", f"{name}={value}")]
        status, output = await _run(["git", *settings, *arguments], self.workspace, self.environment)
        if status != 0:
            needs_key = self.remote.transport == "ssh" and not self.has_ssh_key
            may_pass = self.has_token and self.remote.transport in ("http", "https")
            raise _failure(self.remote.url, output, needs_key=needs_key, refusal_may_pass=may_pass)


async def _fetch_ref(git: _Git, ref: str, depth: int | None) -> str | None:
    """Get the repository, but check nothing out. Return the commit to check out; None for what was cloned."""
    if _COMMIT.fullmatch(ref) or ref.startswith("refs/"):
        return await _fetch(git, ref, depth)
    try:
        await _clone(git, ref, depth)
    except UnknownRef:
        if not _SHORT_COMMIT.fullmatch(ref):
            raise UnknownRef(FailedCode.GIT_CLONE, f"{git.remote.url} has no branch or tag {ref!r}") from None
        await _clone(git, "", None)  # only the full history can resolve a short commit
        return ref
    return None


async def _clone(git: _Git, branch: str, depth: int | None) -> None:
    options = ["--quiet", "--template=", "--no-checkout", "--no-local", "--no-recurse-submodules"]
    options += [f"--branch={branch}"] if branch else []
    options += _depth_options(depth)
    await git.run("clone", *options, "--", git.remote.url, ".")


async def _fetch(git: _Git, ref: str, depth: int | None) -> str:
    """Fetch a ref that `git clone` cannot: a commit, or a ref other than a branch or tag, such as a pull request.

    Return the name of its commit.
    """
    await git.run("init", "--quiet", "--template=")
    await git.run("remote", "add", "origin", git.remote.url)
    try:
        await git.run("fetch", "--quiet", *_depth_options(depth), "origin", ref)
    except UnknownRef:
        if not _COMMIT.fullmatch(ref):
            raise UnknownRef(FailedCode.GIT_CLONE, f"{git.remote.url} has no ref {ref!r}") from None
        # Some servers send a commit only as part of a branch's history.
        await git.run("fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
    return ref if _COMMIT.fullmatch(ref) else "FETCH_HEAD"


def _depth_options(depth: int | None) -> list[str]:
    return [f"--depth={depth}"] if depth else []


def _checked_ref(ref: str | None) -> str:
    if not ref:
        return ""
    if not _REF.fullmatch(ref):
        raise UnknownRef(FailedCode.GIT_CLONE, f"{ref!r} cannot be the name of a branch, tag or commit")
    short = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    return short if is_plain_branch(short) else ref  # a branch may be named like a commit or another ref


async def _allowed_addresses(context: RunContext, remote: GitRepo) -> list[str]:
    """Return the addresses to which git may connect; none for a path on this machine. Raises GiveUp."""
    if remote.is_local:
        return []
    try:
        addresses = await address_policy.resolve_allowed(remote.host, remote.port, context.task.git_addresses)
    except (address_policy.Forbidden, address_policy.Unresolvable) as error:
        raise GiveUp(FailedCode.GIT_CLONE, f"cannot clone {remote.url}: {_NO_ADDRESS}") from error
    if remote.transport != "ssh":
        await _require_pinning(context)
    return addresses


def _pinned_addresses(remote: GitRepo, addresses: Sequence[str]) -> dict[str, str]:
    """Return git configuration that allows HTTP connections to these addresses only."""
    if remote.is_local or remote.transport == "ssh" or ":" in remote.host:
        return {}  # an IPv6 address needs no lookup, and this setting cannot express it
    bracketed = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
    return {"http.curloptResolve": f"{remote.host}:{remote.port}:{bracketed}"}


def _ssh_command(remote: GitRepo, way: _Direct | _Proxied, credentials: "_CredentialFiles") -> str:
    """Return an ssh command that connects in an allowed way and does not use the keys of the engine's user."""
    if remote.is_local or remote.transport != "ssh":
        return _NO_SSH
    options = {
        **_SSH_OPTIONS,
        "HostKeyAlias": remote.host,
        **way.ssh_options(),
        "IdentityFile": _ssh_path(credentials.ssh_key) if credentials.ssh_key else "none",
        "StrictHostKeyChecking": "yes" if credentials.ssh_known_hosts else "accept-new",
        "UserKnownHostsFile": _ssh_path(credentials.ssh_known_hosts or credentials.folder / "new_hosts"),
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return shlex.join(["ssh", "-F", os.devnull, *words])


async def _require_pinning(context: RunContext) -> None:
    _, output = await _run(["git", "version"], context.folder, context.environment())
    version = re.search(r"(\d+)\.(\d+)", output)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST_GIT:
        needed = ".".join(map(str, _OLDEST_GIT))
        raise GiveUp(FailedCode.GIT_CLONE, f"git {needed} or newer is required to clone safely; found {output!r}")


def _ssh_path(path: Path) -> str:
    """Quote a path as the value of an ssh option, in which spaces separate words and `%` starts a placeholder."""
    return f'"{path}"'.replace("%", "%%")


@dataclass(frozen=True)
class _CredentialFiles:
    """Files that exist while git runs.

    askpass:                  a program that prints the user name or the password when git asks for it.
    ssh_key, ssh_known_hosts: files from the job's Secret, or else from the engine's settings.
    """

    folder: Path
    askpass: Path
    ssh_key: Path | None
    ssh_known_hosts: Path | None


@contextlib.contextmanager
def _credential_files(context: RunContext) -> Iterator[_CredentialFiles]:
    for name in ("username", "password"):
        context.credential_file(name, context.secrets.get(f"git-{name}", ""))
    program = context.credential_file("askpass", _ASKPASS)
    program.chmod(0o700)
    key = _secret_file(context, SSH_KEY) or _setting_file(context.task.git_ssh_key)
    known_hosts = _secret_file(context, SSH_KNOWN_HOSTS) or _setting_file(context.task.git_ssh_known_hosts)
    try:
        yield _CredentialFiles(context.credentials, program, key, known_hosts)
    finally:
        shutil.rmtree(context.credentials)  # before an agent runs


def _secret_file(context: RunContext, key: str) -> Path | None:
    """Write the value of `key` in the job's Secret to a file. Return None if the Secret has no such key."""
    value = context.secrets.get(f"git-{key}")
    # ssh rejects a key without a final line break
    return None if value is None else context.credential_file(key, f"{value}\n")


def _setting_file(path: str | None) -> Path | None:
    return Path(path) if path else None


async def _run(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run git to its end, and that of all that it has started. Return its exit status and the end of its output."""
    try:
        program = child_process(command, cwd, environment, stderr=STDOUT)
        async with run_to_end(program, FailedCode.GIT_CLONE) as (process, exited):
            output = await read_tail(process.output)
            return await exited, output
    except (FileNotFoundError, PermissionError) as error:
        problem = denied_program("git")
        reason = f"git cannot be run: {problem}" if problem else "git is not installed, or not on the PATH"
        raise GiveUp(FailedCode.GIT_CLONE, reason) from error


def _failure(url: str, output: str, *, needs_key: bool = False, refusal_may_pass: bool = False) -> GiveUp:
    """Return the failure that git's output is about. refusal_may_pass: whether the server may grant access later."""
    message = f"cannot clone {url}: "
    if found := _SERVER_ERROR.search(output):
        return PassingFailure(FailedCode.GIT_CLONE, f"{message}the server answered with status {found['status']}")
    if _NO_SUCH_REF.search(output):
        return UnknownRef(FailedCode.GIT_CLONE, f"{url} does not contain the requested ref")
    if needs_key and _DENIED.search(output):
        return GiveUp(FailedCode.GIT_CLONE, f"{message}{_NO_SSH_KEY}")
    for pattern, reason in _REASONS:
        if pattern.search(output):
            kind = GiveUp
            if pattern is _UNREACHABLE:
                kind = PassingFailure
            elif refusal_may_pass and pattern in (_DENIED, _MISSING):
                kind = RefusedForNow
            return kind(FailedCode.GIT_CLONE, f"{message}{reason}")
    last_line = [line for line in output.splitlines() if line.strip()][-1:]
    return GiveUp(FailedCode.GIT_CLONE, f"{message}{' '.join(last_line) or 'git gave no reason'}")
