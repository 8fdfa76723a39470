"""The addresses of repositories. They are checked at admission, and again before each clone."""

from labrats.model.errors import Invalid, Problem
from labrats.model.git_repo import GitRepo, parse_git_repo
from labrats.net.address_policy import Forbidden, Unresolvable, is_address, resolve_allowed
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
    if repo.is_local or not await is_address(repo.host):
        return repo
    try:
        await resolve_allowed(repo.host, repo.port, settings.outbound_allowed_cidrs)
    except Forbidden as error:
        raise Invalid(Problem(field, str(error))) from error
    except Unresolvable as error:
        raise Invalid(Problem(field, "names no host")) from error
    return repo
