"""Connecting repositories on GitHub: their credentials, the source of their events, and the first agents."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final

from fastapi import Request
from msgspec.structs import replace
from pydantic import Field, StringConstraints
from starlette.responses import Response

from labrats.api.http.errors import ApiError
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.agents import add_agents
from labrats.api.routes.resources import create_resource, update_resource
from labrats.api.routes.secrets import check_secrets_allowed, write_secret
from labrats.api.routes.webhook_sources import MAX_REPOSITORIES, RepoName
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import RequestBody, ResponseBody
from labrats.api.schemas.patterns import PRINTABLE
from labrats.api.services import Services
from labrats.intake.forge import RefusedByForge
from labrats.model.core_resources import label_command
from labrats.model.record import Metadata
from labrats.model.webhook_source import GITHUB, POLL, TOKEN, WebhookSource, WebhookSourceSpec
from labrats.seeds import github_agents

router = api_router("GitHub")

TOKEN_SECRET: Final = "github-token"  # noqa: S105, the name of a Secret

Token = Annotated[str, StringConstraints(max_length=1024, pattern=PRINTABLE)]


class GitHubConnectionBody(RequestBody):
    """The repositories to connect, and the credentials for them."""

    model_config = RequestBody.model_config | {
        "json_schema_extra": {
            "examples": [{"token": "the-personal-token", "repositories": ["octocat/hello-world"]}],
        }
    }

    token: Token = Field(description="A personal token of GitHub. It is stored in a Secret, and never shown.")
    repositories: list[RepoName] = Field(
        min_length=1,
        max_length=MAX_REPOSITORIES,
        description="They are added to those that are connected already with the same Secret.",
        examples=[["octocat/hello-world"]],
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
    "/api/github/connection",
    responses=answers(200, GitHubConnectionView, "The connection", 400, 409, 413, 415, 422),
    summary="Connect repositories on GitHub",
)
async def connect_github(request: Request, body: GitHubConnectionBody) -> Response:
    """Check a personal token, store it, and read the events of the repositories from then on (mode `poll`).

    A source of the type `github` that exists is changed. The default agents are added if none listens to GitHub.
    """
    services = services_of(request)
    command = f"kubectl create secret generic {TOKEN_SECRET} --from-file={TOKEN}=FILE"
    check_secrets_allowed(request, f"{command} && {label_command(TOKEN_SECRET)}")
    with _refusals():
        checked = await services.forge_setup.check_token(body.token, body.repositories)
    await write_secret(request, TOKEN_SECRET, {TOKEN: body.token})
    seeded = await _add_first_agents(services)
    source = await _write_source(services, TOKEN_SECRET, checked.repositories)
    drawback = (
        f"unlike a GitHub App, a token writes in the name of {checked.login}, has commit statuses instead of checks "
        "with buttons, and gives each clone all of its rights"
    )
    return json_response(_view(source, checked.login, seeded, drawback))


@contextmanager
def _refusals() -> Iterator[None]:
    """Answer 400 with GitHub's reason and the next step."""
    try:
        yield
    except RefusedByForge as error:
        raise ApiError(400, "refused_by_github", str(error)) from error


async def _add_first_agents(services: Services) -> int:
    """Add the default agents that listen to GitHub, unless one listens already. Return their number."""
    triggers = (trigger for agent in services.catalog.agents for trigger in agent.spec.event_triggers)
    return 0 if any(each.source == GITHUB for each in triggers) else await add_agents(services, github_agents())


async def _write_source(services: Services, secret: str, repositories: Sequence[str]) -> WebhookSource:
    """Add repositories to the source of GitHub's events, which is created if it is missing."""
    async with services.catalog.changing:
        existing = [each for each in services.catalog.webhook_sources if each.spec.type == GITHUB]
        name = existing[0].name if len(existing) == 1 else GITHUB

        def changed(spec: WebhookSourceSpec) -> WebhookSourceSpec:
            known = spec.repositories if spec.credentials_ref == secret else ()
            names = {each.lower(): each for each in (*known, *repositories)}
            if len(names) > MAX_REPOSITORIES:
                message = f"the source {name} would have more than {MAX_REPOSITORIES} repositories"
                raise ApiError(400, "too_many_repositories", f"{message}; create another one: docs/webhooks.md")
            return replace(spec, enabled=True, mode=POLL, credentials_ref=secret, repositories=tuple(names.values()))

        if any(each.name == name for each in existing):
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
