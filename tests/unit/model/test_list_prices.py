"""The list prices, and models without a known price."""

import pytest

from labrats.model.ai_model import AiModelSpec, Prices
from labrats.model.list_prices import list_price, list_prices, price_source


def test_price_of_a_model_is_found_by_its_name_with_or_without_a_date() -> None:
    price = list_prices().models["gpt-5.1"]
    assert list_price("codex", "gpt-5.1") == list_price("codex", "gpt-5.1-2025-11-13") == price


@pytest.mark.parametrize(("provider", "model"), [("claude", "gpt-5.1"), ("vllm", "gpt-5.1"), ("codex", None)])
def test_other_providers_have_no_list_prices(provider: str, model: str | None) -> None:
    assert list_price(provider, model) is None


@pytest.mark.parametrize(
    ("spec", "source"),
    [
        (AiModelSpec(provider="codex", model="gpt-99"), "unknown"),
        (AiModelSpec(provider="codex", model="gpt-99", prices=Prices()), "own"),
        (AiModelSpec(provider="codex", model="gpt-5"), "list"),
        (AiModelSpec(provider="codex", model="codex"), "list"),
        (AiModelSpec(provider="claude", model="new"), "program"),
        (AiModelSpec(provider="openai", model="qwen3-coder"), "unknown"),
    ],
)
def test_source_of_the_cost_of_a_model(spec: AiModelSpec, source: str) -> None:
    assert price_source(spec) == source
