"""WebhookSources: senders of events, their signing secrets, and the settings of their jobs."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import Request
from msgspec.structs import replace
from pydantic import Field, StringConstraints
from starlette.responses import Response

from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.resources import (
    NO_VERSION,
    ResourceVersion,
    check_version,
    create_resource,
    get_resource,
    update_resource,
)
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Label, Name, PatchBody, Provider, RequestBody, ResponseBody, optional
from labrats.api.schemas.patterns import DATA_KEY, NAME, REPOSITORY, URL_PATH
from labrats.api.schemas.report import ReportBody, ReportView, report_of
from labrats.api.schemas.submission import ConfigBody, job_config
from labrats.api.services import Services
from labrats.model.condition import Condition
from labrats.model.core_resources import Secret
from labrats.model.effort import Effort
from labrats.model.errors import Conflict, Invalid, Problem
from labrats.model.job import KeyReference
from labrats.model.record import Metadata
from labrats.model.webhook_source import (
    DEFAULT_ASSOCIATIONS,
    GITHUB,
    POLL,
    SHORTEST_SECRET,
    RepoOverride,
    WebhookSource,
    WebhookSourceSpec,
    own_secret_name,
)

router = api_router("Webhook sources")

SIGNING_KEY: Final = "secret"
"""The key within the Secret that stores the `secret` of a request."""

MAX_NAME_LENGTH: Final = 40
"""Limit with room for longer names that are derived from a source's name."""

MAX_OVERRIDES: Final = 1000

MAX_REPOSITORIES: Final = 50
"""Limit of the repositories that one source reads: each is asked once a minute, one after the other."""

POLL_PROBLEM: Final = "the mode `poll` needs the type `github`, a `credentialsRef`, and `repositories`"

REFUSED_PERIOD: Final = timedelta(days=1)
"""The time in which refused deliveries count as recent."""

_EXAMPLE: Final[dict[str, Any]] = {
    "name": "github",
    "type": "github",
    "secret": "a-long-random-text",
    "defaults": {"model": "opus"},
    "repoOverrides": {"octocat/hello-world": {"effort": "high"}},
}

SourceName = Annotated[str, Field(description="The WebhookSource's name.", examples=["github"])]
NewName = Annotated[Name, StringConstraints(max_length=MAX_NAME_LENGTH)]
Association = Literal[
    "COLLABORATOR", "CONTRIBUTOR", "FIRST_TIMER", "FIRST_TIME_CONTRIBUTOR", "MANNEQUIN", "MEMBER", "NONE", "OWNER"
]
RepoName = Annotated[str, StringConstraints(max_length=200, pattern=REPOSITORY)]
SigningSecret = Annotated[str, StringConstraints(min_length=SHORTEST_SECRET, max_length=1024)]
Host = Annotated[str, StringConstraints(max_length=253, pattern=NAME)]
Path = Annotated[str, StringConstraints(max_length=500, pattern=URL_PATH)]
_MODE_DESCRIPTION: Final = (
    "`webhook`: the sender delivers its events to the engine. `poll`: the engine reads them from GitHub every minute, "
    "and needs no public address."
)
_SIGNING_DESCRIPTION: Final = (
    "The signing secret of deliveries. It is stored in a Secret of the source, and never shown."
)
_CREDENTIALS_DESCRIPTION: Final = (
    "The Secret with a GitHub App's `appId` and `privateKey`, or with a `token`. Each job gets a token to clone its "
    "repository. With a `signingKey` and its `committer`, pushed commits are signed."
)


class KeyReferenceBody(RequestBody):
    """One key of a Secret."""

    name: Name = Field(description="The name of the Secret.", examples=["github-webhook"])
    key: Annotated[str, StringConstraints(pattern=DATA_KEY)] = Field(
        description="The key in the Secret.", examples=["secret"]
    )


class RepoOverrideBody(RequestBody):
    """Settings for the jobs of one repository."""

    enabled: bool = Field(default=True, description="False ignores the repository's events.")
    model: Label | None = Field(default=None, description="The provider's name for the model.")
    effort: Effort | None = Field(default=None, description="Reasoning effort of the model.")
    provider: Provider | None = Field(default=None, description="The provider that runs the jobs.")
    agent_trigger_name: Label | None = Field(
        default=None, description="The only agent that receives this repository's events."
    )
    report: ReportBody | None = None


class WebhookSourceBody(RequestBody):
    """A source of webhooks."""

    model_config = RequestBody.model_config | {"json_schema_extra": {"examples": [_EXAMPLE]}}

    name: NewName = Field(examples=["github"])
    type: Literal["github", "generic"] = Field(description="The format of deliveries and of their signatures.")
    enabled: bool = Field(default=True, description="A disabled source refuses deliveries.")
    mode: Literal["webhook", "poll"] = Field(default="webhook", description=_MODE_DESCRIPTION)
    repositories: list[RepoName] = Field(
        default=[],
        max_length=MAX_REPOSITORIES,
        description="The repositories that are read in the mode `poll`.",
        examples=[["octocat/hello-world"]],
    )
    secret: SigningSecret | None = Field(
        default=None, description=_SIGNING_DESCRIPTION, examples=["a-long-random-text"]
    )
    secret_ref: KeyReferenceBody | None = None
    host: Host | None = Field(
        default=None, description="The host of the Ingress, on a cluster.", examples=["hooks.example.com"]
    )
    path: Path | None = Field(
        default=None, description="The path of the Ingress, on a cluster.", examples=["/webhooks/github"]
    )
    ingress_class_name: Name | None = Field(
        default=None, description="The class of the Ingress, on a cluster. Default: the cluster's default class."
    )
    tls_secret_name: Name | None = Field(
        default=None, description="The Secret with the host's TLS certificate, on a cluster."
    )
    defaults: ConfigBody = Field(default=ConfigBody(), description="Settings for its jobs.")
    repo_overrides: dict[RepoName, RepoOverrideBody] = Field(
        default={}, max_length=MAX_OVERRIDES, description="Different settings for some repositories, by `owner/repo`."
    )
    allowed_associations: list[Association] = Field(
        default=list(DEFAULT_ASSOCIATIONS),
        max_length=20,
        description="Authors who may start a run, by their association with the repository.",
    )
    allow_forks: bool = Field(default=False, description="Allows pull requests from forks to start a run.")
    credentials_ref: Name | None = Field(default=None, description=_CREDENTIALS_DESCRIPTION)
    report: ReportBody | None = None


class WebhookSourcePatch(PatchBody):
    """Fields to change. Absent fields keep their value; null clears a nullable field."""

    read_only = frozenset({"id", "name", "url", "conditions", "lastDeliveryAt", "deliveries", "refusedDeliveries"}) | {
        "lastPolledAt",
        "nextPollAt",
        "rateRemaining",
    }

    model_config = RequestBody.model_config | {
        "json_schema_extra": {"examples": [{"repoOverrides": {"octocat/hello-world": {"model": "opus"}}}]}
    }

    type: Literal["github", "generic"] = optional()
    enabled: bool = optional()
    mode: Literal["webhook", "poll"] = optional(description=_MODE_DESCRIPTION)
    repositories: list[RepoName] = optional(max_length=MAX_REPOSITORIES)
    secret: SigningSecret = optional(description=_SIGNING_DESCRIPTION)
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
    report: ReportBody | None = None
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
    report: ReportView = optional(description="The report of its jobs to GitHub; absent if not set.")


class ConditionView(ResponseBody):
    """A condition, as in Kubernetes."""

    type: str = Field(examples=["Ready"])
    status: str = Field(examples=["True"])
    reason: str = Field(examples=["Serving"])
    message: str = Field(examples=["deliveries are received"])
    last_transition_time: datetime = Field(examples=["2030-01-01T12:00:00Z"])


class WebhookSourceView(ResponseBody):
    """A source of webhooks and its status."""

    id: str = Field(examples=["github"])
    name: str = Field(examples=["github"])
    type: str = Field(examples=["github"])
    enabled: bool = Field(examples=[True])
    mode: str = Field(examples=["webhook"])
    repositories: list[str] = Field(examples=[["octocat/hello-world"]])
    secret_ref: KeyReferenceView | None
    host: str | None = Field(examples=["hooks.example.com"])
    path: str | None = Field(examples=["/webhooks/github"])
    ingress_class_name: str | None = Field(examples=["nginx"])
    tls_secret_name: str | None = Field(examples=["hooks-tls"])
    defaults: dict[str, Any] = Field(description="Settings as in a submission. Unset fields are absent.")
    repo_overrides: dict[str, RepoOverrideView]
    allowed_associations: list[str] = Field(examples=[["OWNER", "MEMBER", "COLLABORATOR"]])
    allow_forks: bool = Field(examples=[False])
    credentials_ref: str | None = Field(examples=["github-app"])
    report: ReportView = optional(description="The report of its jobs to GitHub; absent if not set.")
    url: str | None = Field(
        description="The URL for deliveries; null if it is not known yet.",
        examples=["https://labrats.example.com/webhooks/github"],
    )
    conditions: list[ConditionView]
    last_delivery_at: datetime | None = Field(examples=["2030-01-01T12:00:00Z"])
    deliveries: int = Field(description="Number of accepted deliveries, updated every few seconds.", examples=[12])
    refused_deliveries: int = Field(
        description="Number of deliveries refused in the last 24 hours, at most 20.", examples=[1]
    )
    last_polled_at: datetime | None = Field(
        description="The time at which repositories were last read, in the mode `poll`.",
        examples=["2030-01-01T12:00:00Z"],
    )
    next_poll_at: datetime | None = Field(examples=["2030-01-01T12:01:00Z"])
    rate_remaining: int | None = Field(
        description="Number of requests that GitHub allows until the end of its hour.", examples=[4980]
    )
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
    """List all WebhookSources."""
    found = await services_of(request).store.list(WebhookSource)
    return json_response({"webhookSources": [_view(each, request) for each in found]})


@router.post(
    "/api/webhook-sources",
    status_code=201,
    responses=answers(201, WebhookSourceView, "The new source", 400, 409, 413, 415, 422),
    summary="Add a webhook source",
)
async def create_webhook_source(
    request: Request, body: WebhookSourceBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """Add a source. Deliveries are signed with its `secret`, or with the key that `secretRef` names."""
    services = services_of(request)
    _check_secret(body)
    intent = Intent.of(idempotency_key, caller_of(request).id, body)
    async with services.catalog.changing:
        if intent and (earlier := intent.first_match(services.catalog.webhook_sources)):
            return services.idempotency_cache.again(request, intent, _view(earlier, request))
        metadata = Metadata(name=body.name, annotations=intent.annotations if intent else {})
        source = WebhookSource(metadata=metadata, spec=_checked(WebhookSourceSpec(**_fields(body, body.name))))
        parts = [_own_secret(body.name, body.secret)] if body.secret else []
        created = await create_resource(services, source, intent, parts)
        services.catalog.put(created)
    return services.idempotency_cache.created(request, intent, _view(created, request))


@router.get(
    "/api/webhook-sources/{name}",
    responses=answers(200, WebhookSourceView, "The source", 404),
    summary="Get a webhook source",
)
async def get_webhook_source(request: Request, name: SourceName) -> Response:
    """Get one WebhookSource and its status."""
    return json_response(_view(await get_resource(services_of(request), WebhookSource, name), request))


@router.patch(
    "/api/webhook-sources/{name}",
    responses=answers(200, WebhookSourceView, "The changed source", 400, 404, 409, 413, 415, 422),
    summary="Change a webhook source",
)
async def change_webhook_source(request: Request, name: SourceName, body: WebhookSourcePatch) -> Response:
    """Change some fields. A new `secret` replaces the old one at once."""
    services = services_of(request)
    _check_secret(body)
    changes = _fields(body, name)
    async with services.catalog.changing:
        source = await get_resource(services, WebhookSource, name)
        body.check_read_only(_view(source, request))
        if body.secret:
            check_version(source, body.resource_version)  # before the secret is replaced, which cannot be undone
            await _store_secret(services, source, body.secret)
        changed = await update_resource(
            services,
            WebhookSource,
            name,
            body.resource_version,
            lambda source: replace(source, spec=_checked(replace(source.spec, **changes))),
        )
        services.catalog.put(changed)
    return json_response(_view(changed, request))


@router.delete(
    "/api/webhook-sources/{name}",
    status_code=204,
    responses=answers(204, None, "The source is removed", 404),
    summary="Remove a webhook source",
)
async def delete_webhook_source(request: Request, name: SourceName) -> Response:
    """Remove a source and the Secret that stores its `secret`. Its jobs continue."""
    services = services_of(request)
    async with services.catalog.changing:
        source = await get_resource(services, WebhookSource, name)
        await services.store.delete(WebhookSource, name)
        services.catalog.remove(source)
    return Response(status_code=204)


def _check_secret(body: WebhookSourceBody | WebhookSourcePatch) -> None:
    """Raise Invalid unless a new source has exactly one secret, and a change at most one."""
    if body.secret and body.secret_ref:
        raise Invalid(Problem("secretRef", "must be left out if there is a `secret`"))
    if isinstance(body, WebhookSourceBody) and body.mode != POLL and not (body.secret or body.secret_ref):
        raise Invalid(Problem("secret", "is required unless `secretRef` is set"))


def _checked(spec: WebhookSourceSpec) -> WebhookSourceSpec:
    """Return the spec. Raises Invalid if it lacks what its mode needs."""
    if not spec.polls:
        return spec
    missing = {
        "type": spec.type != GITHUB,
        "credentialsRef": spec.credentials_ref is None,
        "repositories": not spec.repositories,
    }
    if problems := [Problem(name, POLL_PROBLEM) for name, lacks in missing.items() if lacks]:
        raise Invalid(*problems)
    return spec


def _fields(body: WebhookSourceBody | WebhookSourcePatch, name: str) -> dict[str, Any]:
    """Convert the sent fields to those of WebhookSourceSpec. name: the source's."""
    special = {"name", "secret", "resource_version"}
    fields: dict[str, Any] = {each: getattr(body, each) for each in body.model_fields_set - special}
    if body.secret:
        fields["secret_ref"] = KeyReference(name=own_secret_name(name), key=SIGNING_KEY)
    elif body.secret_ref:
        fields["secret_ref"] = KeyReference(**body.secret_ref.model_dump())
    if "defaults" in fields:
        fields["defaults"] = job_config(body.defaults)
    if "repo_overrides" in fields:
        fields["repo_overrides"] = {repo: _override(each) for repo, each in body.repo_overrides.items()}
    if body.report is not None:
        fields["report"] = report_of(body.report)
    if "repositories" in fields:
        fields["repositories"] = tuple(body.repositories)
    if "allowed_associations" in fields:
        fields["allowed_associations"] = tuple(body.allowed_associations)
    return fields


def _override(body: RepoOverrideBody) -> RepoOverride:
    return RepoOverride(**body.model_dump(exclude={"report"}), report=report_of(body.report))


def _own_secret(name: str, secret: str) -> Secret:
    return Secret(metadata=Metadata(name=own_secret_name(name)), data={SIGNING_KEY: secret})


async def _store_secret(services: Services, source: WebhookSource, text: str) -> None:
    """Store `text` in the source's own Secret. Raises Conflict if the Secret of that name has another owner."""
    secret = _own_secret(source.name, text)
    try:
        await services.store.create(replace(secret, metadata=replace(secret.metadata, owner=source.as_owner())))
        return
    except Conflict:
        stored = await get_resource(services, Secret, secret.name)
    if stored.metadata.owner != source.as_owner():
        raise Conflict(f"the Secret {secret.name!r} does not belong to the webhook source; name it in `secretRef`")
    await services.store.update(replace(stored, data=secret.data))


def _view(source: WebhookSource, request: Request) -> dict[str, Any]:
    spec, status = source.spec, source.status
    return ({"report": spec.report} if spec.report else {}) | {
        "id": source.name,
        "name": source.name,
        "type": spec.type,
        "enabled": spec.enabled,
        "mode": spec.mode,
        "repositories": spec.repositories,
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
        "url": None if spec.polls and spec.secret_ref is None else status.url or _own_url(source, request),
        "conditions": _condition_views(status.conditions),
        "lastDeliveryAt": status.last_delivery_at,
        "deliveries": status.deliveries,
        "refusedDeliveries": len(status.refused_since(services_of(request).clock.now() - REFUSED_PERIOD)),
        "lastPolledAt": status.last_polled_at,
        "nextPollAt": status.next_poll_at,
        "rateRemaining": status.rate_remaining,
        "resourceVersion": source.metadata.resource_version,
    }


def _override_view(override: RepoOverride) -> dict[str, Any]:
    return ({"report": override.report} if override.report else {}) | {
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
    """Return the URL at which this engine receives deliveries; None on a cluster, where a receiver reports its URL."""
    settings = services_of(request).settings
    if settings.backend == "kubernetes":
        return None
    return f"{settings.public_url or str(request.base_url).rstrip('/')}/webhooks/{source.name}"
