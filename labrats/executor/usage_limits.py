"""The limits on what an attempt may consume."""

from dataclasses import dataclass

from labrats.model.config import JobConfig
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage


@dataclass(frozen=True)
class UsageLimits:
    """The cost and tokens that an attempt may consume; None for no limit. Tokens from a cache do not count."""

    cost_usd: float | None = None
    tokens: int | None = None

    @classmethod
    def of(cls, config: JobConfig) -> "UsageLimits":
        return cls(config.max_cost_usd, config.max_tokens)

    def check(self, usage: Usage) -> None:
        """Raise GiveUp with the code `budget` if `usage` exceeds a limit."""
        tokens = usage.input_tokens + usage.output_tokens
        cost = usage.cost_usd or 0.0  # while the cost is unknown, the provider's program enforces the limit itself
        if self.cost_usd is not None and cost > self.cost_usd:
            raise _over_budget(f"the run cost ${cost:.4f}, over maxCostUsd ${self.cost_usd}", "maxCostUsd")
        if self.tokens is not None and tokens > self.tokens:
            raise _over_budget(f"the run used {tokens} tokens, over maxTokens {self.tokens}", "maxTokens")


def _over_budget(sentence: str, setting: str) -> GiveUp:
    return GiveUp(FailedCode.BUDGET, f"{sentence} (raise config.{setting}, or give the agent a smaller task)")
