"""API keys: made, listed by their prefix, revoked."""

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import Request
from msgspec.structs import replace
from pydantic import AwareDatetime, BeforeValidator, Field
from starlette.responses import Response

from labrats.api.auth.keys import SUBMIT, derived_key, expiry_of, hash_key, key_secret
from labrats.api.http.errors import EXAMPLE_TIME
from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routing import api_router, caller_of, credential_of, services_of
from labrats.api.schemas.base import Label, RequestBody, ResponseBody
from labrats.api.services import Services
from labrats.model.core_resources import API_KEY_LABEL, API_KEY_LABEL_VALUE, Secret
from labrats.model.errors import Conflict, Invalid, NotFound, Problem
from labrats.model.record import seniority

router = api_router("API keys")

_LABELS: Final = {API_KEY_LABEL: API_KEY_LABEL_VALUE}
_SALT: Final = "salt"


KeyId = Annotated[str, Field(description="The key's id, as the list shows it.", examples=["key-2c1f0a9b3d"])]


def _check_text(value: Any) -> Any:
    if not isinstance(value, str | None):  # a number would be taken for seconds
        raise ValueError(f"must be {EXAMPLE_TIME}")
    return value


class ApiKeyBody(RequestBody):
    """A key to make."""

    name: Label = Field(examples=["ci"])
    scopes: list[Literal["submit", "admin"]] = Field(
        default=[SUBMIT],
        min_length=1,
        max_length=2,
        description="What the key may do. On one machine, where agents run without a sandbox, a key that may submit "
        "jobs is as good as an admin key.",
    )
    expires_at: Annotated[
        Annotated[AwareDatetime, Field(strict=False)] | None,
        BeforeValidator(_check_text),
        Field(description="When it stops being valid. Default: never.", examples=["2030-01-31T12:00:00Z"]),
    ] = None


class ApiKeyView(ResponseBody):
    """A stored key; only its prefix is known."""

    id: str = Field(examples=["key-2c1f0a9b3d"])
    name: str = Field(examples=["ci"])
    prefix: str = Field(examples=["lr_AbCdE"])
    scopes: list[str] = Field(examples=[["submit"]])
    created_at: datetime = Field(examples=["2030-01-01T12:00:00Z"])
    expires_at: datetime | None = Field(examples=["2030-01-31T12:00:00Z"])


class NewApiKeyView(ApiKeyView):
    """A key just made."""

    key: str = Field(description="The key itself: it is shown this once.", examples=[f"lr_{'AbCdE' * 8}AbC"])


class ApiKeyList(ResponseBody):
    """All stored keys."""

    api_keys: list[ApiKeyView]


@router.get("/api/api-keys", responses=answers(200, ApiKeyList, "All stored keys"), summary="List API keys")
async def list_api_keys(request: Request) -> Response:
    """The stored keys, each by its prefix, the newest first. Those of SUBMIT_API_KEYS are not among them."""
    stored = await services_of(request).store.list(Secret, _LABELS)
    newest_first = sorted(stored, key=seniority, reverse=True)
    return json_response({"apiKeys": [_view(secret) for secret in newest_first]})


@router.post(
    "/api/api-keys",
    status_code=201,
    responses=answers(201, NewApiKeyView, "The key, this once", 400, 409, 413, 415, 422),
    summary="Make an API key",
)
async def create_api_key(request: Request, asked: ApiKeyBody, idempotency_key: IdempotencyKey = None) -> Response:
    """Make a key; it is valid at once, and shown in this answer only."""
    services = services_of(request)
    intent = Intent.of(idempotency_key, caller_of(request).id, asked)
    nonce = idempotency_key or secrets.token_urlsafe(32)
    secret = await _made_before(services, intent)
    if secret is None:
        salt = secrets.token_urlsafe(32)
        key = derived_key(credential_of(request).text, nonce, salt)
        secret = await _store(services, intent, _key_secret(asked, key, salt, intent, services.clock.now()))
    key = derived_key(credential_of(request).text, nonce, secret.data[_SALT])
    if hash_key(key) != secret.data["hash"]:
        raise Conflict("this request has made a key, which cannot be shown again since its maker's own has changed")
    await services.api_keys.wait_until(secret.name, indexed=True)
    return json_response(_view(secret) | {"key": key}, 201)


async def _made_before(services: Services, intent: Intent | None) -> Secret | None:
    return intent.first_match(await services.store.list(Secret, _LABELS)) if intent else None


def _key_secret(asked: ApiKeyBody, key: str, salt: str, intent: Intent | None, now: datetime) -> Secret:
    """Raises Invalid for a key that would never be valid."""
    if asked.expires_at and asked.expires_at <= now:
        raise Invalid(Problem("expiresAt", "must lie in the future"))
    expires_at = asked.expires_at.astimezone(UTC) if asked.expires_at else None
    secret = key_secret(asked.name, key, list(dict.fromkeys(asked.scopes)), expires_at)
    metadata = replace(secret.metadata, annotations=intent.annotations if intent else {})
    return replace(secret, metadata=metadata, data=secret.data | {_SALT: salt})


async def _store(services: Services, intent: Intent | None, secret: Secret) -> Secret:
    """Store it; where another request of the same Idempotency-Key was quicker, what that one stored."""
    try:
        return await services.store.create(secret)
    except Conflict as error:
        if made := await _made_before(services, intent):
            return made
        raise Conflict(f"there is a key named {secret.data['name']!r} already") from error


@router.delete(
    "/api/api-keys/{key_id}",
    status_code=204,
    responses=answers(204, None, "It is revoked", 404),
    summary="Revoke an API key",
)
async def revoke_api_key(request: Request, key_id: KeyId) -> Response:
    """Revoke a key: from now on it is refused."""
    services = services_of(request)
    try:
        secret = await services.store.get(Secret, key_id)
        if secret.metadata.labels.get(API_KEY_LABEL) != API_KEY_LABEL_VALUE:
            raise NotFound(key_id)
        await services.store.delete(Secret, key_id)
    except NotFound as error:
        raise NotFound(f"there is no API key {key_id!r}") from error
    await services.api_keys.wait_until(key_id, indexed=False)
    return Response(status_code=204)


def _view(secret: Secret) -> dict[str, Any]:
    return {
        "id": secret.name,
        "name": secret.data.get("name", secret.name),
        "prefix": secret.data.get("prefix", ""),
        "scopes": secret.data.get("scopes", SUBMIT).split(","),
        "createdAt": secret.metadata.created_at,
        "expiresAt": _expiry_shown(secret),
    }


def _expiry_shown(secret: Secret) -> datetime | str | None:
    """In UTC, as all times are. What somebody wrote by hand and is no time is shown as it is: such a key is none."""
    try:
        expires_at = expiry_of(secret)
    except ValueError:
        return secret.data["expiresAt"]
    return expires_at and expires_at.astimezone(UTC)
