"""Resolution of a job's settings from the layers that may set them."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from labrats.index.catalog import Catalog
from labrats.intake.request import JobRequest
from labrats.model.agent import AiAgent, AiAgentSpec
from labrats.model.ai_config import AiConfigSpec
from labrats.model.ai_model import alias_of
from labrats.model.config import (
    BUILT_IN_LAYER,
    GLOBAL_LAYER,
    REQUEST_LAYER,
    RERUN_LAYER,
    ConfigLayer,
    JobConfig,
    ResolvedConfig,
    resolve_config,
    resolved_provider,
    wire_names,
)
from labrats.model.isolation import PROCESS_ONLY, Isolation, IsolationLevels, strength
from labrats.model.webhook_source import WebhookSourceSpec

NOTHING: Final = JobConfig()

AGENT_LAYER: Final = "agent"

ENGINE_LAYER: Final = "engine"
"""The layer of the engine's own settings, from its environment."""


def settings_of(
    request: JobRequest,
    agent: AiAgent | None,
    catalog: Catalog,
    levels: IsolationLevels = PROCESS_ONLY,
    engine: JobConfig = NOTHING,
) -> ResolvedConfig:
    """Resolve the settings of the requested job. Each comes from the first layer that sets it, which is recorded.

    levels: the levels of isolation that the backend offers.
    engine: the defaults in the engine's own settings.
    """
    source, config = request.webhook_source, catalog.ai_config
    callers = [
        ConfigLayer(REQUEST_LAYER, request.config),
        ConfigLayer(RERUN_LAYER, request.first.config if request.first else NOTHING),
    ]
    layers = [
        ConfigLayer("trigger", request.trigger.config if request.trigger else NOTHING),
        ConfigLayer("webhook-source-override", _of_repo(source.spec, request.repo_name) if source else NOTHING),
        ConfigLayer("webhook-source", source.spec.defaults if source else NOTHING),
        ConfigLayer(AGENT_LAYER, _of_agent(agent.spec) if agent else _of_former_agent(request)),
    ]
    provider = resolved_provider([*callers, *layers])
    layers += [
        ConfigLayer(f"ai-config.providers.{provider}", _of_provider(config, provider)),
        ConfigLayer(GLOBAL_LAYER, _of_everybody(config)),
        ConfigLayer(ENGINE_LAYER, engine),
    ]
    isolation = _isolation_of(request, callers, layers, levels)
    level = levels.at_least(isolation) or isolation
    layers.append(ConfigLayer(BUILT_IN_LAYER, JobConfig(network=levels.default_network(level))))
    resolved = resolve_config([*callers, *layers])
    return replace(resolved, isolation=level, model_alias=alias_of(provider, resolved.config.model, catalog.ai_models))


def _isolation_of(
    request: JobRequest, callers: Sequence[ConfigLayer], others: Sequence[ConfigLayer], levels: IsolationLevels
) -> Isolation:
    """Return the least isolation of the job.

    The first layer that names a level decides. Only an administrator's request can name less than the other layers:
    without a sandbox, a key with the scope `submit` would be as good as an admin key.

    A rerun or follow-up has at least the level of the first job, unless its own request names one: the agent may have
    less by now, and an administrator would grant the same texts more rights unawares. If the engine has lost this
    level, its default counts: the first job may have had that one, too.
    """
    inherited = _first_isolation(others) or levels.default
    asked = _first_isolation(callers) or inherited
    needed = [asked] if request.is_by_admin else [asked, inherited]
    had = request.first.job.resolved.isolation if request.first else None
    if had and levels.at_least(had) and not request.config.isolation:
        needed.append(had)
    return max([*needed, *([levels.untrusted] if request.untrusted else [])], key=strength)


def _first_isolation(layers: Sequence[ConfigLayer]) -> Isolation | None:
    return next((layer.config.isolation for layer in layers if layer.config.isolation), None)


def _of_repo(spec: WebhookSourceSpec, repo_name: str | None) -> JobConfig:
    if (override := spec.override_of(repo_name)) is None:
        return NOTHING
    return JobConfig(provider=override.provider, model=override.model, effort=override.effort)


def _of_agent(spec: AiAgentSpec) -> JobConfig:
    return JobConfig(
        provider=spec.default_provider,
        model=spec.default_model,
        effort=spec.default_effort,
        mcp_servers=spec.mcp_servers,
        env=spec.env,
        network=spec.default_network,
        isolation=spec.default_isolation,
    )


def _of_former_agent(request: JobRequest) -> JobConfig:
    """Return what the first job has of its agent, which was deleted or disabled since."""
    if request.first is None:
        return NOTHING
    resolved = request.first.job.resolved
    fields = (field for field, name in wire_names() if resolved.origins.get(name) == AGENT_LAYER)
    recorded = {field: getattr(resolved.config, field) for field in fields}
    return JobConfig(**(recorded | {"provider": resolved.provider})) if recorded else NOTHING


def _of_provider(config: AiConfigSpec, provider: str) -> JobConfig:
    found = config.providers.get(provider)
    return JobConfig(model=found.model, effort=found.effort) if found else NOTHING


def _of_everybody(config: AiConfigSpec) -> JobConfig:
    return JobConfig(
        model=config.model,
        effort=config.effort,
        executor_image=config.executor_image,
        executor_resources=config.executor_resources or None,
    )
