"""Connecting repositories on GitHub: their credentials, the source of their events, and the first agents."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from fastapi import Request
from msgspec.structs import replace
from pydantic import Field, StringConstraints
from starlette.responses import Response

from labrats.api.auth.hosts import is_loopback
from labrats.api.http.errors import ApiError
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.agents import add_agents
from labrats.api.routes.resources import create_resource, update_resource
from labrats.api.routes.secrets import check_secrets_allowed, write_secret
from labrats.api.routes.webhook_sources import MAX_REPOSITORIES, RepoName
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import RequestBody, ResponseBody
from labrats.api.schemas.patterns import GITHUB_LOGIN, PRINTABLE, RANDOM_TEXT, WEB_ADDRESS
from labrats.api.services import Services
from labrats.intake.forge import AppAccess, CheckedCredentials, RefusedByForge
from labrats.model.agent import AiAgent
from labrats.model.core_resources import Secret, label_command
from labrats.model.errors import Invalid, NotFound, Problem
from labrats.model.job import KeyReference
from labrats.model.record import Metadata
from labrats.model.webhook_source import (
    APP_ID,
    APP_SECRET,
    GITHUB,
    POLL,
    PRIVATE_KEY,
    TOKEN,
    WEBHOOK,
    WEBHOOK_SECRET,
    WebhookSource,
    WebhookSourceSpec,
)
from labrats.seeds import github_agents

router = api_router("GitHub")

TOKEN_SECRET: Final = "github-token"  # noqa: S105, the name of a Secret

Token = Annotated[str, StringConstraints(max_length=1024, pattern=PRINTABLE)]
Mode = Literal["webhook", "poll"]


class GitHubAppFormBody(RequestBody):
    """The App to create."""

    model_config = RequestBody.model_config | {
        "json_schema_extra": {"examples": [{"redirectUrl": "http://127.0.0.1:8123/"}]}
    }

    redirect_url: Annotated[str, StringConstraints(max_length=2000, pattern=WEB_ADDRESS)] = Field(
        description="The page to which GitHub sends the browser afterwards, with `code` and `state`.",
        examples=["http://127.0.0.1:8123/"],
    )
    organization: Annotated[str, StringConstraints(max_length=100, pattern=GITHUB_LOGIN)] | None = Field(
        default=None, description="The organization that will own the App. Default: the person.", examples=["octo-org"]
    )
    mode: Mode | None = Field(
        default=None,
        description="`webhook`: GitHub delivers events to the engine. `poll`: the engine reads them, and needs no "
        "public address. Default: `webhook` if `LABRATS_PUBLIC_URL` is an https address, and not of this machine.",
    )


class GitHubAppFormView(ResponseBody):
    """A form that the browser sends to GitHub with the field `manifest`."""

    address: str = Field(examples=["https://github.com/settings/apps/new?state=hZ3vT0mXcW1qk"])
    manifest: dict[str, Any] = Field(description="Sent as JSON.", examples=[{"name": "labrats-3fa9c1"}])
    state: str = Field(
        description="GitHub gives it back with the code. Refuse a code with another one.", examples=["hZ3vT0mXcW1qk"]
    )
    mode: str = Field(examples=["poll"])


class GitHubCodeBody(RequestBody):
    """The code of an App that was just created."""

    model_config = RequestBody.model_config | {
        "json_schema_extra": {"examples": [{"code": "a180b1a3d263c81bc6441d7b990bae27d4c10679"}]}
    }

    code: Annotated[str, StringConstraints(max_length=200, pattern=RANDOM_TEXT)] = Field(
        description="GitHub has sent it to the `redirectUrl`. It works once, within an hour."
    )


class GitHubAppView(ResponseBody):
    """The connected App, and the repositories on which it is installed."""

    secret: str = Field(description="The name of the Secret with its id and key.", examples=["github-app"])
    login: str = Field(description="The account that writes on GitHub.", examples=["labrats-3fa9c1[bot]"])
    install_url: str = Field(
        description="The page on which a person installs it on repositories.",
        examples=["https://github.com/apps/labrats-3fa9c1/installations/new"],
    )
    repositories: list[str] = Field(description="Without archived ones.", examples=[["octocat/hello-world"]])
    suspended: list[str] = Field(description="Accounts whose installation is suspended.", examples=[[]])


class GitHubConnectionBody(RequestBody):
    """The repositories to connect, and the credentials for them."""

    model_config = RequestBody.model_config | {
        "json_schema_extra": {
            "examples": [{"token": "the-personal-token", "repositories": ["octocat/hello-world"]}],
        }
    }

    token: Token | None = Field(
        default=None,
        description="A personal token. It is stored in a Secret, and never shown. Default: the connected App is used.",
    )
    repositories: list[RepoName] = Field(
        min_length=1,
        max_length=MAX_REPOSITORIES,
        description="They are added to those that are connected already with the same Secret. In the mode `webhook`, "
        "all on which the App is installed deliver their events.",
        examples=[["octocat/hello-world"]],
    )
    mode: Mode | None = Field(
        default=None, description="Default: `webhook` for an App with a webhook, else `poll`.", examples=["poll"]
    )


class GitHubConnectionView(ResponseBody):
    """A webhook source that receives the events of repositories on GitHub."""

    source: str = Field(description="The name of the WebhookSource.", examples=["github"])
    secret: str = Field(description="The name of the Secret with the credentials.", examples=["github-token"])
    login: str = Field(description="The account that writes on GitHub.", examples=["octocat"])
    repositories: list[str] = Field(examples=[["octocat/hello-world"]])
    mode: str = Field(examples=["poll"])
    seeded: int = Field(description="The number of added default agents: none if an agent listens to GitHub already.")
    drawback: str | None = Field(description="What is lost compared with a GitHub App; null with one.")


@router.post(
    "/api/github/app/form",
    responses=answers(200, GitHubAppFormView, "The form", 400, 413, 415, 422),
    summary="Describe the GitHub App to create",
)
async def describe_github_app(request: Request, body: GitHubAppFormBody) -> Response:
    """Return the form by which a person creates a GitHub App with the rights and events that the agents need.

    The agents are those that listen to GitHub or, without any, the default ones. Nothing is stored.
    """
    services = services_of(request)
    check_secrets_allowed(request, _app_command())  # before a person creates an App in vain
    mode = body.mode or (WEBHOOK if _has_public_url(services) else POLL)
    hook_url = f"{_public_url(services)}/webhooks/{_source_name(services)}" if mode == WEBHOOK else None
    agents = _listeners(services) or [agent for agent, _ in github_agents()]
    form = services.forge_setup.app_form(agents, body.redirect_url, body.organization, hook_url)
    return json_response({"address": form.address, "manifest": form.manifest, "state": form.state, "mode": mode})


@router.post(
    "/api/github/app",
    responses=answers(200, GitHubAppView, "The connected App", 400, 403, 409, 413, 415, 422),
    summary="Store the created GitHub App",
)
async def store_github_app(request: Request, body: GitHubCodeBody) -> Response:
    """Exchange the code of an App that a person has just created for its id and key, and store these in a Secret."""
    check_secrets_allowed(request, _app_command())
    with _refusals():
        new = await services_of(request).forge_setup.new_app(body.code)
    await write_secret(request, APP_SECRET, dict(new.credentials))
    return json_response(_app_view(new.app))


@router.get(
    "/api/github/app",
    responses=answers(200, GitHubAppView, "The connected App", 400, 404),
    summary="Get the connected GitHub App",
)
async def get_github_app(request: Request) -> Response:
    """Ask GitHub for the connected App and the repositories on which it is installed."""
    services = services_of(request)
    credentials = await _app_credentials(services)
    with _refusals():
        return json_response(_app_view(await services.forge_setup.app_access(credentials)))


@router.post(
    "/api/github/connection",
    responses=answers(200, GitHubConnectionView, "The connection", 400, 404, 409, 413, 415, 422),
    summary="Connect repositories on GitHub",
)
async def connect_github(request: Request, body: GitHubConnectionBody) -> Response:
    """Check a personal token or the connected App, and receive or read the events of the repositories from then on.

    A token is stored in a Secret. A source of the type `github` that exists is changed. The default agents are added if
    none listens to GitHub.
    """
    if body.token is None:
        return await _connect_app(services_of(request), body)
    return await _connect_token(request, body.token, body)


async def _connect_token(request: Request, token: str, body: GitHubConnectionBody) -> Response:
    services = services_of(request)
    if body.mode == WEBHOOK:
        raise Invalid(Problem("mode", "must be `poll` with a token: only an App has a webhook"))
    command = f"kubectl create secret generic {TOKEN_SECRET} --from-file={TOKEN}=FILE"
    check_secrets_allowed(request, f"{command} && {label_command(TOKEN_SECRET)}")
    with _refusals():
        checked = await services.forge_setup.check_token(token, body.repositories)
    await write_secret(request, TOKEN_SECRET, {TOKEN: token})
    drawback = (
        f"unlike a GitHub App, a token writes in the name of {checked.login}, has commit statuses instead of checks "
        "with buttons, and gives each clone all of its rights"
    )
    return await _connect(services, TOKEN_SECRET, checked, POLL, drawback)


async def _connect_app(services: Services, body: GitHubConnectionBody) -> Response:
    credentials = await _app_credentials(services)
    with _refusals():
        checked = await services.forge_setup.check_app(credentials, body.repositories)
    has_webhook = checked.has_webhook and WEBHOOK_SECRET in credentials
    if body.mode == WEBHOOK and not has_webhook:
        raise ApiError(400, "no_webhook", f"{checked.login} was created without a webhook: leave out the mode")
    return await _connect(services, APP_SECRET, checked, body.mode or (WEBHOOK if has_webhook else POLL), None)


async def _connect(
    services: Services, secret: str, checked: CheckedCredentials, mode: str, drawback: str | None
) -> Response:
    seeded = 0 if _listeners(services) else await add_agents(services, github_agents())
    source = await _write_source(services, secret, checked.repositories, mode)
    return json_response(_view(source, checked.login, seeded, drawback))


async def _app_credentials(services: Services) -> Mapping[str, str]:
    """Return the credentials of the connected App. Raises NotFound."""
    try:
        data = (await services.store.get(Secret, APP_SECRET)).data
    except NotFound:
        data = {}
    if not (data.get(APP_ID) and data.get(PRIVATE_KEY)):
        raise NotFound("no GitHub App is connected: labrats connect github")
    return data


def _app_command() -> str:
    """Return the command that stores an App where the engine may not."""
    files = " ".join(f"--from-file={key}=FILE" for key in (APP_ID, PRIVATE_KEY))
    return f"kubectl create secret generic {APP_SECRET} {files} && {label_command(APP_SECRET)}"


def _app_view(app: AppAccess) -> dict[str, Any]:
    return {
        "secret": APP_SECRET,
        "login": app.login,
        "installUrl": app.install_url,
        "repositories": app.repositories,
        "suspended": app.suspended,
    }


def _has_public_url(services: Services) -> bool:
    url = urlsplit(services.settings.public_url or "")
    return url.scheme == "https" and not is_loopback(url.hostname or "")


def _public_url(services: Services) -> str:
    """Return the address at which GitHub reaches the engine. Raises ApiError."""
    if not (services.settings.public_url and _has_public_url(services)):
        message = "GitHub cannot deliver events to this engine: set LABRATS_PUBLIC_URL to its https address"
        raise ApiError(400, "no_public_url", f"{message}, or use the mode `poll`")
    return services.settings.public_url


def _listeners(services: Services) -> Sequence[AiAgent]:
    """Return the agents that listen to GitHub."""
    return [
        agent
        for agent in services.catalog.agents
        if any(trigger.source == GITHUB for trigger in agent.spec.event_triggers)
    ]


@contextmanager
def _refusals() -> Iterator[None]:
    """Answer 400 with GitHub's reason and the next step."""
    try:
        yield
    except RefusedByForge as error:
        raise ApiError(400, "refused_by_github", str(error)) from error


def _source_name(services: Services) -> str:
    """Return the name of the source of GitHub's events, which may be missing."""
    existing = [each.name for each in services.catalog.webhook_sources if each.spec.type == GITHUB]
    return existing[0] if len(existing) == 1 else GITHUB


async def _write_source(services: Services, secret: str, repositories: Sequence[str], mode: str) -> WebhookSource:
    """Add repositories to the source of GitHub's events, which is created if it is missing."""
    signing = {"secret_ref": KeyReference(name=secret, key=WEBHOOK_SECRET)} if mode == WEBHOOK else {}
    async with services.catalog.changing:
        name = _source_name(services)

        def changed(spec: WebhookSourceSpec) -> WebhookSourceSpec:
            known = spec.repositories if spec.credentials_ref == secret else ()
            names = {each.lower(): each for each in (*known, *repositories)}
            if len(names) > MAX_REPOSITORIES:
                message = f"the source {name} would have more than {MAX_REPOSITORIES} repositories"
                raise ApiError(400, "too_many_repositories", f"{message}; create another one: docs/webhooks.md")
            known_now = tuple(names.values())
            return replace(spec, enabled=True, mode=mode, credentials_ref=secret, repositories=known_now, **signing)

        if any((each.name, each.spec.type) == (name, GITHUB) for each in services.catalog.webhook_sources):
            source = await update_resource(
                services, WebhookSource, name, None, lambda source: replace(source, spec=changed(source.spec))
            )
        else:
            new = WebhookSource(metadata=Metadata(name=name), spec=changed(WebhookSourceSpec(type=GITHUB)))
            source = await create_resource(services, new, None)
        services.catalog.put(source)
    return source


def _view(source: WebhookSource, login: str, seeded: int, drawback: str | None) -> dict[str, Any]:
    return {
        "source": source.name,
        "secret": source.spec.credentials_ref,
        "login": login,
        "repositories": source.spec.repositories,
        "mode": source.spec.mode,
        "seeded": seeded,
        "drawback": drawback,
    }
