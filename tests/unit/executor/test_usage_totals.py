"""Tests of the usage of an attempt, of which some is reported and some is measured."""

import pytest

from labrats.executor.usage_totals import at_least
from labrats.model.ai_model import Prices
from labrats.model.job import Usage


def test_measured_cost_counts_for_the_tokens_that_were_measured() -> None:
    """The provider's program does not tell which model has used them."""
    reported, own = Usage(output_tokens=5, cost_usd=2.0), Prices(output=400_000)
    assert at_least(reported, Usage(output_tokens=5, cost_usd=1.0), own).cost_usd == 1.0
    assert at_least(reported, Usage(output_tokens=5, cost_usd=3.0), own).cost_usd == 3.0
    assert at_least(reported, Usage(output_tokens=4, cost_usd=1.0), own).cost_usd == pytest.approx(1.4)
    assert at_least(reported, Usage(output_tokens=4, cost_usd=1.0)).cost_usd == 2.0
    assert at_least(reported, Usage(output_tokens=5, cost_usd=None), own).cost_usd == 2.0


def test_measured_usage_raises_counts_and_leaves_an_unknown_cost_unknown() -> None:
    reported = Usage(output_tokens=5, cache_read_tokens=10, cost_usd=None)
    assert at_least(reported, Usage()) == reported
    cached = Usage(cache_read_tokens=20, cost_usd=0.5)  # a prompt that comes from the cache completely
    assert at_least(reported, cached) == Usage(output_tokens=5, cache_read_tokens=20, cost_usd=0.5)
