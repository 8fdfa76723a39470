"""The Secrets that AiModels, MCP servers and webhook sources may refer to, and their values, which are never shown."""

from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import structlog
from fastapi import Request
from msgspec.structs import replace
from pydantic import Field, SecretStr, StringConstraints
from starlette.responses import Response

from labrats.api.auth.hosts import is_loopback
from labrats.api.http.errors import ApiError
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.resources import get_resource
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Name, RequestBody, ResponseBody
from labrats.api.schemas.patterns import DATA_KEY
from labrats.api.services import Services
from labrats.model.ai_model import AiModel
from labrats.model.core_resources import (
    JOB_CREDENTIALS,
    Secret,
    is_for_jobs,
    is_of_engine,
    label_command,
    problem_of_credentials,
)
from labrats.model.errors import AccessDenied, Conflict, NotFound, Problem, TooLarge
from labrats.model.record import Metadata
from labrats.model.secret_users import users_of_secret
from labrats.ports import compare_and_set

log = structlog.get_logger()

router = api_router("Configuration")

MAX_KEYS: Final = 50
MAX_VALUE_LENGTH: Final = 512 * 1024
MAX_BYTES: Final = 1_000_000
"""The bound on all values of a Secret: a cluster stores at most 1 MiB."""

SecretName = Annotated[Name, Field(description="The name of the Secret.", examples=["anthropic"])]
StoredName = Annotated[str, Field(description="The name of the Secret.", examples=["anthropic"])]
SecretText = Annotated[SecretStr, Field(min_length=1, max_length=MAX_VALUE_LENGTH)]
"""A value. Its text form hides it, so that no log has it."""


class SecretView(ResponseBody):
    """A Secret, without its values."""

    name: str = Field(examples=["anthropic"])
    keys: list[str] = Field(examples=[["ANTHROPIC_API_KEY"]])
    problem: str | None = Field(description="Why jobs may not use it, such as a missing label; null if they may.")


class SecretBody(RequestBody):
    """Values to set."""

    model_config = RequestBody.model_config | {
        "json_schema_extra": {"examples": [{"values": {"ANTHROPIC_API_KEY": "the-key-of-the-provider"}}]}
    }

    values: dict[Annotated[str, StringConstraints(max_length=253, pattern=DATA_KEY)], SecretText] = Field(
        min_length=1, max_length=MAX_KEYS, description="Text by key. Other keys of the Secret keep their values."
    )


class SecretList(ResponseBody):
    """All Secrets that are neither the engine's own nor a part of a job."""

    secrets: list[SecretView]


@router.get("/api/secrets", responses=answers(200, SecretList, "The names and keys"), summary="List secrets")
async def list_secrets(request: Request) -> Response:
    """List the names and keys of Secrets. `PUT /api/secrets/NAME` sets them."""
    services = services_of(request)
    labelled_only = services.settings.labelled_credentials
    found = [each for each in await services.store.list(Secret) if not is_of_engine(each) and not each.metadata.owner]
    return json_response({"secrets": [_view(each, labelled_only=labelled_only) for each in found]})


@router.put(
    "/api/secrets/{name}",
    responses=answers(200, SecretView, "The Secret, without its values", 400, 403, 404, 409, 413, 415, 422),
    summary="Set keys of a secret",
)
async def put_secret(request: Request, name: SecretName, body: SecretBody) -> Response:
    """Set keys of a Secret for jobs, and create it if it does not exist. Values are never shown again.

    The request must come over TLS or from the engine's machine. Jobs get the new values from their next attempt on.
    """
    services = services_of(request)
    command = f"kubectl create secret generic {name} {' '.join(f'--from-file={key}=FILE' for key in body.values)}"
    check_secrets_allowed(request, f"{command} && {label_command(name)}")
    values = {key: text.get_secret_value() for key, text in body.values.items()}

    return json_response(
        _view(await write_secret(request, name, values), labelled_only=services.settings.labelled_credentials)
    )


async def write_secret(request: Request, name: str, values: dict[str, str]) -> Secret:
    """Set keys of a Secret for jobs, after `check_secrets_allowed`. Raises AccessDenied, TooLarge."""
    services = services_of(request)

    async def read() -> Secret:
        try:
            return _checked(await services.store.get(Secret, name), services)
        except NotFound:
            return Secret(metadata=Metadata(name=name))

    def merged(secret: Secret) -> Secret:
        metadata, data = replace(secret.metadata, labels=secret.metadata.labels | JOB_CREDENTIALS), secret.data | values
        if sum(len(key) + len(text.encode()) for key, text in data.items()) > MAX_BYTES:
            raise TooLarge(Problem("values", "must be at most 1 MB in all, with the other keys of the Secret"))
        return replace(secret, metadata=metadata, data=data)

    _, written = await compare_and_set(services.store, read, merged)
    log.info("secret written", secret=name, keys=sorted(values), by=caller_of(request).id)
    return written


@router.delete(
    "/api/secrets/{name}",
    status_code=204,
    responses=answers(204, None, "The Secret is deleted", 400, 403, 404, 409),
    summary="Delete a secret",
)
async def delete_secret(request: Request, name: StoredName) -> Response:
    """Delete a Secret that no model, webhook source or agent names."""
    services = services_of(request)
    check_secrets_allowed(request, f"kubectl delete secret {name}")
    secret = _checked(await get_resource(services, Secret, name), services)
    models, catalog = await services.store.list(AiModel), services.catalog
    if users := list(users_of_secret(name, models, catalog.webhook_sources, catalog.agents)):
        raise Conflict(f"the Secret {name!r} is used by {', '.join(users)}; name another Secret there first")
    await services.store.delete(Secret, name, secret.metadata.resource_version)
    log.info("secret deleted", secret=name, by=caller_of(request).id)
    return Response(status_code=204)


def check_secrets_allowed(request: Request, command: str) -> None:
    """Raise ApiError where Secrets are not written through the API, or for an unencrypted request.

    command: for an administrator of the cluster instead.
    """
    settings = services_of(request).settings
    if not settings.writes_secrets:
        instead = f"set api.writeSecrets in the chart, or use kubectl: {command}"
        if settings.backend == "embedded":
            instead = "LABRATS_WRITE_SECRETS is false; use `labrats secret` on the engine's machine"
        raise ApiError(400, "secrets_not_written_here", f"the API writes no Secrets here: {instead}")
    if not _is_confidential(request):
        message = "a Secret must travel over TLS; use https, or send the request from the engine's machine"
        raise ApiError(400, "tls_required", message)


def _is_confidential(request: Request) -> bool:
    """Return whether nobody on the network can read the request: it uses TLS, or stays on the machine."""
    if request.url.scheme == "https":
        return True
    host = urlsplit(f"//{request.headers.get('host', '')}")
    public = urlsplit(services_of(request).settings.public_url or "")
    is_denied = request.headers.get("x-forwarded-proto", "https") != "https"
    if public.scheme == "https" and host.netloc == public.netloc and not is_denied:  # a proxy has ended TLS
        return True
    address = request.client.host if request.client else ""
    return is_loopback(address) and is_loopback(host.hostname or "")


def _checked(secret: Secret, services: Services) -> Secret:
    """Return the Secret. Raises AccessDenied for one that users must not change by the API."""
    if is_of_engine(secret) or secret.metadata.owner:
        raise AccessDenied(f"the Secret {secret.name!r} belongs to the engine or to a job; choose another name")
    if services.settings.backend == "kubernetes" and not is_for_jobs(secret):
        command = label_command(secret.name)
        raise AccessDenied(f"the Secret {secret.name!r} may be another program's; if not, label it: {command}")
    return secret


def _view(secret: Secret, *, labelled_only: bool) -> dict[str, Any]:
    return {
        "name": secret.name,
        "keys": sorted(secret.data),
        "problem": problem_of_credentials(secret, None, labelled_only=labelled_only),
    }
