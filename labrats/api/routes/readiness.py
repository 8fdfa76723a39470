"""The readiness of this engine's providers, for several routes."""

import asyncio
import os
from collections.abc import Sequence

import structlog

from labrats.api.services import Services
from labrats.intake.provider_readiness import ProviderReadiness, provider_readiness
from labrats.model.ai_model import AiModel, alias_of
from labrats.model.config import KEYS_OF_MODELS, JobConfig
from labrats.model.core_resources import Secret
from labrats.model.errors import LabratsError, NotFound

log = structlog.get_logger()


async def readiness_of_providers(services: Services) -> list[ProviderReadiness]:
    """Return the readiness of each provider with all AiModels."""
    return await _readiness(services, await services.store.list(AiModel))


async def readiness_for(config: JobConfig, services: Services) -> ProviderReadiness | None:
    """Return the readiness of the provider for a job with these settings: with the AiModel on which it would run."""
    known = await services.store.list(AiModel)
    group = config.provider, alias_of(config.provider or "", config.model, known) or config.model
    models = [each for each in known if (each.spec.provider, each.spec.model) == group]
    return next((each for each in await _readiness(services, models) if each.name == config.provider), None)


async def _readiness(services: Services, ai_models: Sequence[AiModel]) -> list[ProviderReadiness]:
    names = [name for name in {each.spec.credentials_ref for each in ai_models} if name]
    keys = dict(zip(names, await asyncio.gather(*(_keys_of(name, services) for name in names)), strict=True))
    return list(provider_readiness(services.settings, ai_models, keys, os.environ))


async def _keys_of(secret: str, services: Services) -> frozenset[str]:
    """Return the keys in a Secret, none if it is missing. One that cannot be read counts as complete."""
    try:
        return frozenset((await services.store.get(Secret, secret)).data)
    except NotFound:
        return frozenset()
    except LabratsError as error:
        log.warning("secret of a model not read", secret=secret, reason=str(error))
        return KEYS_OF_MODELS
