"""The list prices, and models without a known price."""

import pytest

from labrats.model.ai_model import AiModelSpec, Prices
from labrats.model.list_prices import has_unknown_cost, list_price, list_prices


def test_price_of_a_model_is_found_by_its_name_with_or_without_a_date() -> None:
    price = list_prices().models["gpt-5.1"]
    assert list_price("codex", "gpt-5.1") == list_price("codex", "gpt-5.1-2025-11-13") == price


@pytest.mark.parametrize(("provider", "model"), [("claude", "gpt-5.1"), ("vllm", "gpt-5.1"), ("codex", None)])
def test_other_providers_have_no_list_prices(provider: str, model: str | None) -> None:
    assert list_price(provider, model) is None


@pytest.mark.parametrize(
    ("spec", "is_unknown"),
    [
        (AiModelSpec(provider="codex", model="gpt-99"), True),
        (AiModelSpec(provider="codex", model="gpt-99", prices=Prices(input=1)), False),
        (AiModelSpec(provider="codex", model="gpt-5"), False),
        (AiModelSpec(provider="codex", model="codex"), False),
        (AiModelSpec(provider="claude", model="new"), False),
        (AiModelSpec(provider="vllm", model="qwen3-coder"), False),
    ],
)
def test_cost_is_unknown_without_own_listed_or_reported_prices(spec: AiModelSpec, is_unknown: bool) -> None:
    assert has_unknown_cost(spec) is is_unknown
