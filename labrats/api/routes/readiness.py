"""The readiness of this engine's providers and of its connection with GitHub, for several routes."""

import asyncio
import os
from collections.abc import Collection, Sequence

import structlog

from labrats.api.services import Services
from labrats.intake.github_readiness import GitHubReadiness, github_readiness, secrets_read
from labrats.intake.provider_readiness import ProviderReadiness, provider_readiness
from labrats.model.ai_model import AiModel, alias_of
from labrats.model.config import KEYS_OF_MODELS, JobConfig
from labrats.model.core_resources import Secret
from labrats.model.errors import LabratsError, NotFound
from labrats.model.webhook_source import TOKEN, WebhookSource

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
    names = {each.spec.credentials_ref for each in ai_models if each.spec.credentials_ref}
    keys = await _keys_of(names, services, KEYS_OF_MODELS)
    return list(provider_readiness(services.settings, ai_models, keys, os.environ))


async def readiness_of_github(services: Services) -> GitHubReadiness:
    """Return the state of the connection with GitHub."""
    sources = await services.store.list(WebhookSource)
    return github_readiness(sources, await _keys_of(secrets_read(sources), services, frozenset({TOKEN})))


async def _keys_of(names: Collection[str], services: Services, unknown: frozenset[str]) -> dict[str, frozenset[str]]:
    """Return the keys in each Secret, none if it is missing. unknown: the keys of one that cannot be read."""

    async def keys_of(secret: str) -> frozenset[str]:
        try:
            return frozenset((await services.store.get(Secret, secret)).data)
        except NotFound:
            return frozenset()
        except LabratsError as error:
            log.warning("keys of a secret not read", secret=secret, reason=str(error))
            return unknown

    return dict(zip(names, await asyncio.gather(*map(keys_of, names)), strict=True))
