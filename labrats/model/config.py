"""The settings of a job, and their resolution from several layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from labrats.model.codex_login import JOB_LOGIN_KEY
from labrats.model.isolation import Isolation
from labrats.model.mcp_server import McpServer
from labrats.model.network import AllowedHosts
from labrats.model.provider_spec import PROVIDER_SPECS, provider_spec
from labrats.model.record import Record
from labrats.model.variables import SecretKey

BUILT_IN_PROVIDER: Final = "claude"

KEYS_OF_MODELS: Final = frozenset(key for spec in PROVIDER_SPECS.values() for key in spec.keys) | {JOB_LOGIN_KEY}
"""The keys with credentials of models, which no tool of an agent gets."""


class Sampling(Record):
    """Sampling settings of a local model, and its reasoning effort; None leaves the choice to the server.

    The names are those of the OpenAI API and its extensions in vLLM and llama.cpp.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    reasoning_effort: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The fields that are not None."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}

    def with_defaults(self, default: "Sampling | None") -> "Sampling":
        """Return a copy whose None fields have the values of `default`."""
        return Sampling(**(default.values if default else {}) | self.values)


class JobConfig(Record):
    """The settings of a job in one layer; None where the layer sets nothing. Fields are those of the API's `config.*`.

    executor_resources: as in a pod's container; from the engine's own settings, or from a job applied with kubectl.
    """

    provider: str | None = None
    model: str | None = None
    effort: str | None = None
    fast: bool | None = None
    timeout_ms: int | None = None
    max_turns: int | None = None
    executor_image: str | None = None
    executor_resources: dict[str, dict[str, str]] | None = None
    react_enabled: bool | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None
    max_attempts: int | None = None
    fallback_model: str | None = None
    mcp_servers: dict[str, McpServer] | None = None
    sampling: Sampling | None = None
    env: dict[str, str | SecretKey] | None = None
    network: str | AllowedHosts | None = None
    isolation: Isolation | None = None


class ResolvedConfig(Record):
    """The settings of a job after resolution, with the layer of each (`request`, `agent`, `built-in`, …).

    isolation:   the level that the job gets, which may be stronger than `config.isolation`. None in a job of an earlier
                 version.
    model_alias: the model of the AiModel on which the job runs, such as `opus`, where that is an alias of its own.
    """

    config: JobConfig
    origins: dict[str, str] = {}
    isolation: Isolation | None = None
    model_alias: str | None = None

    @property
    def provider(self) -> str:
        return self.config.provider or BUILT_IN_PROVIDER

    @property
    def model(self) -> str:
        return self.config.model or self.provider

    @property
    def queue_model(self) -> str:
        """The model for whose slots the job waits: that of its AiModel, if it has one."""
        return self.model_alias or self.model

    @property
    def timeout_seconds(self) -> float:
        return (self.config.timeout_ms or 3_300_000) / 1000

    @property
    def max_turns(self) -> int:
        return self.config.max_turns or 25

    @property
    def max_attempts(self) -> int:
        return self.config.max_attempts or 1

    @property
    def mcp_credentials(self) -> dict[str, str]:
        """The Secret of each MCP server that names one."""
        servers = self.config.mcp_servers or {}
        return {name: server.credentials_ref for name, server in servers.items() if server.credentials_ref}

    @property
    def secret_variables(self) -> dict[str, SecretKey]:
        """The environment variables whose values come from Secrets."""
        return {name: value for name, value in (self.config.env or {}).items() if isinstance(value, SecretKey)}


@dataclass(frozen=True)
class ConfigLayer:
    """A source of settings. The first layer that sets a field wins."""

    name: str
    config: JobConfig


REQUEST_LAYER: Final = "request"
"""The layer of the settings that a job's caller has chosen."""

RERUN_LAYER: Final = "rerun"
"""The layer of the settings that were chosen for the job that this one repeats or continues."""

GLOBAL_LAYER: Final = "ai-config"
"""The layer of the whole engine, for all providers."""

BUILT_IN_LAYER: Final = "built-in"

_BUILT_IN: Final = JobConfig(
    provider=BUILT_IN_PROVIDER, effort="medium", fast=False, timeout_ms=3_300_000, max_turns=25, max_attempts=1
)
_EMPTY: Final = JobConfig()
_PER_PROVIDER: Final = frozenset({"model", "effort", "fallback_model"})


def resolved_provider(layers: Sequence[ConfigLayer]) -> str:
    """Return the provider of the first layer that names one, or the built-in one. layers: the strongest first."""
    return next((layer.config.provider for layer in layers if layer.config.provider), BUILT_IN_PROVIDER)


def resolve_config(layers: Sequence[ConfigLayer]) -> ResolvedConfig:
    """Resolve `layers`, the strongest first, on top of the built-in settings.

    The provider resolves first. Model and effort are then taken only from layers that name the same provider or none,
    so that a provider never gets the model of another.
    """
    provider = resolved_provider(layers)
    built_in = msgspec.structs.replace(_BUILT_IN, provider=provider, model=provider_spec(provider).model or provider)
    stack = [
        (layer.name, layer.config, layer.config.provider not in (None, provider))
        for layer in (*layers, ConfigLayer(BUILT_IN_LAYER, built_in))
        if layer.config != _EMPTY
    ]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for field, wire_name in _FIELDS:
        for layer_name, config, is_foreign in stack:
            value = getattr(config, field)
            if value is not None and not (is_foreign and field in _PER_PROVIDER):
                values[field], origins[wire_name] = value, layer_name
                break
    return ResolvedConfig(config=JobConfig(**values), origins=origins)


def wire_name(field: str) -> str:
    """Return the API's name for a field of JobConfig."""
    return dict(_FIELDS)[field]


def wire_names() -> Sequence[tuple[str, str]]:
    """Return each field of JobConfig with the API's name."""
    return _FIELDS


_FIELDS: Final = tuple((field.name, field.encode_name) for field in msgspec.structs.fields(JobConfig))
