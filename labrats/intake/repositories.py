"""The addresses of repositories. They are checked at admission, and again before each clone."""

import asyncio
import socket

from labrats.model.errors import Invalid, Problem
from labrats.model.git_repo import GitRepo, parse_git_repo
from labrats.net.address_policy import Forbidden, Unresolvable, resolve_allowed
from labrats.settings import EngineSettings


async def allowed_repo(address: str, field: str, settings: EngineSettings) -> GitRepo:
    """Return the repository at `address`. Raise Invalid for `field` if the address is malformed or not allowed.

    A host name is resolved only before the clone. An answer that depended on it would reveal which names exist in a
    private network.
    """
    try:
        repo = parse_git_repo(address, settings.local_repo_roots)
    except Invalid as error:
        raise Invalid(*(Problem(field, problem.message) for problem in error.problems)) from None
    if repo.is_local or not await _is_address(repo.host):
        return repo
    try:
        await resolve_allowed(repo.host, repo.port, settings.outbound_allowed_cidrs)
    except Forbidden as error:
        raise Invalid(Problem(field, str(error))) from error
    except Unresolvable as error:
        raise Invalid(Problem(field, "names no host")) from error
    return repo


async def _is_address(host: str) -> bool:
    """Return whether a host is an IP address in any notation, or a name for loopback. Asks no name server."""
    if host == "localhost" or host.endswith(".localhost") or ":" in host:
        return True
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True
