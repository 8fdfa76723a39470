"""The engine-wide settings for jobs (AiConfig), and stubs for old front ends."""

from typing import Annotated, Any

import msgspec
from fastapi import Request
from msgspec.structs import replace
from pydantic import ConfigDict, Field, RootModel, StringConstraints, field_validator
from starlette.responses import Response

from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.resources import ResourceVersion
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import Label, Provider, RequestBody, ResponseBody, optional
from labrats.api.schemas.patterns import FILE_NAME, QUANTITY, SHA256, WEB_ADDRESS
from labrats.api.services import Services
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfig, AiConfigSpec
from labrats.model.effort import Effort
from labrats.model.errors import Conflict, NotFound
from labrats.model.provider_spec import LOCAL_PROVIDERS
from labrats.model.record import Metadata
from labrats.ports import compare_and_set

router = api_router("Configuration")

Quantity = Annotated[str, StringConstraints(max_length=40, pattern=QUANTITY)]
Quantities = dict[Annotated[str, StringConstraints(min_length=1, max_length=100)], Quantity | None]


class ModelFileBody(RequestBody):
    """A file that may be downloaded for a local model."""

    filename: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=FILE_NAME)] = Field(
        description="The file's name on the models volume."
    )
    url: Annotated[str, StringConstraints(max_length=2048, pattern=WEB_ADDRESS)] = Field(
        description="The address to download the file from."
    )
    sha256: Annotated[str, StringConstraints(pattern=SHA256)] | None = Field(
        default=None, description="The expected SHA-256. A file with another is discarded."
    )


class ProviderConfigBody(RequestBody):
    """Default settings for the jobs of one provider."""

    model: Label | None = Field(default=None, description="The provider's name for the model.", examples=["opus"])
    effort: Effort | None = Field(default=None, description="Reasoning effort of the model.")
    files: list[ModelFileBody] = Field(
        default=[], max_length=100, description="Files that may be downloaded, for local providers."
    )


class ResourcesBody(RequestBody):
    """Resource requests and limits of an attempt's container, as in a pod."""

    requests: Quantities | None = Field(default=None, examples=[{"cpu": "500m", "memory": "1Gi"}])
    limits: Quantities | None = Field(default=None, examples=[{"cpu": "2", "memory": "4Gi"}])


class DefaultsBody(RequestBody):
    """Settings to change. At every depth, absent fields keep their value and null removes one. Lists are replaced."""

    model: Label | None = Field(
        default=None, description="The model of jobs whose provider has none in `providers`.", examples=["sonnet"]
    )
    effort: Effort | None = Field(default=None, description="Reasoning effort of the model.", examples=["medium"])
    executor_image: Label | None = Field(default=None, description="The container image of attempts, on Kubernetes.")
    executor_resources: ResourcesBody | None = None
    providers: dict[Provider, ProviderConfigBody | None] | None = Field(
        default=None, description="Settings by provider."
    )
    resource_version: ResourceVersion | None = Field(
        default=None,
        description="The expected version: any other refuses the change. Null refuses it if settings exist.",
    )

    @field_validator("providers")
    @classmethod
    def _files_are_local(cls, providers: dict[str, Any] | None) -> dict[str, Any] | None:
        for name, config in (providers or {}).items():
            if config and config.files and name not in LOCAL_PROVIDERS:
                raise ValueError(f"{name} has no files: only {', '.join(LOCAL_PROVIDERS)} run models from files")
        return providers


class ProviderConfigView(ResponseBody):
    """Default settings for the jobs of one provider. Unset fields are absent."""

    model: str = optional(examples=["opus"])
    effort: str = optional(examples=["high"])
    files: list[dict[str, Any]] = optional()


class DefaultsView(ResponseBody):
    """Default settings for jobs."""

    model: str | None = Field(examples=["sonnet"])
    effort: str | None = Field(examples=["medium"])
    executor_image: str | None
    executor_resources: dict[str, dict[str, str]] = Field(examples=[{"limits": {"cpu": "2", "memory": "4Gi"}}])
    providers: dict[str, ProviderConfigView] = Field(examples=[{"codex": {"model": "o3"}}])
    resource_version: str | None = Field(description="Null before the first change.", examples=["17"])


class SourceConfigs(ResponseBody):
    """Always empty."""

    sources: list[Any] = Field(examples=[[]])


class SourceConfig(ResponseBody):
    """Always empty."""

    source: str = Field(examples=["github"])
    model: str = Field(examples=[""])
    effort: str = Field(examples=[""])


class Anything(RootModel[dict[str, Any]]):
    """Any object."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "opus"}]})


class RemovedSource(ResponseBody):
    """The source whose removal was requested."""

    removed: str = Field(examples=["github"])


SourceName = Annotated[str, Field(examples=["github"])]


@router.get(
    "/api/config/defaults",
    responses=answers(200, DefaultsView, "The settings"),
    summary="Get the default settings",
)
async def get_defaults(request: Request) -> Response:
    """Get the settings that jobs use unless they, their trigger, their webhook source or their agent set others."""
    return json_response(_view(await read_config(services_of(request))))


@router.put(
    "/api/config/defaults",
    responses=answers(200, DefaultsView, "The changed settings", 400, 409, 413, 415, 422),
    summary="Change the default settings",
)
async def put_defaults(request: Request, body: DefaultsBody) -> Response:
    """Merge the request into the settings. New jobs use the result."""
    services = services_of(request)
    changes = body.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"resource_version"})
    version = body.resource_version or "" if "resource_version" in body.model_fields_set else None
    async with services.catalog.changing:
        written = await _write_merged(services, changes, version)
        services.catalog.put(written)
    return json_response(_view(written))


async def _write_merged(services: Services, changes: dict[str, Any], version: str | None) -> AiConfig:
    """Store the settings with `changes` merged into them.

    version: the expected resource version, if any; empty if no settings may exist yet. Raises Conflict.
    """

    def merge(current: AiConfig) -> AiConfig:
        if version is not None and version != current.metadata.resource_version:
            reason = f"were changed since version {version}" if version else "exist already"
            raise Conflict(f"the settings {reason}; read them again")
        return replace(current, spec=msgspec.convert(merged(msgspec.to_builtins(current.spec), changes), AiConfigSpec))

    _, written = await compare_and_set(services.store, lambda: read_config(services), merge)
    return written


async def read_config(services: Services) -> AiConfig:
    try:
        return await services.store.get(AiConfig, AI_CONFIG_NAME)
    except NotFound:
        return AiConfig(metadata=Metadata(name=AI_CONFIG_NAME), spec=AiConfigSpec())


def merged(stored: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `stored` with `changes` merged into it, as in RFC 7396."""
    result = {name: value for name, value in stored.items() if name not in changes}
    for name, value in changes.items():
        if isinstance(value, dict):
            result[name] = merged(stored.get(name) or {}, value)
        elif value is not None:
            result[name] = value
    return result


def _view(config: AiConfig) -> dict[str, Any]:
    spec = config.spec
    return {
        "model": spec.model,
        "effort": spec.effort,
        "executorImage": spec.executor_image,
        "executorResources": spec.executor_resources,
        "providers": {
            name: {field: value for field in each.__struct_fields__ if (value := getattr(each, field))}
            for name, each in spec.providers.items()
        },
        "resourceVersion": config.metadata.resource_version or None,
    }


@router.get(
    "/api/config/sources",
    responses=answers(200, SourceConfigs, "An empty list"),
    summary="List settings by source (stub)",
)
async def list_source_configs(request: Request) -> Response:
    """Return an empty list, for old front ends. A source's settings are in its WebhookSource."""
    return json_response({"sources": []})


@router.get(
    "/api/config/sources/{source}",
    responses=answers(200, SourceConfig, "Empty settings", 404),
    summary="Get the settings of a source (stub)",
)
async def get_source_config(request: Request, source: SourceName) -> Response:
    """Return empty settings, for old front ends."""
    return json_response({"source": source, "model": "", "effort": ""})


@router.put(
    "/api/config/sources/{source}",
    responses=answers(200, Anything, "The request's body", 400, 404, 413, 415, 422),
    summary="Change the settings of a source (stub)",
)
async def put_source_config(request: Request, source: SourceName, body: Anything) -> Response:
    """Return the body and store nothing, for old front ends."""
    return json_response(body.root)


@router.delete(
    "/api/config/sources/{source}",
    responses=answers(200, RemovedSource, "Nothing was removed", 404),
    summary="Remove the settings of a source (stub)",
)
async def delete_source_config(request: Request, source: SourceName) -> Response:
    """Return the source and remove nothing, for old front ends."""
    return json_response({"removed": source})
