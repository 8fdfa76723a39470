"""The valid values of `workspaceSetup.gitRepo`, and the separation of credentials from them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from labrats.model.errors import Invalid, Problem

FIELD: Final = "workspaceSetup.gitRepo"
MAX_LENGTH: Final = 2048
_DEFAULT_PORTS: Final = {"https": 443, "http": 80, "ssh": 22}
_HOST: Final = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|[0-9a-f.]*:[0-9a-f.:]+")
_SSH_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_LONGEST_USER: Final = 32
"""The maximum length of a Linux user name; tokens are longer."""
TOKEN_FORM: Final = re.compile(r"(?:gh[oprsu]_|github_pat_|glpat-|glptt-|gloas-|ATBB)[A-Za-z0-9_-]+")
"""Tokens of GitHub, GitLab and Bitbucket."""
_TOKEN_USERS: Final = frozenset({"x-access-token", "oauth2"})
"""User names that are used together with a token."""
_SCP_FORM: Final = re.compile(r"(?:(?P<user>[^@:/]+)@)?(?P<host>[^@:/]+):(?P<path>(?![:-]).+)")


_OTHER_THAN_A_BRANCH: Final = re.compile(r"refs/.*|[0-9a-f]{7,64}", re.IGNORECASE)


def is_plain_branch(name: str) -> bool:
    """Return whether the name of a branch cannot be read as a commit, or as a ref of another kind.

    For any other name, `refs/heads/NAME` is the branch.
    """
    return _OTHER_THAN_A_BRANCH.fullmatch(name) is None


def without_tokens(text: str) -> str:
    """Remove tokens from a text. An earlier version stored addresses with tokens."""
    return TOKEN_FORM.sub("[redacted]", text)


@dataclass(frozen=True)
class GitRepo:
    """The address of a repository, and the credential that was split off.

    url: the address for git. host, port: where git connects; empty for a path on this machine.
    """

    url: str
    host: str = ""
    port: int = 0
    username: str = ""
    password: str = ""

    @property
    def is_local(self) -> bool:
        return not self.host

    @property
    def transport(self) -> str:
        """Git's name of the transport: https, http, ssh or file."""
        if self.is_local:
            return "file"
        return urlsplit(self.url).scheme if "://" in self.url else "ssh"

    @property
    def has_credential(self) -> bool:
        return bool(self.username or self.password)

    def __repr__(self) -> str:
        return f"GitRepo({self.url!r})"


def parse_git_repo(address: str, local_roots: Sequence[str] = ()) -> GitRepo:
    """Parse an address. A path on this machine must lie below one of `local_roots`, after resolving links.

    Raises Invalid, whose message never contains the address, as that may contain a token.
    """
    if len(address) > MAX_LENGTH:
        raise _refused(f"must be at most {MAX_LENGTH} characters")
    if not unquote(address).isprintable() or " " in address:
        raise _refused("must not contain spaces or control characters")
    if address.startswith("/"):
        return _below_a_root(address, local_roots)
    if not address.isascii() or "\\" in address:  # programs interpret these differently
        raise _refused("must be plain ASCII without backslashes, with anything else percent-encoded")
    return _parse_url(address) if "://" in address else _parse_scp_form(address)


def _below_a_root(address: str, local_roots: Sequence[str]) -> GitRepo:
    path = Path(address).resolve()
    if not any(path.is_relative_to(Path(root).resolve()) for root in local_roots):
        raise _refused("a path on the engine's machine must lie below one of LOCAL_REPO_ROOTS")
    return GitRepo(str(path))


def _parse_scp_form(address: str) -> GitRepo:
    form = _SCP_FORM.fullmatch(address)
    if form is None:
        raise _refused("must be an https, http or ssh address, or host:path as scp writes it")
    # A mistyped or missing scheme before a token would make it an ssh address, and ssh has no tokens.
    if "@" in form["path"] or form["host"].lower() in _DEFAULT_PORTS:
        raise _refused("looks like an address with a credential; write it as https://USER:TOKEN@HOST/PATH")
    _check_ssh_user(form["user"])
    return GitRepo(address, _checked_host(form["host"].lower()), _DEFAULT_PORTS["ssh"])


def _parse_url(address: str) -> GitRepo:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise _refused("is not a valid address") from None
    if port == 0:  # urlsplit would treat it as missing
        raise _refused("must not have the port 0")
    if parts.scheme not in _DEFAULT_PORTS:
        raise _refused("must be an https, http or ssh address, or host:path as scp writes it")
    host = _checked_host(parts.hostname)
    if parts.query or parts.fragment:
        raise _refused("must not have a query or a fragment")
    if parts.path.strip("/") == "":
        raise _refused("must name a repository on its host")
    if any(TOKEN_FORM.match(part) for part in parts.path.split("/")):
        raise _refused("has a token in its path; write it as https://USER:TOKEN@HOST/PATH")
    port = port or _DEFAULT_PORTS[parts.scheme]
    if parts.scheme == "ssh":
        _check_ssh_user(parts.username)
        if parts.password is not None:
            raise _refused("must not have a password, which ssh does not accept")
        return GitRepo(address, host, port)
    return GitRepo(_without_credential(parts), host, port, unquote(parts.username or ""), unquote(parts.password or ""))


def _checked_host(host: str | None) -> str:
    if not host or not _HOST.fullmatch(host):  # rejects names that ssh would take for an option
        raise _refused("must name a valid host")
    return host


def _check_ssh_user(user: str | None) -> None:
    if user is None:
        return
    if not _SSH_USER.fullmatch(user):
        raise _refused("must have a valid user name for ssh")
    if len(user) > _LONGEST_USER or user in _TOKEN_USERS or TOKEN_FORM.match(user):
        raise _refused("has a token as the user of ssh; write it as https://USER:TOKEN@HOST/PATH")


def _without_credential(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _refused(reason: str) -> Invalid:
    return Invalid(Problem(FIELD, reason))
