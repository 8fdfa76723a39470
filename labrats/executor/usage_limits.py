"""The limits on what an attempt may consume, with the attempts before it that ended with a pause of the model."""

from dataclasses import dataclass
from typing import Final

from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import Task

_LEAST_TOKENS: Final = 1000
"""Fewer tokens are left for no useful answer, unless the limit itself is low."""


@dataclass(frozen=True)
class UsageLimits:
    """The cost and tokens that a run may consume; None for no limit. Tokens from a cache do not count.

    spent: see Task.
    """

    cost_usd: float | None = None
    tokens: int | None = None
    spent: Usage = Usage()

    @classmethod
    def of(cls, task: Task) -> "UsageLimits":
        return cls(task.config.max_cost_usd, task.config.max_tokens, task.spent)

    def __bool__(self) -> bool:
        return self.cost_usd is not None or self.tokens is not None

    @property
    def cost_left(self) -> float | None:
        """The cost that this attempt may have, in US dollars."""
        return None if self.cost_usd is None else max(0.0, self.cost_usd - (self.spent.cost_usd or 0.0))

    @property
    def tokens_left(self) -> int | None:
        """The tokens that this attempt may consume."""
        return None if self.tokens is None else max(0, self.tokens - _counted(self.spent))

    @property
    def problem_of_cost(self) -> str | None:
        """The reason why the cost before a pause does not count; None if it does."""
        if self.cost_usd is None or self.spent.known_cost_usd is not None:
            return None
        return (
            "what the run cost before the pause is unknown, and does not count for config.maxCostUsd: "
            "add `prices` to the AiModel, or limit the job with maxTokens"
        )

    def check_left(self) -> None:
        """Raise GiveUp with the code `budget` if the attempts before a pause have left too little for an answer."""
        if self.cost_left == 0:
            raise _over_budget(f"the run cost ${self.spent.cost_usd:.4f} before the pause", "maxCostUsd")
        if self.tokens is not None and (self.tokens_left or 0) < min(_LEAST_TOKENS, max(1, self.tokens // 10)):
            raise _over_budget(f"the run used {_counted(self.spent)} tokens before the pause", "maxTokens")

    def check(self, usage: Usage) -> None:
        """Raise GiveUp with the code `budget` if the run exceeds a limit with the `usage` of this attempt."""
        tokens = _counted(self.spent) + _counted(usage)
        # While the cost is unknown, the provider's program enforces the limit itself.
        cost = (self.spent.cost_usd or 0.0) + (usage.cost_usd or 0.0)
        if self.cost_usd is not None and cost > self.cost_usd:
            raise _over_budget(f"the run cost ${cost:.4f}, over maxCostUsd ${self.cost_usd}", "maxCostUsd")
        if self.tokens is not None and tokens > self.tokens:
            raise _over_budget(f"the run used {tokens} tokens, over maxTokens {self.tokens}", "maxTokens")


def _counted(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens


def _over_budget(sentence: str, setting: str) -> GiveUp:
    return GiveUp(FailedCode.BUDGET, f"{sentence} (raise config.{setting}, or give the agent a smaller task)")
