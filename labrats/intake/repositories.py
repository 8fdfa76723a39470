"""Repositories that jobs are to clone: their addresses are judged before a job is made, and again when it clones."""

import asyncio
import socket

from labrats.model.errors import Invalid, Problem
from labrats.model.git_repo import GitRepo, parse_git_repo
from labrats.net.address_policy import Forbidden, Unresolvable, resolve_allowed
from labrats.settings import EngineSettings


async def allowed_repo(address: str, field: str, settings: EngineSettings) -> GitRepo:
    """The repository at `address`. Raises Invalid, naming `field`, when it is none, or may not be reached.

    A name is judged by what it resolves to only when the job clones: an answer that depended on it would tell callers
    which names exist in a private network.
    """
    try:
        repo = parse_git_repo(address, settings.local_repo_roots)
    except Invalid as error:
        raise Invalid(*(Problem(field, problem.message) for problem in error.problems)) from None
    if repo.is_local or not await _is_known_to_all(repo.host):
        return repo
    try:
        await resolve_allowed(repo.host, repo.port, settings.outbound_allowed_cidrs)
    except Forbidden as error:
        raise Invalid(Problem(field, str(error))) from error
    except Unresolvable as error:
        raise Invalid(Problem(field, "names no host")) from error
    return repo


async def _is_known_to_all(host: str) -> bool:
    """Return whether a host is an address, in whatever notation, or loopback's name: no name server is asked."""
    if host == "localhost" or host.endswith(".localhost") or ":" in host:
        return True
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True
