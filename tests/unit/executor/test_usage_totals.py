"""Tests of the usage of an attempt, of which some is reported and some is measured."""

import pytest

from labrats.executor.usage_totals import UsageTotals, at_least
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


FORGED = Usage(input_tokens=9_000_000, cost_usd=9e6, turns=9)


def proxied(answers: int, measured: Usage) -> Usage:
    """Return the usage of an attempt behind a key proxy whose program reports a forged usage."""
    totals = UsageTotals()
    totals.is_proxied, totals.answers = True, answers
    totals.set_provider(FORGED)
    totals.set_measured(measured)
    return totals.usage


def test_report_of_a_proxied_program_counts_for_what_the_proxy_cannot_measure() -> None:
    """An agent can forge its program's report, but not the answers of the model's server."""
    assert proxied(0, Usage()) == Usage()
    assert proxied(2, Usage(output_tokens=5, cost_usd=1.0)) == Usage(output_tokens=5, cost_usd=1.0, turns=2)
    assert proxied(2, Usage(output_tokens=5)).cost_usd == FORGED.cost_usd, "no prices are known"


def test_reports_of_earlier_runs_count_although_the_proxy_measures_their_requests_later() -> None:
    totals = UsageTotals()
    totals.is_proxied = True
    totals.set_provider(Usage(output_tokens=1, cost_usd=1.0, turns=1))
    totals.begin_provider()
    totals.set_provider(Usage(output_tokens=1, cost_usd=2.0, turns=1))
    totals.answers = 2
    totals.set_measured(Usage(output_tokens=2))
    assert totals.usage == Usage(output_tokens=2, cost_usd=3.0, turns=2)
