"""Connecting repositories: checks of personal tokens."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import httpx2
import msgspec

from labrats.github.client.app import GitHub, read_answer
from labrats.intake.forge import CheckedToken, ForgeSetup, RefusedByForge

_READ: Final = {"/issues": "Issues", "/pulls": "Pull requests", "/activity": "Contents"}
"""The lists of a repository that are read in the mode `poll`, and the permission that each needs."""

_WRITE: Final = "Contents, Issues, Pull requests and Commit statuses (read and write)"
_MESSAGE_LENGTH: Final = 300


class _User(msgspec.Struct):
    login: str


class _Rights(msgspec.Struct, frozen=True):
    push: bool = True


class _Repository(msgspec.Struct):
    """A repository. permissions: of the account that asks."""

    full_name: str
    private: bool = False
    archived: bool = False
    permissions: _Rights = _Rights()


class GitHubSetup(ForgeSetup):
    """The steps by which a person connects repositories on GitHub, or on a GitHub Enterprise Server."""

    def __init__(self, github: GitHub) -> None:
        self._github = github

    async def check_token(self, token: str, repositories: Sequence[str]) -> CheckedToken:
        async with self._github.client(token) as client:
            user = await self._github.request(client, "GET", "/user")
            if not user.is_success:
                raise self._refusal(user, "the account of the token")
            names = [await self._check(client, name) for name in repositories]
        return CheckedToken(read_answer(user, _User).login, names)

    async def _check(self, client: httpx2.AsyncClient, name: str) -> str:
        """Return the full name of a repository with which the token can work. Raises RefusedByForge, RetryLater."""
        response = await self._github.request(client, "GET", f"/repos/{name}")
        if not response.is_success:
            raise self._refusal(response, name)
        repository = read_answer(response, _Repository)
        if repository.archived:
            raise RefusedByForge(f"{name} is archived, so nothing can be written there: choose another repository")
        scopes = response.headers.get("X-OAuth-Scopes")  # of a classic token
        needed = "repo" if repository.private else "public_repo"
        if scopes is not None and not {"repo", needed} & set(scopes.replace(" ", "").split(",")):
            advice = f"add it at {self._github.web_url}/settings/tokens, then try again"
            raise RefusedByForge(f"the token lacks the scope `{needed}`: {advice}")
        if not repository.permissions.push:
            advice = "let an admin of the repository give it the role Write, or use the token of another account"
            raise RefusedByForge(f"the token's owner may only read {name}: {advice}")
        for path, permission in _READ.items():
            part = await self._github.request(client, "GET", f"/repos/{name}{path}", params={"per_page": 1})
            if not part.is_success:
                raise self._refusal(part, name, permission)
        return repository.full_name

    def _refusal(self, response: httpx2.Response, name: str, permission: str = "") -> Exception:
        """Return the error for an answer about `name`. permission: that the request needs."""
        tokens = f"{self._github.web_url}/settings/personal-access-tokens"
        status, message = response.status_code, _message(response)
        if status == HTTPStatus.UNAUTHORIZED:
            advice = f"create another one at {tokens}/new"
            return RefusedByForge(f"GitHub rejects the token, which is misspelt, expired or revoked: {advice}")
        if response.has_redirect_location:
            return RefusedByForge(f"{name} was renamed or transferred: use its new name")
        if status == HTTPStatus.NOT_FOUND:
            advice = f"check the name, and give the token access to it at {tokens}, with {_WRITE}"
            return RefusedByForge(f"the token cannot see {name}: {advice}")
        if status == HTTPStatus.GONE:
            return RefusedByForge(f"the issues of {name} are turned off: turn them on in its settings on GitHub")
        is_limited = "Retry-After" in response.headers or response.headers.get("X-RateLimit-Remaining") == "0"
        if status != HTTPStatus.FORBIDDEN or is_limited:
            return self._github.later(response)
        if "SAML" in message:
            advice = f"authorize it at {self._github.web_url}/settings/tokens (Configure SSO)"
            return RefusedByForge(f"the organization of {name} wants the token authorized for single sign-on: {advice}")
        if "forbids" in message:
            advice = "use a fine-grained token that the organization allows, or let one of its owners allow this one"
            return RefusedByForge(f"GitHub refuses {name}: {message.rstrip('.')}; {advice}")
        if permission and "not accessible" in message:
            return RefusedByForge(f"the token lacks the permission {permission}: give it {_WRITE} at {tokens}")
        return RefusedByForge(f"GitHub refuses {name}: {message.rstrip('.')}; give the token {_WRITE} at {tokens}")


def _message(response: httpx2.Response) -> str:
    """Return GitHub's sentence about an error."""
    try:
        return str(response.json()["message"])[:_MESSAGE_LENGTH]
    except (ValueError, KeyError, TypeError):
        return f"it answered {response.status_code}"
