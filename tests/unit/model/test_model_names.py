"""Tests of the names of models: which an attempt may use, and what an alias stands for."""

from typing import Any

import pytest

from labrats.model.config import JobConfig
from labrats.model.model_names import AllowedModels


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"model": "sonnet"}, "claude-sonnet-5-5"),
        ({"model": "sonnet"}, "claude-sonnet-4-5-20250929"),
        ({"model": "sonnet"}, "claude-3-7-sonnet-latest"),
        ({"model": "sonnet"}, "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ({"model": "sonnet"}, "anthropic/claude-sonnet-4.5"),
        ({"model": "sonnet"}, "claude-sonnet-4-5@20250929"),
        ({"model": "sonnet[1m]"}, "claude-sonnet-5-5"),
        ({"model": "sonnet"}, "claude-haiku-4-5"),
        ({"model": "sonnet", "fallback_model": "opus, my-model"}, "claude-opus-5-5"),
        ({"model": "sonnet", "fallback_model": "opus, my-model"}, "my-model"),
        ({"model": "claude-opus-5-5"}, "claude-opus-5-5"),
        ({"model": "claude-opus-5-5"}, "claude-opus-5-5-20260101"),
        ({"model": "opusplan"}, "claude-sonnet-5-5"),
        ({"model": "claude"}, "anything"),
        ({}, "anything"),
        ({"provider": "codex", "model": "gpt-5.5"}, "gpt-5.5"),
        ({"provider": "codex", "model": "gpt-5.5"}, "gpt-5.5-2026-01-31"),
        ({"provider": "codex", "model": "codex"}, "gpt-6-sol"),
    ],
)
def test_model_is_allowed(config: dict[str, Any], model: str) -> None:
    assert model in AllowedModels.of(JobConfig(**{"provider": "claude"} | config))


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"model": "sonnet"}, "claude-opus-5-5"),
        ({"model": "sonnet"}, "claude-opus-5-5\nclaude-sonnet-5"),
        ({"model": "sonnet"}, "claude-opus-5,x/claude-sonnet-5"),
        ({"model": "sonnet"}, "claude-opus-5/claude-sonnet-5"),
        ({"model": "sonnet"}, "claude-sonnet-5\0claude-opus-5"),
        ({"model": "sonnet"}, "sonnet-other"),
        ({"model": "claude-opus-5-5"}, "claude-opus-5-5-fast"),
        ({"model": "claude-opus-5-5"}, "claude-opus-5-6"),
        ({"model": "a.b"}, "axb"),
        ({"provider": "codex", "model": "gpt-5.5"}, "gpt-5.5-pro"),
        ({"provider": "codex", "model": "gpt-5.5"}, "claude-haiku-4-5"),
        ({"provider": "codex", "model": "mini"}, "claude-mini-1"),
        ({"provider": "codex", "model": "gpt-5.5", "fallback_model": "gpt-6-astra"}, "gpt-6-astra"),
        ({"model": "sonnet"}, ""),
    ],
)
def test_other_model_is_not_allowed(config: dict[str, Any], model: str) -> None:
    assert model not in AllowedModels.of(JobConfig(**{"provider": "claude"} | config))


@pytest.mark.parametrize("name", ["a." * 100, "a/" * 2_000_000, "claude-" * 30, "claude-a-" * 28])
def test_name_that_is_no_models_is_refused_at_once(name: str) -> None:
    """With the usual repetitions of patterns, this would take longer than a job."""
    assert name not in AllowedModels.of(JobConfig(provider="claude", model="sonnet"))
