"""AiModels: which models there are, and how many jobs run on each at once."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Request
from msgspec.structs import replace
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.resources import NO_VERSION, ResourceVersion, change, create, stored
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Label, Name, PatchBody, Provider, RequestBody, ResponseBody, optional
from labrats.api.schemas.patterns import WEB_ADDRESS
from labrats.api.schemas.sampling import SamplingBody, SamplingView, sampling
from labrats.api.services import Services
from labrats.model.ai_model import DEFAULT_SLOTS, AiModel, AiModelSpec, Prices
from labrats.model.config import CREDENTIAL_NAMES, SUPPORTED_BY
from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict, NotFound
from labrats.model.phases import API_STATUS, Phase
from labrats.model.record import Metadata

router = api_router("AI models")

_AN_OPUS: Final[dict[str, Any]] = {
    "name": "claude-opus",
    "provider": "claude",
    "model": "opus",
    "slots": 4,
    "credentialsRef": "anthropic",
    "prices": {"input": 5, "output": 25, "cacheRead": 0.5, "cacheWrite": 6.25},
}

SlotCount = Annotated[int, Field(ge=0, le=100_000, description="Attempts at once; 0 pauses the model.")]
Endpoint = Annotated[
    str,
    Field(
        pattern=WEB_ADDRESS,
        max_length=2048,
        description="Where its server is, unless it is where the provider's usually is.",
        examples=["http://10.0.0.5:8000/v1"],
    ),
]
ModelName = Annotated[str, Field(description="The AiModel's name.", examples=["claude-opus"])]


class PricesBody(RequestBody):
    """US dollars per million tokens."""

    input: float = Field(default=0, ge=0, allow_inf_nan=False, description="Of what the model reads.")
    output: float = Field(default=0, ge=0, allow_inf_nan=False, description="Of what the model writes.")
    cache_read: float = Field(
        default=0, ge=0, allow_inf_nan=False, description="Of what it reads once more, from the provider's cache."
    )
    cache_write: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Of input that is written to the provider's cache; null: as `input`.",
    )


class AiModelBody(RequestBody):
    """A model to configure."""

    model_config = RequestBody.model_config | {"json_schema_extra": {"examples": [_AN_OPUS]}}

    name: Name = Field(examples=["claude-opus"])
    provider: Provider = Field(description="What runs its jobs.")
    model: Label = Field(description="By its provider's name for it.", examples=["opus"])
    slots: SlotCount = DEFAULT_SLOTS
    endpoint: Endpoint | None = None
    credentials_ref: Name | None = Field(default=None, description="The Secret with the provider's credentials.")
    prices: PricesBody | None = None
    sampling: SamplingBody | None = None


class AiModelPatch(PatchBody):
    """What to change; absent fields stay, null clears those that may be null."""

    read_only = frozenset({"id", "name", "active", "queued", "pausedUntil", "warnings"})

    model_config = RequestBody.model_config | {"json_schema_extra": {"examples": [{"slots": 0}]}}

    provider: Provider = optional()
    model: Label = optional()
    slots: SlotCount = optional()
    endpoint: Endpoint | None = None
    credentials_ref: Name | None = None
    prices: PricesBody | None = None
    sampling: SamplingBody | None = None
    resource_version: ResourceVersion = NO_VERSION


class PricesView(ResponseBody):
    """US dollars per million tokens."""

    input: float = Field(examples=[5.0])
    output: float = Field(examples=[25.0])
    cache_read: float = Field(examples=[0.5])
    cache_write: float | None = Field(description="Null: as `input`.", examples=[6.25])


class AiModelView(ResponseBody):
    """A configured model, and how busy it is."""

    id: str = Field(examples=["claude-opus"])
    name: str = Field(examples=["claude-opus"])
    provider: str = Field(examples=["claude"])
    model: str = Field(examples=["opus"])
    slots: int = Field(examples=[4])
    endpoint: str | None
    credentials_ref: str | None
    prices: PricesView | None
    sampling: SamplingView | None
    active: int = Field(description="Jobs that hold a slot.", examples=[1])
    queued: int = Field(description="Jobs that wait for one.", examples=[0])
    paused_until: datetime | None = Field(
        description="When jobs are started again, after a rate limit or overload; null where nothing holds them back.",
        examples=[None],
    )
    resource_version: str = Field(examples=["17"])
    warnings: list[str] = Field(
        description="Why its jobs would fail as things are, such as a missing Secret; empty where nothing is known.",
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
    """All AiModels, by name."""
    services = services_of(request)
    return json_response({"aiModels": await _views(await services.store.list(AiModel), services)})


@router.post(
    "/api/ai-models",
    status_code=201,
    responses=answers(201, AiModelView, "The new AiModel", 400, 409, 413, 415, 422),
    summary="Configure an AI model",
)
async def create_ai_model(request: Request, asked: AiModelBody, idempotency_key: IdempotencyKey = None) -> Response:
    """Add a model. There is one per provider and model."""
    services = services_of(request)
    intent = Intent.of(idempotency_key, caller_of(request).id, asked)
    spec = AiModelSpec(
        provider=asked.provider,
        model=asked.model,
        slots=asked.slots,
        endpoint=asked.endpoint,
        credentials_ref=asked.credentials_ref,
        prices=_prices(asked.prices),
        sampling=sampling(asked.sampling),
    )
    metadata = Metadata(name=asked.name, annotations=intent.annotations if intent else {})
    async with services.catalog.changing:
        existing = await services.store.list(AiModel)
        if intent and (made := intent.first_match(existing)):
            return services.idempotency_cache.again(request, intent, await _view(made, services))
        _check_alone(asked.name, spec, existing)
        created = await create(services, AiModel(metadata=metadata, spec=spec), intent)
    return services.idempotency_cache.created(request, intent, await _view(created, services))


@router.get(
    "/api/ai-models/{name}",
    responses=answers(200, AiModelView, "The AiModel", 404),
    summary="An AI model's detail",
)
async def get_ai_model(request: Request, name: ModelName) -> Response:
    """One AiModel."""
    services = services_of(request)
    return json_response(await _view(await stored(services, AiModel, name), services))


@router.patch(
    "/api/ai-models/{name}",
    responses=answers(200, AiModelView, "The AiModel as it is now", 400, 404, 409, 413, 415, 422),
    summary="Change an AI model",
)
async def change_ai_model(request: Request, name: ModelName, asked: AiModelPatch) -> Response:
    """Change some fields. New slots take effect at once."""
    services = services_of(request)
    async with services.catalog.changing:
        others = await services.store.list(AiModel)

        def patched(found: AiModel) -> AiModel:
            changed = replace(found, spec=_patched(found.spec, asked))
            _check_alone(name, changed.spec, others)
            return changed

        changed = await change(services, AiModel, name, asked.resource_version, patched)
    return json_response(await _view(changed, services))


@router.delete(
    "/api/ai-models/{name}",
    status_code=204,
    responses=answers(204, None, "It is gone", 404),
    summary="Remove an AI model",
)
async def delete_ai_model(request: Request, name: ModelName) -> Response:
    """Remove a model. Its jobs go on, in the default slots of their provider and model."""
    services = services_of(request)
    await stored(services, AiModel, name)
    await services.store.delete(AiModel, name)
    return Response(status_code=204)


def _patched(spec: AiModelSpec, asked: AiModelPatch) -> AiModelSpec:
    changes: dict[str, Any] = {}
    for field in asked.model_fields_set - {"resource_version"}:
        value = getattr(asked, field)
        changes[field] = _MADE_OF_BODIES[field](value) if field in _MADE_OF_BODIES else value
    return replace(spec, **changes)


def _check_alone(name: str, spec: AiModelSpec, others: list[AiModel]) -> None:
    """Raises Conflict when another AiModel stands for the same provider and model: whose slot would a job take?"""
    for other in others:
        if other.name != name and (other.spec.provider, other.spec.model) == (spec.provider, spec.model):
            raise Conflict(f"the AiModel {other.name!r} already stands for {spec.provider} {spec.model}")


def _prices(asked: PricesBody | None) -> Prices | None:
    return Prices(**asked.model_dump()) if asked else None


_MADE_OF_BODIES: Final[dict[str, Callable[[Any], Any]]] = {"prices": _prices, "sampling": sampling}


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
    """Warn of settings without effect, and of credentials that jobs would miss: they may be created later."""
    if spec.sampling and spec.provider not in SUPPORTED_BY["sampling"]:
        yield f"`sampling` has no effect: only the providers {' and '.join(SUPPORTED_BY['sampling'])} take it"
    if (name := spec.credentials_ref) is None:
        return
    keys = CREDENTIAL_NAMES[spec.provider]
    wanted = f"jobs on this model fail until it has {' or '.join(keys)}" if keys else "its provider reads none"
    advice = f"{wanted} (on one machine: `labrats secret set {name} {keys[0] if keys else 'KEY'}`)"
    if (secret := secrets.get(name)) is None:
        yield f"there is no Secret {name!r}: {advice}"
    elif not any(key in secret.data for key in keys):
        yield f"the Secret {name!r} has no key of use: {advice}"


def _fields(ai_model: AiModel, services: Services) -> dict[str, Any]:
    spec = ai_model.spec
    key = (spec.provider, spec.model)
    prices = spec.prices
    return {
        "id": ai_model.name,
        "name": ai_model.name,
        "provider": spec.provider,
        "model": spec.model,
        "slots": spec.slots,
        "endpoint": spec.endpoint,
        "credentialsRef": spec.credentials_ref,
        "prices": prices and _prices_view(prices),
        "sampling": spec.sampling,
        "active": services.job_index.counts_by_model(API_STATUS[Phase.RUNNING]).get(key, 0),
        "queued": services.job_index.counts_by_model(API_STATUS[Phase.PENDING]).get(key, 0),
        "pausedUntil": services.job_index.paused_until(*key),
        "resourceVersion": ai_model.metadata.resource_version,
    }
