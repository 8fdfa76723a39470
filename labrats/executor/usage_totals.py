"""The usage of an attempt, from what its programs report and what the key proxy measures."""

from typing import Final

from msgspec.structs import replace

from labrats.model.ai_model import Prices, cost_of
from labrats.model.job import Usage

_TOKEN_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")


class UsageTotals:
    """The usage of an attempt so far.

    usage:    of the attempt.
    provider: the part that the current run of a provider has reported.
    measured: what the key proxy has measured, a lower bound of `usage`.
    answers:  number of the model's answers that the key proxy has seen.
    is_proxied: True if the agent's program reaches its model through the key proxy only. The measured tokens are then
        all tokens: an agent can forge what its program reports, which it reads from the same answers.
    estimated: what the model has consumed besides, at most, by estimates of the key proxy. It is part of `usage` only
        after `add_estimated`.
    is_notional: whether a subscription pays, so that the cost is what the tokens would cost.
    prices:   of the job's model, for tokens that the key proxy has not measured; None if they are unknown.
    """

    def __init__(self) -> None:
        self.usage = Usage()
        self.provider = Usage()
        self.measured = Usage()
        self.answers = 0
        self.is_proxied = False
        self.is_notional = False
        self.estimated = Usage()
        self.prices: Prices | None = None
        self._earlier = Usage()

    def begin_provider(self) -> None:
        """Start a run of a provider, whose usage is added to the usage before it."""
        self._earlier, self.provider = self._earlier + self.provider, Usage()

    def set_provider(self, usage: Usage) -> None:
        """Set the total usage of the current run of a provider."""
        self.provider = usage
        self._update()

    def set_measured(self, usage: Usage) -> None:
        """Set the usage of all requests to the model's server."""
        self.measured = usage
        self._update()

    def add_estimated(self) -> None:
        """Add the estimates to the usage. Tokens without a known cost have the model's prices."""
        known = self.usage
        if known.known_cost_usd is None and self.prices:
            known = replace(known, cost_usd=cost_of(known, self.prices))
        self.usage = known + self.estimated

    def _update(self) -> None:
        reported = self._earlier + self.provider
        usage = self._confirmed(reported) if self.is_proxied else at_least(reported, self.measured, self.prices)
        self.usage = replace(usage, is_notional=self.is_notional)

    def _confirmed(self, reported: Usage) -> Usage:
        """Return the measured usage, with what only the program knows: its turns, and a cost without known prices.

        The cost of answers in which the proxy has found no usage is unknown.
        """
        turns, cost = min(reported.turns, self.answers), self.measured.cost_usd
        if not self.measured.tokens:
            cost = None if turns else cost
        elif cost is None:
            cost = reported.cost_usd
        return replace(self.measured, cost_usd=cost, turns=turns)


def at_least(usage: Usage, measured: Usage, prices: Prices | None = None) -> Usage:
    """Return `usage` with the larger of each count of tokens, and its cost.

    The measured cost knows the model of each token. Others have the prices of the job's model, `prices`; without these,
    the larger known cost counts. If nothing was measured, the cost may still be unknown.
    """
    if measured.tokens == 0:
        return usage
    counts = {name: max(getattr(usage, name), getattr(measured, name)) for name in _TOKEN_COUNTS}
    if measured.cost_usd is not None and prices:
        others = Usage(**{name: most - getattr(measured, name) for name, most in counts.items()})
        return replace(usage, **counts, cost_usd=measured.cost_usd + cost_of(others, prices))
    costs = [each.cost_usd for each in (usage, measured) if each.cost_usd is not None]
    return replace(usage, **counts, cost_usd=max(costs, default=None))
