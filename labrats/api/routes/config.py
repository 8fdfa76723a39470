"""What jobs use unless somebody says otherwise (AiConfig), and stubs that old front ends still ask."""

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
from labrats.api.schemas.base import Effort, Label, Provider, RequestBody, ResponseBody, optional
from labrats.api.schemas.patterns import FILE_NAME, QUANTITY, SHA256, WEB_ADDRESS
from labrats.api.services import Services
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfig, AiConfigSpec
from labrats.model.config import LOCAL_PROVIDERS
from labrats.model.errors import Conflict, NotFound
from labrats.model.record import Metadata
from labrats.ports import compare_and_set

router = api_router("Configuration")

Quantity = Annotated[str, StringConstraints(max_length=40, pattern=QUANTITY)]
Quantities = dict[Annotated[str, StringConstraints(min_length=1, max_length=100)], Quantity | None]


class ModelFileBody(RequestBody):
    """A file that may be downloaded for a local model."""

    filename: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=FILE_NAME)] = Field(
        description="What it is called on the volume of models."
    )
    url: Annotated[str, StringConstraints(max_length=2048, pattern=WEB_ADDRESS)] = Field(
        description="Where it is downloaded from."
    )
    sha256: Annotated[str, StringConstraints(pattern=SHA256)] | None = Field(
        default=None, description="Of its contents: a file with others is not kept."
    )


class ProviderConfigBody(RequestBody):
    """What jobs of one provider use unless they say otherwise."""

    model: Label | None = Field(default=None, description="By the provider's name for it.", examples=["opus"])
    effort: Effort | None = Field(default=None, description="How much the model thinks.")
    files: list[ModelFileBody] = Field(
        default=[], max_length=100, description="Of local providers: what may be downloaded."
    )


class ResourcesBody(RequestBody):
    """What an attempt's container asks for and may use, as in a pod."""

    requests: Quantities | None = Field(default=None, examples=[{"cpu": "500m", "memory": "1Gi"}])
    limits: Quantities | None = Field(default=None, examples=[{"cpu": "2", "memory": "4Gi"}])


class DefaultsBody(RequestBody):
    """What to change: absent fields stay, null takes a setting away, at every depth. Lists are replaced."""

    model: Label | None = Field(default=None, description="Of jobs whose provider has none below.", examples=["sonnet"])
    effort: Effort | None = Field(default=None, description="How much models think.", examples=["medium"])
    executor_image: Label | None = Field(default=None, description="What attempts run, on Kubernetes.")
    executor_resources: ResourcesBody | None = None
    providers: dict[Provider, ProviderConfigBody | None] | None = Field(
        default=None, description="By the provider's name."
    )
    resource_version: ResourceVersion | None = Field(
        default=None, description="Refuses the change when it is no longer current; null, when somebody has set any."
    )

    @field_validator("providers")
    @classmethod
    def _files_are_local(cls, providers: dict[str, Any] | None) -> dict[str, Any] | None:
        for name, config in (providers or {}).items():
            if config and config.files and name not in LOCAL_PROVIDERS:
                raise ValueError(f"{name} has no files: only {', '.join(LOCAL_PROVIDERS)} run models from files")
        return providers


class ProviderConfigView(ResponseBody):
    """What jobs of one provider use unless they say otherwise: what is set of it."""

    model: str = optional(examples=["opus"])
    effort: str = optional(examples=["high"])
    files: list[dict[str, Any]] = optional()


class DefaultsView(ResponseBody):
    """What jobs use unless somebody says otherwise."""

    model: str | None = Field(examples=["sonnet"])
    effort: str | None = Field(examples=["medium"])
    executor_image: str | None
    executor_resources: dict[str, dict[str, str]] = Field(examples=[{"limits": {"cpu": "2", "memory": "4Gi"}}])
    providers: dict[str, ProviderConfigView] = Field(examples=[{"codex": {"model": "o3"}}])
    resource_version: str | None = Field(description="Null while nobody has set anything.", examples=["17"])


class SourceConfigs(ResponseBody):
    """Always none."""

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
    """What was asked to be removed."""

    removed: str = Field(examples=["github"])


SourceName = Annotated[str, Field(examples=["github"])]


@router.get(
    "/api/config/defaults",
    responses=answers(200, DefaultsView, "The settings of the engine"),
    summary="The engine's settings for jobs",
)
async def get_defaults(request: Request) -> Response:
    """What jobs use unless they, their trigger, their webhook source or their agent say otherwise."""
    return json_response(_view(await _stored(services_of(request))))


@router.put(
    "/api/config/defaults",
    responses=answers(200, DefaultsView, "The settings as they are now", 400, 409, 413, 415, 422),
    summary="Change the engine's settings for jobs",
)
async def put_defaults(request: Request, asked: DefaultsBody) -> Response:
    """Merge these settings into what there is. Jobs made from now on get them."""
    services = services_of(request)
    changes = asked.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"resource_version"})
    version = asked.resource_version or "" if "resource_version" in asked.model_fields_set else None
    async with services.catalog.changing:
        written = await _write_merged(services, changes, version)
        services.catalog.put(written)
    return json_response(_view(written))


async def _write_merged(services: Services, changes: dict[str, Any], version: str | None) -> AiConfig:
    """version: the one that they must still have, if any; empty where there must be none yet. Raises Conflict."""

    def with_changes(found: AiConfig) -> AiConfig:
        if version is not None and version != found.metadata.resource_version:
            since = f"version {version}" if version else "there were none"
            raise Conflict(f"the settings were changed since {since}; read them again")
        return replace(found, spec=msgspec.convert(merged(msgspec.to_builtins(found.spec), changes), AiConfigSpec))

    _, written = await compare_and_set(services.store, lambda: _stored(services), with_changes)
    return written


async def _stored(services: Services) -> AiConfig:
    try:
        return await services.store.get(AiConfig, AI_CONFIG_NAME)
    except NotFound:
        return AiConfig(metadata=Metadata(name=AI_CONFIG_NAME), spec=AiConfigSpec())


def merged(stored: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` merged into `stored`, as RFC 7396 has it."""
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
    responses=answers(200, SourceConfigs, "None"),
    summary="Settings by source (a stub)",
)
async def list_source_configs(request: Request) -> Response:
    """There are none. Kept for old front ends; the settings of a source are those of its WebhookSource."""
    return json_response({"sources": []})


@router.get(
    "/api/config/sources/{source}",
    responses=answers(200, SourceConfig, "Nothing is set", 404),
    summary="Settings of a source (a stub)",
)
async def get_source_config(request: Request, source: SourceName) -> Response:
    """Nothing. Kept for old front ends."""
    return json_response({"source": source, "model": "", "effort": ""})


@router.put(
    "/api/config/sources/{source}",
    responses=answers(200, Anything, "The body", 400, 404, 413, 415, 422),
    summary="Set a source (a stub)",
)
async def put_source_config(request: Request, source: SourceName, asked: Anything) -> Response:
    """Answers with the body, and keeps nothing. Kept for old front ends."""
    return json_response(asked.root)


@router.delete(
    "/api/config/sources/{source}",
    responses=answers(200, RemovedSource, "Nothing was removed", 404),
    summary="Remove a source's settings (a stub)",
)
async def delete_source_config(request: Request, source: SourceName) -> Response:
    """Answers as if it had. Kept for old front ends."""
    return json_response({"removed": source})
