"""Reads the address of a repository."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

_PORTS: Final[Mapping[str, int]] = {"https": 443, "http": 80, "ssh": 22}
_HOST: Final = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|[0-9a-f.]*:[0-9a-f.:]+")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PATH: Final = re.compile(r"/.+")
_PLAIN: Final = re.compile(r"[!-\[\]-~]+")  # printable ASCII but for the backslash
_SCP_FORM: Final = re.compile(r"(?:(?P<user>[^@:/]+)@)?(?P<host>[^@:/]+):(?P<path>(?!:).+)")


@dataclass(frozen=True)
class Remote:
    """A repository's address, without any credential. A local path has no host."""

    url: str
    transport: str
    host: str = ""
    port: int = 0


def parse_remote(address: str, repo_roots: Sequence[str] = ()) -> Remote:
    """Reads an https, http, ssh or scp-like address, or a path on this machine below one of `repo_roots`.

    The URL is put together anew from its parts, so that git finds in it what is judged here, and nothing else.
    Raises GiveUp for every other address.
    """
    if address.startswith("/"):
        return _local(address, repo_roots)
    if not _PLAIN.fullmatch(address):  # programs disagree on what the rest means, or drop some of it
        _refuse("an address is plain ASCII, with anything else percent-encoded")
    if "://" not in address:
        return _scp_like(address)
    try:
        url = urlsplit(address)
        scheme, host, port = url.scheme, url.hostname or "", url.port or _PORTS.get(url.scheme, 0)
    except ValueError:
        _refuse("it is no URL")
    if scheme not in _PORTS:
        _refuse("git is reached by https, http or ssh")
    _check_host(host)
    if url.query or url.fragment or not _PATH.fullmatch(url.path):
        _refuse("it must name a repository by its path alone")
    user = f"{_checked_user(url.username)}@" if scheme == "ssh" and url.username else ""
    authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if url.port else "")
    return Remote(f"{scheme}://{user}{authority}{url.path}", scheme, host, port)


def _local(address: str, repo_roots: Sequence[str]) -> Remote:
    path = Path(address).resolve()
    if not any(path.is_relative_to(Path(root).resolve()) for root in repo_roots):
        _refuse("a path on this machine must be below one of LOCAL_REPO_ROOTS")
    return Remote(str(path), "file")


def _scp_like(address: str) -> Remote:
    parts = _SCP_FORM.fullmatch(address)
    if parts is None:
        _refuse("git is reached by https, http or ssh")
    host, user = parts["host"].lower(), parts["user"]
    _check_host(host)
    return Remote(
        f"{_checked_user(user)}@{host}:{parts['path']}" if user else f"{host}:{parts['path']}", "ssh", host, 22
    )


def _check_host(host: str) -> None:
    if not _HOST.fullmatch(host):
        _refuse("its host must be an ASCII name or an address")


def _checked_user(user: str) -> str:
    if not _USER.fullmatch(user):
        _refuse("its user name is unusual")
    return user


def _refuse(reason: str) -> NoReturn:
    """Does not repeat the address, which may hold a token that nobody has split off."""
    raise GiveUp(FailedCode.GIT_CLONE, f"workspaceSetup.gitRepo cannot be cloned: {reason}")
