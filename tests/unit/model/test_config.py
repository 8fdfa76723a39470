"""The resolution of a job's settings from several layers."""

from typing import Any

import pytest

from labrats.model.config import ConfigLayer, JobConfig, ResolvedConfig, resolve_config
from labrats.model.mcp_server import McpServer
from labrats.model.provider_spec import PROVIDERS


def resolved(*layers: dict[str, Any]) -> ResolvedConfig:
    """Resolve layers with the names `first`, `second`, …"""
    names = ("first", "second", "third")
    return resolve_config([ConfigLayer(name, JobConfig(**values)) for name, values in zip(names, layers, strict=False)])


def test_no_layers_resolve_to_the_built_in_settings() -> None:
    result = resolved()
    assert result.config == JobConfig(
        provider="claude",
        model="sonnet",
        effort="medium",
        fast=False,
        timeout_ms=3_300_000,
        max_turns=25,
        max_attempts=1,
    )
    assert set(result.origins.values()) == {"built-in"}


@pytest.mark.parametrize(
    ("field", "strong", "weak"),
    [
        ("effort", "high", "low"),
        ("fast", False, True),
        ("timeout_ms", 1, 2),
        ("max_turns", 1, 2),
        ("executor_image", "mine", "yours"),
        ("react_enabled", False, True),
        ("max_cost_usd", 0.5, 2.0),
        ("max_tokens", 1, 2),
        ("max_attempts", 1, 5),
        ("fallback_model", "haiku", "opus"),
        ("mcp_servers", {}, {"docs": McpServer(command="docs")}),
        ("model", "haiku", "opus"),
        ("provider", "mock", "codex"),
    ],
)
def test_the_first_layer_that_sets_a_field_wins(field: str, strong: Any, weak: Any) -> None:
    wire_name = "".join(word.capitalize() if i else word for i, word in enumerate(field.split("_")))
    both = resolved({}, {field: strong}, {field: weak})
    assert getattr(both.config, field) == strong
    assert both.origins[wire_name] == "second"
    assert getattr(resolved({}, {}, {field: weak}).config, field) == weak


def test_fields_come_from_different_layers() -> None:
    result = resolved({"effort": "high"}, {"effort": "low", "max_turns": 3})
    assert (result.config.effort, result.config.max_turns) == ("high", 3)
    assert result.origins["effort"] == "first"
    assert result.origins["maxTurns"] == "second"
    assert result.origins["timeoutMs"] == "built-in"


def test_fields_that_no_layer_sets_are_absent() -> None:
    result = resolved({"provider": "mock"})
    assert result.config.max_cost_usd is None
    assert "maxCostUsd" not in result.origins


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # A layer with another provider does not contribute its model, effort and fallback …
        ([{"provider": "codex"}, {"provider": "claude", "model": "opus"}], ("codex", "codex")),
        ([{"provider": "mock"}, {"provider": "claude", "model": "opus"}], ("mock", "mock")),
        # … one with the same provider, or none, does …
        ([{"provider": "codex"}, {"provider": "codex", "model": "o3"}], ("codex", "o3")),
        ([{"provider": "codex"}, {"model": "o3"}], ("codex", "o3")),
        ([{"model": "opus"}, {"provider": "claude"}], ("claude", "opus")),
        ([{}, {"provider": "codex", "model": "o3"}], ("codex", "o3")),
        # … and later layers count as well.
        ([{"provider": "codex"}, {"provider": "claude", "model": "opus"}, {"model": "o3"}], ("codex", "o3")),
        # A model alone does not choose the provider.
        ([{"model": "o3"}], ("claude", "o3")),
        ([{"model": "o3"}, {"provider": "codex"}], ("codex", "o3")),
    ],
)
def test_the_model_of_one_provider_never_reaches_another(
    layers: list[dict[str, Any]], expected: tuple[str, str]
) -> None:
    result = resolved(*layers)
    assert (result.provider, result.model) == expected


@pytest.mark.parametrize("field", ["model", "effort", "fallback_model"])
def test_per_provider_fields_never_reach_another_provider(field: str) -> None:
    foreign = resolved({"provider": "mock"}, {"provider": "claude", field: "low"})
    assert getattr(foreign.config, field) == getattr(resolved({"provider": "mock"}).config, field)


@pytest.mark.parametrize("field", ["timeout_ms", "max_turns", "max_tokens", "max_attempts"])
def test_other_fields_come_from_any_layer(field: str) -> None:
    assert getattr(resolved({"provider": "mock"}, {"provider": "claude", field: 7}).config, field) == 7


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_has_a_built_in_model_and_effort(provider: str) -> None:
    result = resolved({"provider": provider})
    assert result.provider == provider
    assert result.config.model
    assert result.config.effort == "medium"


def test_times_and_attempts_are_converted_to_the_engines_units() -> None:
    result = resolved({"timeout_ms": 1500, "max_attempts": 3})
    assert (result.timeout_seconds, result.max_attempts) == (1.5, 3)


def test_an_empty_record_means_the_built_in_settings() -> None:
    empty = ResolvedConfig(config=JobConfig())
    assert (empty.provider, empty.model, empty.timeout_seconds, empty.max_attempts) == ("claude", "claude", 3300, 1)
