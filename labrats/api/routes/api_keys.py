"""Creates, lists and revokes API keys."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import Request
from msgspec.structs import replace
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, ValidationError
from starlette.responses import Response

from labrats.api.auth.admin_key import delete_revoked
from labrats.api.auth.keys import derived_key, expiry_of, in_utc, key_secret
from labrats.api.http.errors import EXAMPLE_TIME, problems_of_body
from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.resources import value_taken
from labrats.api.routing import api_router, caller_of, credential_of, services_of
from labrats.api.schemas.base import Label, RequestBody, ResponseBody
from labrats.api.services import Services
from labrats.model.api_key import hash_key
from labrats.model.caller import SUBMIT, VIEWER
from labrats.model.core_resources import API_KEY_LABEL, API_KEY_LABEL_VALUE, Secret
from labrats.model.errors import Conflict, Invalid, NotFound, Problem
from labrats.model.record import seniority

router = api_router("API keys")

_LABELS: Final = {API_KEY_LABEL: API_KEY_LABEL_VALUE}
_SALT: Final = "salt"

KeyId = Annotated[str, Field(description="The key's id, as in the list.", examples=["key-2c1f0a9b3d"])]


def _check_text(value: Any) -> Any:
    if not isinstance(value, str | None):  # pydantic would read a number as Unix seconds
        raise ValueError(f"must be {EXAMPLE_TIME}")
    return value


def _check_viewer(scopes: list[str]) -> list[str]:
    if VIEWER in scopes and len(scopes) > 1:
        raise ValueError("must not combine `viewer`, which only reads, with another scope")
    return scopes


class ApiKeyBody(RequestBody):
    """A key to create."""

    name: Label = Field(examples=["ci"])
    scopes: Annotated[list[Literal["submit", "viewer", "admin"]], AfterValidator(_check_viewer)] = Field(
        default=[SUBMIT],
        min_length=1,
        max_length=2,
        description="The permissions of the key. `viewer` stands alone: such a key reads what admins read, except for "
        "payloads and credentials, and changes nothing. On a single machine without a sandbox for agents, a key that "
        "may submit jobs is as powerful as an admin key.",
    )
    expires_at: Annotated[
        Annotated[AwareDatetime, AfterValidator(in_utc), Field(strict=False)] | None,
        BeforeValidator(_check_text),
        Field(description="Time at which the key expires. Default: never.", examples=["2030-01-31T12:00:00Z"]),
    ] = None


def check_key(name: str, scopes: Sequence[str]) -> None:
    """Raise Invalid if the API would refuse a key of that name and with those scopes."""
    try:
        ApiKeyBody.model_validate({"name": name, "scopes": [*scopes]})
    except ValidationError as error:
        raise Invalid(*problems_of_body(error)) from error


class ApiKeyView(ResponseBody):
    """A stored key, of which only the prefix is known."""

    id: str = Field(examples=["key-2c1f0a9b3d"])
    name: str = Field(examples=["ci"])
    prefix: str = Field(examples=["lr_AbCdE"])
    scopes: list[str] = Field(examples=[["submit"]])
    created_at: datetime = Field(examples=["2030-01-01T12:00:00Z"])
    expires_at: datetime | None = Field(examples=["2030-01-31T12:00:00Z"])
    last_used_at: datetime | None = Field(
        description="Time of the last known use, which may be ten minutes old; null if the key was never used.",
        examples=["2030-01-02T08:00:00Z"],
    )


class NewApiKeyView(ApiKeyView):
    """A new key."""

    key: str = Field(description="The key itself, which is shown only once.", examples=[f"lr_{'AbCdE' * 8}AbC"])


class ApiKeyList(ResponseBody):
    """All stored keys."""

    api_keys: list[ApiKeyView]


@router.get("/api/api-keys", responses=answers(200, ApiKeyList, "All stored keys"), summary="List API keys")
async def list_api_keys(request: Request) -> Response:
    """List the stored keys by prefix, newest first. The keys of SUBMIT_API_KEYS are not included."""
    services = services_of(request)
    stored = await services.store.list(Secret, _LABELS)
    newest_first = sorted(stored, key=seniority, reverse=True)
    return json_response({"apiKeys": [_view(secret, services) for secret in newest_first]})


@router.post(
    "/api/api-keys",
    status_code=201,
    responses=answers(201, NewApiKeyView, "The new key", 400, 409, 413, 415, 422),
    summary="Create an API key",
)
async def create_api_key(request: Request, body: ApiKeyBody, idempotency_key: IdempotencyKey = None) -> Response:
    """Create a key. It is valid at once, and only this response shows it."""
    services = services_of(request)
    intent = Intent.of(idempotency_key, caller_of(request).id, body)
    nonce = idempotency_key or secrets.token_urlsafe(32)
    secret = await _find_earlier(services, intent)
    if secret is None:
        salt = secrets.token_urlsafe(32)
        key = derived_key(credential_of(request).text, nonce, salt)
        secret = await _store(services, intent, _key_secret(body, key, salt, intent, services.clock.now()))
    key = derived_key(credential_of(request).text, nonce, secret.data[_SALT])
    if hash_key(key) != secret.data["hash"]:
        message = (
            "this request has already created a key, which cannot be shown again: the caller's own key has changed"
        )
        raise Conflict(message)
    await services.api_keys.wait_until(secret.name, indexed=True)
    return json_response(_view(secret, services) | {"key": key}, 201)


async def _find_earlier(services: Services, intent: Intent | None) -> Secret | None:
    """Return the Secret that an earlier request with the same Idempotency-Key created, if any."""
    return intent.first_match(await services.store.list(Secret, _LABELS)) if intent else None


def _key_secret(body: ApiKeyBody, key: str, salt: str, intent: Intent | None, now: datetime) -> Secret:
    """Return the Secret of a new key. Raises Invalid if the key is already expired."""
    if body.expires_at and body.expires_at <= now:
        raise Invalid(Problem("expiresAt", "must be in the future"))
    secret = key_secret(body.name, key, list(dict.fromkeys(body.scopes)), body.expires_at)
    metadata = replace(secret.metadata, annotations=intent.annotations if intent else {})
    return replace(secret, metadata=metadata, data=secret.data | {_SALT: salt})


async def _store(services: Services, intent: Intent | None, secret: Secret) -> Secret:
    """Store the Secret, or return what a concurrent request with the same Idempotency-Key has stored."""
    try:
        return await services.store.create(secret)
    except Conflict as error:
        if earlier := await _find_earlier(services, intent):
            return earlier
        raise value_taken("name", f"there is already a key named {secret.data['name']!r}") from error


@router.delete(
    "/api/api-keys/{key_id}",
    status_code=204,
    responses=answers(204, None, "The key is revoked", 404),
    summary="Revoke an API key",
)
async def revoke_api_key(request: Request, key_id: KeyId) -> Response:
    """Revoke a key. It is refused from now on.

    If it is the key in the engine's `admin.key`, the file is deleted, and the next start writes a new one.
    """
    services = services_of(request)
    try:
        secret = await services.store.get(Secret, key_id)
        if secret.metadata.labels.get(API_KEY_LABEL) != API_KEY_LABEL_VALUE:
            raise NotFound(key_id)
        delete_revoked(services.settings.admin_key_file, secret)
        await services.store.delete(Secret, key_id)
    except NotFound as error:
        raise NotFound(f"there is no API key {key_id!r}") from error
    await services.api_keys.wait_until(key_id, indexed=False)
    return Response(status_code=204)


def _view(secret: Secret, services: Services) -> dict[str, Any]:
    return {
        "id": secret.name,
        "name": secret.data.get("name", secret.name),
        "prefix": secret.data.get("prefix", ""),
        "scopes": secret.data.get("scopes", SUBMIT).split(","),
        "createdAt": secret.metadata.created_at,
        "expiresAt": _shown_expiry(secret),
        "lastUsedAt": services.key_uses.last_use(secret),
    }


def _shown_expiry(secret: Secret) -> datetime | str | None:
    """Return the expiry in UTC. An invalid one, written with kubectl, is returned unchanged."""
    try:
        return expiry_of(secret)
    except ValueError:
        return secret.data["expiresAt"]
