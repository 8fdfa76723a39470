"""Repositories that jobs are to clone: their addresses are judged before a job is made, and again when it clones."""

from ipaddress import ip_address

from labrats.model.errors import Invalid, Problem
from labrats.model.git_repo import GitRepo, parse_git_repo
from labrats.outbound import Forbidden, Unresolvable, resolve_allowed
from labrats.settings import EngineSettings


async def judged_repo(address: str, field: str, settings: EngineSettings) -> GitRepo:
    """The repository at `address`. Raises Invalid, naming `field`, when it is none, or may not be reached."""
    try:
        repo = parse_git_repo(address, settings.local_repo_roots)
    except Invalid as error:
        raise Invalid(*(Problem(field, problem.message) for problem in error.problems)) from None
    if repo.is_local:
        return repo
    try:
        await resolve_allowed(repo.host, repo.port, settings.outbound_allowed_cidrs)
    except Forbidden as error:
        raise Invalid(Problem(field, str(error))) from error
    except Unresolvable as error:
        if _looks_like_an_address(repo.host):
            raise Invalid(Problem(field, "names no host")) from error
        # A name server may be down for a while: the executor judges again when it clones.
    return repo


def _looks_like_an_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
