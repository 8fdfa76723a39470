"""Connecting repositories: checks of personal tokens, and Apps that a person creates by a form."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import httpx2
import msgspec

from labrats.github.app_manifest import app_manifest
from labrats.github.client.app import App, GitHub, RefusedToApp, read_answer
from labrats.intake.forge import AppAccess, AppForm, CheckedCredentials, ForgeSetup, NewApp, RefusedByForge
from labrats.model.agent import AiAgent
from labrats.model.webhook_source import APP_ID, PRIVATE_KEY, WEBHOOK_SECRET

_READ: Final = {"/issues": "Issues", "/pulls": "Pull requests", "/activity": "Contents"}
"""The lists of a repository that are read in the mode `poll`, and the permission that each needs."""

_WRITE: Final = "Contents, Issues, Pull requests and Commit statuses (read and write)"
_MESSAGE_LENGTH: Final = 300
_METADATA: Final = {"metadata": "read"}
_AGAIN: Final = "labrats connect github"
_FORGET: Final = f"labrats secret delete github-app, then {_AGAIN}"


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

    @property
    def web_url(self) -> str:
        return self._github.web_url

    async def check_token(self, token: str, repositories: Sequence[str]) -> CheckedCredentials:
        async with self._github.client(token) as client:
            user = await self._github.request(client, "GET", "/user")
            if not user.is_success:
                raise self._refusal(user, "the account of the token")
            names = [await self._check(client, name) for name in repositories]
        return CheckedCredentials(read_answer(user, _User).login, names)

    def app_form(
        self, agents: Iterable[AiAgent], redirect_url: str, organization: str | None, hook_url: str | None
    ) -> AppForm:
        web, state = self.web_url, secrets.token_urlsafe(16)
        owner = f"/organizations/{quote(organization)}" if organization else ""
        manifest = app_manifest(agents, web, redirect_url, hook_url)
        return AppForm(f"{web}{owner}/settings/apps/new?state={state}", manifest, state)

    async def new_app(self, code: str) -> NewApp:
        with self._refusals_of_app({HTTPStatus.NOT_FOUND: _AGAIN, HTTPStatus.UNPROCESSABLE_ENTITY: _AGAIN}):
            app = await self._github.new_app(code)
        values = {APP_ID: str(app.id), PRIVATE_KEY: app.pem}
        values |= {WEBHOOK_SECRET: app.webhook_secret} if app.webhook_secret else {}
        return NewApp(AppAccess(app.login, _install_url(app), (), ()), values)

    async def app_access(self, credentials: Mapping[str, str]) -> AppAccess:
        app = await self._app(credentials)
        with self._refusals_of_app({}):
            installations = await self._github.installations(credentials)
            working = [each.id for each in installations if each.suspended_at is None]
            repositories = [name for each in working for name in await self._github.repositories_of(credentials, each)]
        suspended = [each.account.login for each in installations if each.suspended_at and each.account]
        return AppAccess(app.login, _install_url(app), sorted(repositories), suspended)

    async def check_app(self, credentials: Mapping[str, str], repositories: Sequence[str]) -> CheckedCredentials:
        app, names = await self._app(credentials), []
        for name in repositories:
            owner = name.partition("/")[0]
            advice: dict[int, str] = {
                HTTPStatus.NOT_FOUND: f"install it at {_install_url(app)}, or check the name {name}",
                HTTPStatus.UNPROCESSABLE_ENTITY: f"let its installation have {name}: {_install_url(app)}",
                HTTPStatus.FORBIDDEN: f"unsuspend it in the settings of {owner} on GitHub (Installed GitHub Apps)",
            }
            with self._refusals_of_app(advice):
                token = await self._github.token_for(name, credentials, _METADATA)
            async with self._github.client(token) as client:
                repository, _ = await self._writable(client, name)
            names.append(repository.full_name)
        return CheckedCredentials(app.login, names, has_webhook=bool(app.events))

    async def _app(self, credentials: Mapping[str, str]) -> App:
        advice = dict.fromkeys((0, 401, 404), f"if it was deleted there: {_FORGET}")
        with self._refusals_of_app(advice):
            return await self._github.app(credentials)

    @contextmanager
    def _refusals_of_app(self, advice: Mapping[int, str]) -> Iterator[None]:
        """Translate a refusal. advice: the next step by the status of GitHub's answer."""
        try:
            yield
        except RefusedToApp as error:
            step = advice.get(error.status, f"look at the App's settings: {self.web_url}/settings/apps")
            raise RefusedByForge(f"{error}: {step}") from error

    async def _writable(self, client: httpx2.AsyncClient, name: str) -> tuple[_Repository, httpx2.Headers]:
        """Return a repository with the headers of GitHub's answer. Raises RefusedByForge, RetryLater."""
        response = await self._github.request(client, "GET", f"/repos/{name}")
        if not response.is_success:
            raise self._refusal(response, name)
        repository = read_answer(response, _Repository)
        if repository.archived:
            raise RefusedByForge(f"{name} is archived, so nothing can be written there: choose another repository")
        return repository, response.headers

    async def _check(self, client: httpx2.AsyncClient, name: str) -> str:
        """Return the full name of a repository with which the token can work. Raises RefusedByForge, RetryLater."""
        repository, headers = await self._writable(client, name)
        scopes = headers.get("X-OAuth-Scopes")  # of a classic token
        needed = "repo" if repository.private else "public_repo"
        if scopes is not None and not {"repo", needed} & set(scopes.replace(" ", "").split(",")):
            advice = f"add it at {self.web_url}/settings/tokens, then try again"
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
        tokens = f"{self.web_url}/settings/personal-access-tokens"
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
            advice = f"authorize it at {self.web_url}/settings/tokens (Configure SSO)"
            return RefusedByForge(f"the organization of {name} wants the token authorized for single sign-on: {advice}")
        if "forbids" in message:
            advice = "use a fine-grained token that the organization allows, or let one of its owners allow this one"
            return RefusedByForge(f"GitHub refuses {name}: {message.rstrip('.')}; {advice}")
        if permission and "not accessible" in message:
            return RefusedByForge(f"the token lacks the permission {permission}: give it {_WRITE} at {tokens}")
        return RefusedByForge(f"GitHub refuses {name}: {message.rstrip('.')}; give the token {_WRITE} at {tokens}")


def _install_url(app: App) -> str:
    return f"{app.html_url}/installations/new"


def _message(response: httpx2.Response) -> str:
    """Return GitHub's sentence about an error."""
    try:
        return str(response.json()["message"])[:_MESSAGE_LENGTH]
    except (ValueError, KeyError, TypeError):
        return f"it answered {response.status_code}"
