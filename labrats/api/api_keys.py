"""API keys: made, listed by their prefix, revoked."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from labrats.api.bodies import Label, RequestBody, ResponseBody
from labrats.api.errors import answers
from labrats.api.job_views import as_json
from labrats.api.keys import SUBMIT, key_secret, new_key
from labrats.api.routing import admin_router, engine_of
from labrats.model.errors import Conflict, Invalid, NotFound, Problem
from labrats.model.parts import API_KEY_LABEL, API_KEY_LABEL_VALUE, Secret

router = admin_router("API keys")

_LABELS = {API_KEY_LABEL: API_KEY_LABEL_VALUE}


class ApiKeyBody(RequestBody):
    """A key to make."""

    name: Label = Field(examples=["ci"])
    scopes: list[Literal["submit", "admin"]] = Field(default=[SUBMIT], min_length=1, max_length=2)
    expires_at: Annotated[AwareDatetime, Field(strict=False, description="When it stops being valid.")] | None = None


class ApiKeyView(ResponseBody):
    """A stored key; only its prefix is known."""

    id: str
    name: str
    prefix: str = Field(examples=["lr_AbCdE"])
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None


class NewApiKeyView(ApiKeyView):
    """A key just made."""

    key: str = Field(description="The key itself: it is shown this once.", examples=["lr_…"])


class ApiKeyList(ResponseBody):
    """All stored keys."""

    api_keys: list[ApiKeyView]


@router.get(
    "/api/api-keys",
    response_model=None,
    responses=answers(200, ApiKeyList, "All stored keys"),
    summary="List API keys",
)
async def list_api_keys(request: Request) -> Response:
    """The stored keys, each by its prefix. Those of SUBMIT_API_KEYS are not among them."""
    secrets = await engine_of(request).store.list(Secret, _LABELS)
    return Response(as_json({"apiKeys": [_view(secret) for secret in secrets]}), media_type="application/json")


@router.post(
    "/api/api-keys",
    status_code=201,
    response_model=None,
    responses=answers(201, NewApiKeyView, "The key, this once", 400, 409, 413, 415, 422),
    summary="Make an API key",
)
async def create_api_key(request: Request, asked: ApiKeyBody) -> Response:
    """Make a key; it is valid at once, and shown in this answer only."""
    engine = engine_of(request)
    if asked.expires_at and asked.expires_at <= engine.clock.now():
        raise Invalid(Problem("expiresAt", "must lie in the future"))
    key = new_key()
    scopes = list(dict.fromkeys(asked.scopes))
    expires_at = asked.expires_at.astimezone(UTC) if asked.expires_at else None
    try:
        created = await engine.store.create(key_secret(asked.name, key, scopes, expires_at))
    except Conflict as error:
        raise Conflict(f"there is a key named {asked.name!r} already") from error
    return Response(as_json(_view(created) | {"key": key}), status_code=201, media_type="application/json")


@router.delete(
    "/api/api-keys/{key_id}",
    status_code=204,
    response_model=None,
    responses=answers(204, None, "It is revoked", 404),
    summary="Revoke an API key",
)
async def revoke_api_key(request: Request, key_id: str) -> Response:
    """Revoke a key: from now on it is refused."""
    store = engine_of(request).store
    try:
        secret = await store.get(Secret, key_id)
        if secret.metadata.labels.get(API_KEY_LABEL) != API_KEY_LABEL_VALUE:
            raise NotFound(key_id)
        await store.delete(Secret, key_id)
    except NotFound as error:
        raise NotFound(f"there is no API key {key_id!r}") from error
    return Response(status_code=204)


def _view(secret: Secret) -> dict[str, Any]:
    return {
        "id": secret.name,
        "name": secret.data.get("name", secret.name),
        "prefix": secret.data.get("prefix", ""),
        "scopes": secret.data.get("scopes", SUBMIT).split(","),
        "createdAt": secret.metadata.created_at,
        "expiresAt": secret.data.get("expiresAt"),
    }
