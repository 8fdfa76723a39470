"""The budget of an attempt, with the requests to its model that are running. Does no I/O."""

from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from msgspec.structs import replace

from labrats.executor.key_proxy.approved_request import ApprovedRequest, SentRequest
from labrats.executor.key_proxy.expected_usage import TOKENS_PER_SECOND, is_streamed, most_input_tokens, output_limit
from labrats.executor.key_proxy.request_prices import prices_of
from labrats.executor.key_proxy.responses import Refused
from labrats.executor.key_proxy.usage_reader import Share, UsageReader
from labrats.executor.prices import WEB_SEARCH_USD
from labrats.executor.usage_limits import UsageLimits
from labrats.model.ai_model import cost_of
from labrats.model.errors import GiveUp
from labrats.model.job import Usage
from labrats.model.protocol import OVER_LIMIT, Task

_USUAL_OUTPUT_TOKENS: Final = 16_384
_MOST_OUTPUT_TOKENS: Final = 131_072
"""Tokens that a model writes at most if a request names no limit."""

_PARALLEL_REQUESTS: Final = 4
_SOON_SECONDS: Final = 10.0
"""Time within which a server that has failed has hardly worked on a request. Gateways wait longer for an answer."""


class EndedBy(Enum):
    """By whom the forwarding of an answer was ended. CLIENT: also by the proxy itself. COMPLETION: by nobody."""

    COMPLETION = auto()
    CLIENT = auto()
    SERVER = auto()


class Budget:
    """The budget of one attempt. usage: of all finished requests, with its cost if that is known."""

    def __init__(self, task: Task) -> None:
        self.usage = Usage()
        self._task = task
        self._limits = UsageLimits.of(task)
        self._running: list[Usage] = []

    def check(self) -> None:
        """Raise Refused if the attempt has exceeded a limit."""
        try:
            self._limits.check(self.usage)
        except GiveUp as over:
            raise Refused(OVER_LIMIT, str(over)) from None

    def expected(self, request: ApprovedRequest) -> Usage:
        """Return what a request may consume at most, roughly. Nothing is expected of a job without limits."""
        if not self._limits or not request.is_answered_by_a_model:
            return Usage()
        asked = output_limit(request) or _USUAL_OUTPUT_TOKENS
        # Programs ask for much more than they need. A job with a low limit shall not run one request at a time.
        most = asked if self._limits.tokens is None else min(asked, self._limits.tokens // _PARALLEL_REQUESTS)
        tokens = most_input_tokens(request)
        usage = Usage(input_tokens=tokens, output_tokens=most)
        cached = replace(usage, cache_write_tokens=tokens)
        dearest = [self.with_cost(request, usage), self.with_cost(request, cached, hour_cache_tokens=tokens)]
        return max(dearest, key=lambda each: each.cost_usd or 0)

    def with_cost(
        self, request: ApprovedRequest, usage: Usage, hour_cache_tokens: int = 0, web_searches: int = 0
    ) -> Usage:
        """Return the usage of a request with its cost, which is None if no price is known. See `cost_of`."""
        priced = self._with_cost(request.model, usage, hour_cache_tokens)
        if not web_searches or priced.cost_usd is None:
            return priced
        return replace(priced, cost_usd=priced.cost_usd + web_searches * WEB_SEARCH_USD)

    def usage_of_shares(self, request: ApprovedRequest, shares: Iterable[Share]) -> Usage:
        """Return what shares of a request have consumed together, with their cost."""
        usages = (self._with_cost(each.model or request.model, each.usage, each.hour_cache_tokens) for each in shares)
        return sum(usages, Usage())

    def _with_cost(self, model: str | None, usage: Usage, hour_cache_tokens: int) -> Usage:
        prices = prices_of(model, self._task)
        return replace(usage, cost_usd=cost_of(usage, prices, hour_cache_tokens)) if prices else usage

    def usage_of_abandoned(self, sent: SentRequest) -> Usage:
        """Return the most that a request can have consumed after its client, or the proxy, ended it early.

        The client may have got all that it needs: a model also writes what it does not send. A server notices late that
        nobody waits for an answer which it sends as a whole.
        """
        if sent.expected == Usage() or sent.at is None:
            return Usage()
        asked = output_limit(sent.request)
        if not is_streamed(sent.request):
            return replace(sent.expected, output_tokens=asked or _MOST_OUTPUT_TOKENS)
        written = int(sent.seconds() * TOKENS_PER_SECOND)
        return replace(sent.expected, output_tokens=min(written, asked or written))

    def usage_of_failed(self, sent: SentRequest) -> Usage:
        """Return the most that a request can have consumed that its server ended without telling the usage.

        A gateway ends one that takes long, while the model still works on it.
        """
        if sent.expected == Usage() or sent.seconds() < _SOON_SECONDS:
            return Usage()
        written = int(sent.seconds() * TOKENS_PER_SECOND)
        return replace(sent.expected, output_tokens=min(written, output_limit(sent.request) or written))

    def usage_of_answer(self, sent: SentRequest, reader: UsageReader, ended_by: EndedBy) -> Usage:
        """Return the usage that an answer has reported, and the most that it can have been if it did not report all.

        `UsageReader.others` are not in it.
        """
        if reader.is_final:
            return reader.usage
        usage, most = reader.with_estimate(sent.expected.input_tokens), Usage()
        if ended_by == EndedBy.CLIENT or reader.is_unreadable:
            most = self.usage_of_abandoned(sent)
        elif ended_by == EndedBy.SERVER and not reader.has_shown_output:
            most = self.usage_of_failed(sent)
        return replace(usage, output_tokens=max(usage.output_tokens, most.output_tokens))

    def has_room_for(self, expected: Usage) -> bool:
        """Return whether a request fits into the limits together with those that are running. One alone always does."""
        if not self._running or expected == Usage():
            return True
        return not self._is_exceeded_by(sum([*self._running, expected], self.usage))

    def begin(self, expected: Usage) -> None:
        """Count a request as running. Raises Refused if a limit is already exceeded."""
        self.check()
        self._running.append(expected)

    def end(self, expected: Usage, usage: Usage) -> None:
        """Count the usage of a running request, which has ended, with its cost."""
        self._running.remove(expected)
        self.usage += usage

    def _is_exceeded_by(self, usage: Usage) -> bool:
        try:
            self._limits.check(usage)
        except GiveUp:
            return True
        return False
