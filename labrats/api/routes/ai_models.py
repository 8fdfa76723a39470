"""AiModels: the configured models and their slots."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Final

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
    create_resource,
    get_resource,
    update_resource,
    value_taken,
)
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Label, Name, PatchBody, Provider, RequestBody, ResponseBody, optional
from labrats.api.schemas.patterns import NO_NUL, VARIABLE, WEB_ADDRESS
from labrats.api.schemas.sampling import SamplingBody, SamplingView, sampling
from labrats.api.services import Services
from labrats.model.acp_programs import ACP_PROGRAMS
from labrats.model.ai_model import DEFAULT_SLOTS, AiModel, AiModelSpec, Prices
from labrats.model.core_resources import Secret
from labrats.model.errors import Invalid, NotFound, Problem
from labrats.model.list_prices import PriceSource, list_price, price_source
from labrats.model.phases import Phase
from labrats.model.provider_spec import ACP, provider_spec, supporting
from labrats.model.record import Metadata
from labrats.model.variables import LONGEST_VARIABLE, MAX_VARIABLES

router = api_router("AI models")

_AN_OPUS: Final[dict[str, Any]] = {
    "name": "claude-opus",
    "provider": "claude",
    "model": "opus",
    "slots": 4,
    "credentialsRef": "anthropic",
    "prices": {"input": 5, "output": 25, "cacheRead": 0.5, "cacheWrite": 6.25},
}

SlotCount = Annotated[
    int, Field(ge=0, le=100_000, description="Maximum number of concurrent attempts; 0 pauses the model.")
]
Endpoint = Annotated[
    str,
    Field(
        pattern=WEB_ADDRESS,
        max_length=2048,
        description="The address of the model's server. Default: the provider's.",
        examples=["http://10.0.0.5:8000/v1"],
    ),
]
Command = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=NO_NUL)]],
    Field(
        min_length=1,
        max_length=50,
        description="The program of the provider `acp` with its arguments: one that speaks the Agent Client Protocol.",
        examples=[["opencode", "acp"]],
    ),
]
ProgramEnvironment = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=LONGEST_VARIABLE, pattern=VARIABLE)],
        Annotated[str, StringConstraints(max_length=4096, pattern=NO_NUL)],
    ],
    Field(
        max_length=MAX_VARIABLES,
        description="Environment variables of the `command`. `{url}`, `{token}` and `{model}` in a value stand for the "
        "address of the model's server, a token for it, and the model.",
        examples=[{"OPENAI_BASE_URL": "{url}", "OPENAI_API_KEY": "{token}"}],
    ),
]
ModelName = Annotated[str, Field(description="The AiModel's name.", examples=["claude-opus"])]


class PricesBody(RequestBody):
    """US dollars per million tokens."""

    input: float = Field(default=0, ge=0, allow_inf_nan=False, description="Price of input tokens.")
    output: float = Field(default=0, ge=0, allow_inf_nan=False, description="Price of output tokens.")
    cache_read: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Price of input tokens that are read from the provider's cache. Null assumes 0.1 × `input`.",
    )
    cache_write: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Price of input tokens that are written to the provider's cache. Null means the same as `input`.",
    )


class AiModelBody(RequestBody):
    """A model to configure."""

    model_config = RequestBody.model_config | {"json_schema_extra": {"examples": [_AN_OPUS]}}

    name: Name = Field(examples=["claude-opus"])
    provider: Provider = Field(description="The provider that runs its jobs.")
    model: Label = Field(description="The provider's name for the model.", examples=["opus"])
    slots: SlotCount = DEFAULT_SLOTS
    endpoint: Endpoint | None = None
    credentials_ref: Name | None = Field(default=None, description="The Secret with the provider's credentials.")
    prices: PricesBody | None = None
    sampling: SamplingBody | None = None
    command: Command | None = None
    environment: ProgramEnvironment | None = None


class AiModelPatch(PatchBody):
    """Fields to change. Absent fields keep their value; null clears a nullable field."""

    read_only = frozenset(
        {
            *("id", "name", "assumedCacheRead", "effectivePrices", "priceSource"),
            *("active", "queued", "pausedUntil", "warnings"),
        }
    )

    model_config = RequestBody.model_config | {"json_schema_extra": {"examples": [{"slots": 0}]}}

    provider: Provider = optional()
    model: Label = optional()
    slots: SlotCount = optional()
    endpoint: Endpoint | None = None
    credentials_ref: Name | None = None
    prices: PricesBody | None = None
    sampling: SamplingBody | None = None
    command: Command | None = None
    environment: ProgramEnvironment | None = None
    resource_version: ResourceVersion = NO_VERSION


class PricesView(ResponseBody):
    """US dollars per million tokens."""

    input: float = Field(examples=[5.0])
    output: float = Field(examples=[25.0])
    cache_read: float | None = Field(description="Null means `assumedCacheRead`.", examples=[0.5])
    cache_write: float | None = Field(description="Null means the same as `input`.", examples=[6.25])


class AiModelView(ResponseBody):
    """A configured model and its load."""

    id: str = Field(examples=["claude-opus"])
    name: str = Field(examples=["claude-opus"])
    provider: str = Field(examples=["claude"])
    model: str = Field(examples=["opus"])
    slots: int = Field(examples=[4])
    endpoint: str | None
    credentials_ref: str | None
    prices: PricesView | None
    assumed_cache_read: float | None = Field(
        description="The price that counts for input from the cache while `prices` has no `cacheRead`: 0.1 × `input`.",
        examples=[None],
    )
    effective_prices: PricesView | None = Field(
        description="The prices that count: its own, else list prices, without null. Null if neither is known.",
        examples=[None],
    )
    price_source: PriceSource = Field(
        description="What the cost of its jobs comes from: its `own` prices, `list` prices, or the `program` of the "
        "provider, which reports it. For `list` without `effectivePrices`, the model that answers decides.",
        examples=["program"],
    )
    sampling: SamplingView | None
    command: list[str] | None = Field(examples=[None])
    environment: dict[str, str] | None = Field(examples=[None])
    active: int = Field(description="Number of jobs that hold a slot.", examples=[1])
    queued: int = Field(description="Number of jobs that wait for a slot.", examples=[0])
    paused_until: datetime | None = Field(
        description="The end of a pause after a rate limit or an overload; null without a pause.",
        examples=[None],
    )
    resource_version: str = Field(examples=["17"])
    warnings: list[str] = Field(
        description="Reasons why its jobs would fail at present, such as a missing Secret.",
        examples=[[]],
    )


class AiModelList(ResponseBody):
    """All configured models."""

    ai_models: list[AiModelView]


@router.get(
    "/api/ai-models",
    responses=answers(200, AiModelList, "All configured models"),
    summary="List AI models",
)
async def list_ai_models(request: Request) -> Response:
    """List all AiModels, by name."""
    services = services_of(request)
    return json_response({"aiModels": await _views(await services.store.list(AiModel), services)})


@router.post(
    "/api/ai-models",
    status_code=201,
    responses=answers(201, AiModelView, "The new AiModel", 400, 409, 413, 415, 422),
    summary="Configure an AI model",
)
async def create_ai_model(request: Request, body: AiModelBody, idempotency_key: IdempotencyKey = None) -> Response:
    """Add an AiModel. Each pair of provider and model can have only one."""
    services = services_of(request)
    intent = Intent.of(idempotency_key, caller_of(request).id, body)
    spec = AiModelSpec(
        provider=body.provider,
        model=body.model,
        slots=body.slots,
        endpoint=body.endpoint,
        credentials_ref=body.credentials_ref,
        prices=_prices(body.prices),
        sampling=sampling(body.sampling),
        command=_command(body.command),
        environment=body.environment,
    )
    _check_program(spec)
    metadata = Metadata(name=body.name, annotations=intent.annotations if intent else {})
    async with services.catalog.changing:
        existing = await services.store.list(AiModel)
        if intent and (earlier := intent.first_match(existing)):
            return services.idempotency_cache.again(request, intent, await _view(earlier, services))
        _check_unique(body.name, spec, existing)
        created = await create_resource(services, AiModel(metadata=metadata, spec=spec), intent)
        services.catalog.put(created)
    return services.idempotency_cache.created(request, intent, await _view(created, services))


@router.get(
    "/api/ai-models/{name}",
    responses=answers(200, AiModelView, "The AiModel", 404),
    summary="Get an AI model",
)
async def get_ai_model(request: Request, name: ModelName) -> Response:
    """Get one AiModel."""
    services = services_of(request)
    return json_response(await _view(await get_resource(services, AiModel, name), services))


@router.patch(
    "/api/ai-models/{name}",
    responses=answers(200, AiModelView, "The changed AiModel", 400, 404, 409, 413, 415, 422),
    summary="Change an AI model",
)
async def change_ai_model(request: Request, name: ModelName, body: AiModelPatch) -> Response:
    """Change some fields. A new number of slots takes effect at once."""
    services = services_of(request)
    async with services.catalog.changing:
        body.check_read_only(await _view(await get_resource(services, AiModel, name), services))
        others = await services.store.list(AiModel)

        def apply(ai_model: AiModel) -> AiModel:
            changed = replace(ai_model, spec=_patched(ai_model.spec, body))
            _check_program(changed.spec)
            _check_unique(name, changed.spec, others)
            return changed

        changed = await update_resource(services, AiModel, name, body.resource_version, apply)
        services.catalog.put(changed)
    return json_response(await _view(changed, services))


@router.delete(
    "/api/ai-models/{name}",
    status_code=204,
    responses=answers(204, None, "The AiModel is removed", 404),
    summary="Remove an AI model",
)
async def delete_ai_model(request: Request, name: ModelName) -> Response:
    """Remove an AiModel. Its jobs continue, in the default slots of their provider and model."""
    services = services_of(request)
    async with services.catalog.changing:
        ai_model = await get_resource(services, AiModel, name)
        await services.store.delete(AiModel, name)
        services.catalog.remove(ai_model)
    return Response(status_code=204)


def _patched(spec: AiModelSpec, body: AiModelPatch) -> AiModelSpec:
    changes: dict[str, Any] = {}
    for field in body.model_fields_set - {"resource_version"}:
        value = getattr(body, field)
        changes[field] = _CONVERTERS[field](value) if field in _CONVERTERS else value
    return replace(spec, **changes)


def _check_unique(name: str, spec: AiModelSpec, others: list[AiModel]) -> None:
    """Raise Conflict if another AiModel has the same provider and model."""
    for other in others:
        if other.name != name and (other.spec.provider, other.spec.model) == (spec.provider, spec.model):
            message = f"the model {other.name!r} already has the provider {spec.provider} and the model {spec.model}"
            raise value_taken("model", message)


def _prices(body: PricesBody | None) -> Prices | None:
    return Prices(**body.model_dump()) if body else None


def _command(body: list[str] | None) -> tuple[str, ...] | None:
    return None if body is None else tuple(body)


def _check_program(spec: AiModelSpec) -> None:
    """Raise Invalid if the provider needs a program and has none, or the other way round."""
    if spec.provider == ACP and not spec.command:
        known = ", ".join(" ".join(program.command) for program in ACP_PROGRAMS.values())
        raise Invalid(Problem("command", f"is required for the provider acp: a program with its arguments ({known})"))
    if spec.provider != ACP and (spec.command or spec.environment):
        field = "command" if spec.command else "environment"
        raise Invalid(Problem(field, f"is only for the provider acp, not for {spec.provider}"))


_CONVERTERS: Final[dict[str, Callable[[Any], Any]]] = {
    "prices": _prices,
    "sampling": sampling,
    "command": _command,
}


def _prices_view(prices: Prices) -> dict[str, float | None]:
    return {
        "input": prices.input,
        "output": prices.output,
        "cacheRead": prices.cache_read,
        "cacheWrite": prices.cache_write,
    }


async def _view(ai_model: AiModel, services: Services) -> dict[str, Any]:
    [view] = await _views([ai_model], services)
    return view


async def _views(ai_models: Sequence[AiModel], services: Services) -> list[dict[str, Any]]:
    names = {each.spec.credentials_ref for each in ai_models}
    found = await asyncio.gather(*(_secret(name, services) for name in names if name))
    secrets = {each.name: each for each in found if each}
    return [_fields(each, services) | {"warnings": list(_warnings(each.spec, secrets))} for each in ai_models]


async def _secret(name: str, services: Services) -> Secret | None:
    with suppress(NotFound):
        return await services.store.get(Secret, name)
    return None


def _warnings(spec: AiModelSpec, secrets: Mapping[str, Secret]) -> Iterator[str]:
    """Yield warnings of settings without effect and of missing credentials, which may be created later."""
    if spec.sampling and spec.provider not in supporting("sampling"):
        yield f"`sampling` has no effect: only the providers {', '.join(supporting('sampling'))} support it"
    if provider_spec(spec.provider).is_self_hosted and spec.endpoint is None:
        yield "there is no `endpoint`: jobs on this model fail until it has the address of the model's server"
    if (name := spec.credentials_ref) is None:
        return
    keys = provider_spec(spec.provider).keys
    effect = f"jobs on this model fail until it has {' or '.join(keys)}" if keys else "its provider needs none"
    advice = f"{effect} (on one machine: `labrats secret set {name} {keys[0] if keys else 'KEY'}`)"
    if (secret := secrets.get(name)) is None:
        yield f"there is no Secret {name!r}: {advice}"
    elif not any(key in secret.data for key in keys):
        yield f"the Secret {name!r} has none of the keys that the provider reads: {advice}"


def _fields(ai_model: AiModel, services: Services) -> dict[str, Any]:
    spec = ai_model.spec
    key = (spec.provider, spec.model)
    prices = spec.prices
    effective = prices or list_price(spec.provider, spec.model)
    return {
        "id": ai_model.name,
        "name": ai_model.name,
        "provider": spec.provider,
        "model": spec.model,
        "slots": spec.slots,
        "endpoint": spec.endpoint,
        "credentialsRef": spec.credentials_ref,
        "prices": prices and _prices_view(prices),
        "assumedCacheRead": prices.effective_cache_read if prices and prices.cache_read is None else None,
        "effectivePrices": effective and _prices_view(effective.complete()),
        "priceSource": price_source(spec),
        "sampling": spec.sampling,
        "command": spec.command,
        "environment": spec.environment,
        "active": services.job_index.counts_by_model(Phase.RUNNING).get(key, 0),
        "queued": services.job_index.counts_by_model(Phase.PENDING).get(key, 0),
        "pausedUntil": services.job_index.paused_until(*key, services.clock.now()),
        "resourceVersion": ai_model.metadata.resource_version,
    }
