"""The budget of an attempt: its running requests, their prices, and estimates of their usage. Does no I/O."""

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Final

import msgspec
from msgspec.structs import replace

from labrats.executor.key_proxy.model_server import ApprovedRequest, RunningRequest
from labrats.executor.key_proxy.responses import Refused
from labrats.executor.key_proxy.usage_reader import Share, UsageReader
from labrats.executor.prices import WEB_SEARCH_USD, list_price_of_job
from labrats.executor.usage_limits import UsageLimits
from labrats.model.ai_model import Prices, cost_of
from labrats.model.errors import GiveUp
from labrats.model.job import Usage
from labrats.model.model_names import is_named
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
        self._running: list[RunningRequest] = []

    def check(self) -> None:
        """Raise Refused if the attempt has exceeded a limit."""
        try:
            self._limits.check(self.usage)
        except GiveUp as over:
            raise Refused(OVER_LIMIT, str(over)) from None

    def expected(self, running: RunningRequest) -> Usage:
        """Return what a request may consume at most, roughly. Nothing is expected of a job without limits.

        The estimate takes milliseconds for a long conversation, and most requests run alone and end as they should.
        """
        if running.expected is None:
            running.expected = self._estimate(running.request)
        return running.expected

    def _estimate(self, request: ApprovedRequest) -> Usage:
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

    def usage_of_abandoned(self, sent: RunningRequest) -> Usage:
        """Return the most that a request can have consumed after its client, or the proxy, ended it early.

        The client may have got all that it needs: a model also writes what it does not send. A server notices late that
        nobody waits for an answer which it sends as a whole.
        """
        expected = self.expected(sent)
        if expected == Usage() or sent.at is None:
            return Usage()
        asked = output_limit(sent.request)
        if not is_streamed(sent.request):
            return replace(expected, output_tokens=asked or _MOST_OUTPUT_TOKENS)
        written = int(sent.seconds() * TOKENS_PER_SECOND)
        return replace(expected, output_tokens=min(written, asked or written))

    def usage_of_failed(self, sent: RunningRequest) -> Usage:
        """Return the most that a request can have consumed that its server ended without telling the usage.

        A gateway ends one that takes long, while the model still works on it.
        """
        if sent.seconds() < _SOON_SECONDS or (expected := self.expected(sent)) == Usage():
            return Usage()
        written = int(sent.seconds() * TOKENS_PER_SECOND)
        return replace(expected, output_tokens=min(written, output_limit(sent.request) or written))

    def usage_of_answer(self, sent: RunningRequest, reader: UsageReader, ended_by: EndedBy) -> Usage:
        """Return the usage that an answer has reported, and the most that it can have been if it did not report all.

        `UsageReader.others` are not in it.
        """
        if reader.is_final:
            return reader.usage
        usage, most = reader.with_estimate(self.expected(sent).input_tokens), Usage()
        if ended_by == EndedBy.CLIENT or reader.is_unreadable:
            most = self.usage_of_abandoned(sent)
        elif ended_by == EndedBy.SERVER and not reader.has_shown_output:
            most = self.usage_of_failed(sent)
        return replace(usage, output_tokens=max(usage.output_tokens, most.output_tokens))

    def has_room_for(self, request: RunningRequest) -> bool:
        """Return whether a request fits into the limits together with those that are running. One alone always does."""
        if not self._running or self.expected(request) == Usage():
            return True
        return not self._is_exceeded_by(sum(map(self.expected, [*self._running, request]), self.usage))

    def begin(self, request: RunningRequest) -> None:
        """Count a request as running. Raises Refused if a limit is already exceeded."""
        self.check()
        self._running.append(request)

    def end(self, request: RunningRequest, usage: Usage) -> None:
        """Count the usage of a running request, which has ended, with its cost."""
        self._running.remove(request)
        self.usage += usage

    def _is_exceeded_by(self, usage: Usage) -> bool:
        try:
            self._limits.check(usage)
        except GiveUp:
            return True
        return False


def prices_of(model: str | None, task: Task) -> Prices | None:
    """Return the prices of the AiModel that names this model, else those of the job's model, if any are known.

    A name counts more than an alias of it, and the job's own model more than another. A request without a model has no
    prices.
    """
    if not model:
        return None
    own, provider = task.config.model or "", task.config.provider or ""
    names = [own, *task.other_prices]
    exact = (name for name in names if is_named(model, name))
    aliases = (name for name in names if is_named(model, name, provider))
    found = next(exact, None) or next(aliases, None)
    return task.other_prices.get(found or own, task.prices) or list_price_of_job(task, model)


TOKENS_PER_SECOND: Final = 300
"""Tokens that a fast model writes in a second, also those that it does not send, such as its reasoning."""

IMAGE_TOKENS: Final = 5_000
"""An upper bound for one image, which models scale down."""

_NULL: Final = msgspec.Raw(b"null")

_CHEAP: Final = (string.ascii_letters + " ").encode()
"""A token has at least two of these bytes, also in words that do not exist. Each other byte may be a token."""

_MOST_DIGITS: Final = 18
_LONG: Final = 1000
"""The bytes of shorter images count as text, too."""

_LIMITS_BY_PATH: Final[Mapping[str, Sequence[str]]] = {
    "/messages": ("max_tokens",),
    "/responses": ("max_output_tokens",),
    "/chat/completions": ("max_tokens", "max_completion_tokens"),
}
"""The fields of a request that limit its answer, by the end of its path."""

_CONVERSATIONS: Final = ("messages", "input")
"""The fields of a request with its messages, by the names of the APIs."""

_WINDOW_TOKENS: Final = 400_000
"""Tokens of a large context, all of which the server may remember or fetch for a request."""

_REMEMBERED: Final = ("previous_response_id", "conversation")
"""Fields of a request of the Responses API by which the server adds input that it has stored."""

_MANAGED: Final = ("context_management", "compaction")
"""Fields of a request by which the server may summarise the conversation, for which it reads it once more."""

_SUMMARY: Final = b"compact"

_FETCHED: Final = re.compile(rb'"file_(id|url)"|"type"\s*:\s*"(url|item_reference)"')
"""Parts of a message whose content the server has stored or fetches."""

_DOCUMENTS: Final = (b'"document"', b'"input_file"', b'"file"')
"""Types of parts that may have a PDF, of which one of 5 KB can have 600 pages."""
_ENCODED: Final = b"base64"

_ESCAPED_NAME: Final = re.compile(rb"\\u00(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])")
"""A letter, digit or underscore that no program escapes, unless it hides a name."""

_ESCAPED_BACKSLASH: Final = rb"\\"

_IMAGES: Final = (b'"image"', b'"image_url"', b'"input_image"')
_FILE: Final = re.compile(b"|".join((*_IMAGES, *_DOCUMENTS)))
_IMAGE_TYPE: Final = re.compile(rb'"type"\s*:\s*"(?:image|image_url|input_image)"')
_NOT_IN_IMAGES: Final = (b'"text"', b'"role"', b'"content"', b'"input"', b'"output"', b"\\")
"""Fields with text, in which a server that ignores the type would look for it, and the sign of an escaped name."""

_NESTING: Final = 3
"""Depth at which images and documents are: the message, the result of a tool, and its content."""


class _Part(msgspec.Struct, frozen=True):
    """A message, or a part of one. content, output: its own parts, or a text."""

    type: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


def output_limit(request: ApprovedRequest) -> int | None:
    """Return the limit that a request sets on its answer, in tokens; None without one."""
    # Servers ignore the fields of other APIs.
    names = next((names for end, names in _LIMITS_BY_PATH.items() if request.path.endswith(end)), ())
    fields = request.fields()
    found = [bytes(fields[name]) for name in names if name in fields]
    return max(filter(None, map(_number_of, found)), default=None)


def _number_of(value: bytes) -> int:
    """Return a positive number, which may have an exponent; 0 for anything else."""
    with suppress(ValueError, OverflowError):
        if len(value) <= _MOST_DIGITS:
            return max(0, int(float(value)))
    return 0


def is_streamed(request: ApprovedRequest) -> bool:
    """Return whether a request asks for its answer in parts."""
    return bytes(request.fields().get("stream", _NULL)) == b"true"


def most_input_tokens(request: ApprovedRequest) -> int:
    """Return an upper bound of the tokens of a request."""
    body = request.body
    fields = request.fields()
    has_files = _FILE.search(body) is not None  # most requests have none
    parts = list(_long_parts_in(fields)) if has_files else []
    # Only what a server takes for an image costs as little as one: not the arguments of a tool's call, which may look
    # the same, nor a part with a text.
    images = [part for kind, part in parts if kind in _IMAGES and not any(name in part for name in _NOT_IN_IMAGES)]
    count = max(len(images), sum(1 for _ in _IMAGE_TYPE.finditer(body))) if has_files else 0
    size = len(body) - sum(map(len, images))
    expensive = len(body.translate(None, _CHEAP)) - sum(len(image.translate(None, _CHEAP)) for image in images)
    has_document = any(kind in _DOCUMENTS and _ENCODED in part for kind, part in parts)
    unseen = _WINDOW_TOKENS if has_document or _has_unseen_input(body, fields) else 0
    return (size + expensive) // 2 + IMAGE_TOKENS * count + unseen


def _has_unseen_input(body: bytes, fields: Mapping[str, msgspec.Raw]) -> bool:
    """Return whether a model reads more for a request than what is in it."""
    remembered = any(bytes(fields.get(name, _NULL)) not in (b"null", b'""') for name in _REMEMBERED)
    is_stored_prompt = bytes(fields.get("prompt", _NULL)).startswith(b"{")
    is_summarised = any(_SUMMARY in bytes(fields.get(name, _NULL)) for name in _MANAGED)
    return (
        (remembered or is_stored_prompt or is_summarised)
        or _FETCHED.search(body) is not None
        # Without escaped backslashes, each backslash begins an escape.
        or _ESCAPED_NAME.search(body.replace(_ESCAPED_BACKSLASH, b"")) is not None
    )


def _long_parts_in(fields: Mapping[str, msgspec.Raw]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the long parts of the messages of a request, each with its type as JSON. fields: of the request."""
    for name in _CONVERSATIONS:
        yield from _long_parts_of(fields.get(name, msgspec.Raw()), _NESTING)


def _long_parts_of(parts: msgspec.Raw, nesting: int) -> Iterator[tuple[bytes, bytes]]:
    if nesting == 0 or not bytes(parts).startswith(b"["):
        return
    for part in map(bytes, msgspec.json.decode(parts, type=list[msgspec.Raw])):
        if len(part) < _LONG or not part.startswith(b"{"):
            continue
        found = msgspec.json.decode(part, type=_Part)
        yield bytes(found.type), part
        if bytes(found.type) not in _IMAGES:
            yield from _long_parts_of(found.content, nesting - 1)
            yield from _long_parts_of(found.output, nesting - 1)
