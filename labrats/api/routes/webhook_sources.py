"""WebhookSources: who sends events, how they prove it, and which settings their jobs get."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import Request
from msgspec.structs import replace
from pydantic import Field, StringConstraints
from starlette.responses import Response

from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.resources import NO_VERSION, ResourceVersion, change, create, stored
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Effort, Label, Name, PatchBody, Provider, RequestBody, ResponseBody, optional
from labrats.api.schemas.patterns import DATA_KEY, NAME, REPOSITORY, URL_PATH
from labrats.api.schemas.submission import ConfigBody, job_config
from labrats.api.services import Services
from labrats.model.condition import Condition
from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict, Invalid, Problem
from labrats.model.job import KeyReference
from labrats.model.record import Metadata
from labrats.model.webhook_source import (
    DEFAULT_ASSOCIATIONS,
    SHORTEST_SECRET,
    RepoOverride,
    WebhookSource,
    WebhookSourceSpec,
    own_secret_name,
)

router = api_router("Webhook sources")

SIGNING_KEY: Final = "secret"
"""The key of a Secret that was made of a `secret` in a request."""

LONGEST_NAME: Final = 40
"""Other things are named after a source, with more in their names."""

MAX_OVERRIDES: Final = 1000

_A_SOURCE: Final[dict[str, Any]] = {
    "name": "github",
    "type": "github",
    "secret": "a-long-random-text",
    "defaults": {"model": "opus"},
    "repoOverrides": {"octocat/hello-world": {"effort": "high"}},
}

SourceName = Annotated[str, Field(description="The WebhookSource's name.", examples=["github"])]
NewName = Annotated[Name, StringConstraints(max_length=LONGEST_NAME)]
Association = Literal[
    "COLLABORATOR", "CONTRIBUTOR", "FIRST_TIMER", "FIRST_TIME_CONTRIBUTOR", "MANNEQUIN", "MEMBER", "NONE", "OWNER"
]
RepoName = Annotated[str, StringConstraints(max_length=200, pattern=REPOSITORY)]
SigningSecret = Annotated[str, StringConstraints(min_length=SHORTEST_SECRET, max_length=1024)]
Host = Annotated[str, StringConstraints(max_length=253, pattern=NAME)]
Path = Annotated[str, StringConstraints(max_length=500, pattern=URL_PATH)]
_WHAT_SIGNS: Final = "What deliveries are signed with. It is kept as a Secret of the source's, and never shown."
_WHAT_CLONES: Final = (
    "The Secret with a GitHub App's `appId` and `privateKey`, or with a `token`: each job gets one for its repository."
)


class KeyReferenceBody(RequestBody):
    """One key of a Secret."""

    name: Name = Field(description="The Secret.", examples=["github-webhook"])
    key: Annotated[str, StringConstraints(pattern=DATA_KEY)] = Field(
        description="Which of its keys.", examples=["secret"]
    )


class RepoOverrideBody(RequestBody):
    """Settings for the jobs of one repository."""

    enabled: bool = Field(default=True, description="Whether its events start anything.")
    model: Label | None = Field(default=None, description="By its provider's name for it.")
    effort: Effort | None = Field(default=None, description="How much the model thinks.")
    provider: Provider | None = Field(default=None, description="What runs the jobs.")
    agent_trigger_name: Label | None = Field(
        default=None, description="The agent that takes this repository's events, in the place of any other."
    )


class WebhookSourceBody(RequestBody):
    """A source of webhooks."""

    model_config = RequestBody.model_config | {"json_schema_extra": {"examples": [_A_SOURCE]}}

    name: NewName = Field(examples=["github"])
    type: Literal["github", "generic"] = Field(description="How deliveries are signed, and what is read from them.")
    enabled: bool = Field(default=True, description="Whether deliveries are taken.")
    secret: SigningSecret | None = Field(default=None, description=_WHAT_SIGNS, examples=["a-long-random-text"])
    secret_ref: KeyReferenceBody | None = None
    host: Host | None = Field(
        default=None, description="On a cluster: what the Ingress answers to.", examples=["hooks.example.com"]
    )
    path: Path | None = Field(
        default=None, description="On a cluster: where the Ingress leads in.", examples=["/webhooks/github"]
    )
    ingress_class_name: Name | None = Field(
        default=None, description="On a cluster: which controller serves the Ingress, unless its default one does."
    )
    tls_secret_name: Name | None = Field(
        default=None, description="On a cluster: the Secret with the host's certificate."
    )
    defaults: ConfigBody = Field(default=ConfigBody(), description="The settings of its jobs.")
    repo_overrides: dict[RepoName, RepoOverrideBody] = Field(
        default={}, max_length=MAX_OVERRIDES, description="Other settings for some repositories, by `owner/repo`."
    )
    allowed_associations: list[Association] = Field(
        default=list(DEFAULT_ASSOCIATIONS), max_length=20, description="Who may start a run by what they write."
    )
    allow_forks: bool = Field(default=False, description="Whether the code of a fork may start a run.")
    credentials_ref: Name | None = Field(default=None, description=_WHAT_CLONES)


class WebhookSourcePatch(PatchBody):
    """What to change; absent fields stay, null clears those that may be null."""

    read_only = frozenset({"id", "name", "url", "conditions", "lastDeliveryAt", "deliveries"})

    model_config = RequestBody.model_config | {
        "json_schema_extra": {"examples": [{"repoOverrides": {"octocat/hello-world": {"model": "opus"}}}]}
    }

    type: Literal["github", "generic"] = optional()
    enabled: bool = optional()
    secret: SigningSecret = optional(description=_WHAT_SIGNS)
    secret_ref: KeyReferenceBody = optional()
    host: Host | None = None
    path: Path | None = None
    ingress_class_name: Name | None = None
    tls_secret_name: Name | None = None
    defaults: ConfigBody = optional()
    repo_overrides: dict[RepoName, RepoOverrideBody] = optional(max_length=MAX_OVERRIDES)
    allowed_associations: list[Association] = optional(max_length=20)
    allow_forks: bool = optional()
    credentials_ref: Name | None = None
    resource_version: ResourceVersion = NO_VERSION


class KeyReferenceView(ResponseBody):
    """One key of a Secret."""

    name: str = Field(examples=["github-webhook"])
    key: str = Field(examples=["secret"])


class RepoOverrideView(ResponseBody):
    """Settings for the jobs of one repository."""

    enabled: bool = Field(examples=[True])
    model: str | None = Field(examples=["opus"])
    effort: str | None = Field(examples=["high"])
    provider: str | None = Field(examples=["claude"])
    agent_trigger_name: str | None = Field(examples=["ai-developer"])


class ConditionView(ResponseBody):
    """How it stands in one respect."""

    type: str = Field(examples=["Ready"])
    status: str = Field(examples=["True"])
    reason: str = Field(examples=["Serving"])
    message: str = Field(examples=["deliveries are received"])
    last_transition_time: datetime = Field(examples=["2030-01-01T12:00:00Z"])


class WebhookSourceView(ResponseBody):
    """A source of webhooks, and how it stands."""

    id: str = Field(examples=["github"])
    name: str = Field(examples=["github"])
    type: str = Field(examples=["github"])
    enabled: bool = Field(examples=[True])
    secret_ref: KeyReferenceView | None
    host: str | None = Field(examples=["hooks.example.com"])
    path: str | None = Field(examples=["/webhooks/github"])
    ingress_class_name: str | None = Field(examples=["nginx"])
    tls_secret_name: str | None = Field(examples=["hooks-tls"])
    defaults: dict[str, Any] = Field(description="As in a submission; what is not set is absent.")
    repo_overrides: dict[str, RepoOverrideView]
    allowed_associations: list[str] = Field(examples=[["OWNER", "MEMBER", "COLLABORATOR"]])
    allow_forks: bool = Field(examples=[False])
    credentials_ref: str | None = Field(examples=["github-app"])
    url: str | None = Field(
        description="Where to send deliveries; null while that is not known.",
        examples=["https://labrats.example.com/webhooks/github"],
    )
    conditions: list[ConditionView]
    last_delivery_at: datetime | None = Field(examples=["2030-01-01T12:00:00Z"])
    deliveries: int = Field(description="How many were accepted; counted every few seconds.", examples=[12])
    resource_version: str = Field(examples=["17"])


class WebhookSourceList(ResponseBody):
    """All sources of webhooks."""

    webhook_sources: list[WebhookSourceView]


@router.get(
    "/api/webhook-sources",
    responses=answers(200, WebhookSourceList, "All sources, by name"),
    summary="List webhook sources",
)
async def list_webhook_sources(request: Request) -> Response:
    """All WebhookSources."""
    found = await services_of(request).store.list(WebhookSource)
    return json_response({"webhookSources": [_view(each, request) for each in found]})


@router.post(
    "/api/webhook-sources",
    status_code=201,
    responses=answers(201, WebhookSourceView, "The new source", 400, 409, 413, 415, 422),
    summary="Add a webhook source",
)
async def create_webhook_source(
    request: Request, asked: WebhookSourceBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """Add a source. Its `secret`, or the key that `secretRef` names, is what its deliveries are signed with."""
    services = services_of(request)
    _check_secret(asked)
    intent = Intent.of(idempotency_key, caller_of(request).id, asked)
    async with services.catalog.changing:
        if intent and (made := intent.first_match(services.catalog.webhook_sources)):
            return services.idempotency_cache.again(request, intent, _view(made, request))
        metadata = Metadata(name=asked.name, annotations=intent.annotations if intent else {})
        source = WebhookSource(metadata=metadata, spec=WebhookSourceSpec(**_fields(asked, asked.name)))
        parts = [_own_secret(asked.name, asked.secret)] if asked.secret else []
        created = await create(services, source, intent, parts)
        services.catalog.put(created)
    return services.idempotency_cache.created(request, intent, _view(created, request))


@router.get(
    "/api/webhook-sources/{name}",
    responses=answers(200, WebhookSourceView, "The source", 404),
    summary="A webhook source's detail",
)
async def get_webhook_source(request: Request, name: SourceName) -> Response:
    """One WebhookSource, and how it stands."""
    return json_response(_view(await stored(services_of(request), WebhookSource, name), request))


@router.patch(
    "/api/webhook-sources/{name}",
    responses=answers(200, WebhookSourceView, "The source as it is now", 400, 404, 409, 413, 415, 422),
    summary="Change a webhook source",
)
async def change_webhook_source(request: Request, name: SourceName, asked: WebhookSourcePatch) -> Response:
    """Change some fields. A new `secret` counts at once, and the old one no longer does."""
    services = services_of(request)
    _check_secret(asked)
    changes = _fields(asked, name)
    async with services.catalog.changing:
        if asked.secret:
            await _keep_secret(services, await stored(services, WebhookSource, name), asked.secret)
        changed = await change(
            services,
            WebhookSource,
            name,
            asked.resource_version,
            lambda found: replace(found, spec=replace(found.spec, **changes)),
        )
        services.catalog.put(changed)
    return json_response(_view(changed, request))


@router.delete(
    "/api/webhook-sources/{name}",
    status_code=204,
    responses=answers(204, None, "It is gone", 404),
    summary="Remove a webhook source",
)
async def delete_webhook_source(request: Request, name: SourceName) -> Response:
    """Remove a source, and the secret that was given with it. Its jobs go on."""
    services = services_of(request)
    async with services.catalog.changing:
        found = await stored(services, WebhookSource, name)
        await services.store.delete(WebhookSource, name)
        services.catalog.remove(found)
    return Response(status_code=204)


def _check_secret(asked: WebhookSourceBody | WebhookSourcePatch) -> None:
    """Raises Invalid unless a new source has one secret, and a change brings no more than one."""
    if asked.secret and asked.secret_ref:
        raise Invalid(Problem("secretRef", "must be left out where there is a `secret`"))
    if isinstance(asked, WebhookSourceBody) and not (asked.secret or asked.secret_ref):
        raise Invalid(Problem("secret", "is required, unless `secretRef` names one"))


def _fields(asked: WebhookSourceBody | WebhookSourcePatch, name: str) -> dict[str, Any]:
    """The fields that were sent, as WebhookSourceSpec has them. name: the source's."""
    left_out = {"name", "secret", "resource_version"}
    fields: dict[str, Any] = {each: getattr(asked, each) for each in asked.model_fields_set - left_out}
    if asked.secret:
        fields["secret_ref"] = KeyReference(name=own_secret_name(name), key=SIGNING_KEY)
    elif asked.secret_ref:
        fields["secret_ref"] = KeyReference(**asked.secret_ref.model_dump())
    if "defaults" in fields:
        fields["defaults"] = job_config(asked.defaults)
    if "repo_overrides" in fields:
        overrides = {repo: RepoOverride(**each.model_dump()) for repo, each in asked.repo_overrides.items()}
        fields["repo_overrides"] = overrides
    if "allowed_associations" in fields:
        fields["allowed_associations"] = tuple(asked.allowed_associations)
    return fields


def _own_secret(name: str, secret: str) -> Secret:
    return Secret(metadata=Metadata(name=own_secret_name(name)), data={SIGNING_KEY: secret})


async def _keep_secret(services: Services, source: WebhookSource, text: str) -> None:
    """Have the source's own Secret hold `text`. Raises Conflict where the Secret of that name is another's."""
    secret = _own_secret(source.name, text)
    try:
        await services.store.create(replace(secret, metadata=replace(secret.metadata, owner=source.as_owner())))
        return
    except Conflict:
        kept = await stored(services, Secret, secret.name)
    if kept.metadata.owner != source.as_owner():
        raise Conflict(f"the Secret {secret.name!r} is not one of the webhook source's; name it by `secretRef`")
    await services.store.update(replace(kept, data=secret.data))


def _view(source: WebhookSource, request: Request) -> dict[str, Any]:
    spec, status = source.spec, source.status
    return {
        "id": source.name,
        "name": source.name,
        "type": spec.type,
        "enabled": spec.enabled,
        "secretRef": spec.secret_ref and {"name": spec.secret_ref.name, "key": spec.secret_ref.key},
        "host": spec.host,
        "path": spec.path,
        "ingressClassName": spec.ingress_class_name,
        "tlsSecretName": spec.tls_secret_name,
        "defaults": spec.defaults,
        "repoOverrides": {repo: _override_view(each) for repo, each in spec.repo_overrides.items()},
        "allowedAssociations": spec.allowed_associations,
        "allowForks": spec.allow_forks,
        "credentialsRef": spec.credentials_ref,
        "url": status.url or _own_url(source, request),
        "conditions": _condition_views(status.conditions),
        "lastDeliveryAt": status.last_delivery_at,
        "deliveries": status.deliveries,
        "resourceVersion": source.metadata.resource_version,
    }


def _override_view(override: RepoOverride) -> dict[str, Any]:
    return {
        "enabled": override.enabled,
        "model": override.model,
        "effort": override.effort,
        "provider": override.provider,
        "agentTriggerName": override.agent_trigger_name,
    }


def _condition_views(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    return [
        {
            "type": each.type,
            "status": each.status,
            "reason": each.reason,
            "message": each.message,
            "lastTransitionTime": each.last_transition_time,
        }
        for each in conditions
    ]


def _own_url(source: WebhookSource, request: Request) -> str | None:
    """Where this engine receives for it itself. On a cluster a receiver of the source's own does, which says where."""
    settings = services_of(request).settings
    if settings.backend == "kubernetes":
        return None
    return f"{settings.public_url or str(request.base_url).rstrip('/')}/webhooks/{source.name}"
