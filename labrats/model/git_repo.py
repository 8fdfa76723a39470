"""What `workspaceSetup.gitRepo` may be, and how a credential in it is split off."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from labrats.model.errors import Invalid, Problem

FIELD: Final = "workspaceSetup.gitRepo"
MAX_LENGTH: Final = 2048
_DEFAULT_PORTS: Final = {"https": 443, "http": 80, "ssh": 22}
_SCP_FORM: Final = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^:].*)"
)


@dataclass(frozen=True)
class GitRepo:
    """A repository's address without any credential, and the credential that came with it.

    url: what git is given. host and port: what it will connect to; None for a path on this machine.
    """

    url: str
    host: str | None = None
    port: int | None = None
    username: str = ""
    password: str = ""

    @property
    def is_local(self) -> bool:
        return self.host is None

    @property
    def has_credential(self) -> bool:
        return bool(self.username or self.password)

    def __repr__(self) -> str:
        return f"GitRepo({self.url!r})"


def parse_git_repo(address: str) -> GitRepo:
    """The repository at `address`. Raises Invalid, which never repeats the address: it may hold a token."""
    if len(address) > MAX_LENGTH:
        raise _refused(f"must be at most {MAX_LENGTH} characters")
    if not address.isprintable() or " " in address:
        raise _refused("must not contain spaces or control characters")
    if address.startswith("-"):
        raise _refused("must not start with a dash")
    if address.startswith("/"):
        return GitRepo(address)
    if "://" in address:
        return _parse_url(address)
    if "::" not in address and (form := _SCP_FORM.fullmatch(address)) and not form["path"].startswith("-"):
        return GitRepo(address, form["host"], _DEFAULT_PORTS["ssh"])
    raise _refused("must be an https, http or ssh address, or host:path as scp writes it")


def _parse_url(address: str) -> GitRepo:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise _refused("is not a well-formed address") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise _refused("must be an https, http or ssh address, or host:path as scp writes it")
    if not parts.hostname or parts.hostname.startswith("-"):
        raise _refused("names no host")
    if parts.query or parts.fragment:
        raise _refused("must not carry a query or a fragment")
    if parts.path.strip("/") == "":
        raise _refused("names no repository on its host")
    port = port or _DEFAULT_PORTS[parts.scheme]
    if parts.scheme == "ssh":
        if parts.password is not None:
            raise _refused("ssh takes no password in an address")
        return GitRepo(address, parts.hostname, port)
    return GitRepo(
        _without_credential(parts), parts.hostname, port, unquote(parts.username or ""), unquote(parts.password or "")
    )


def _without_credential(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _refused(reason: str) -> Invalid:
    return Invalid(Problem(FIELD, reason))
