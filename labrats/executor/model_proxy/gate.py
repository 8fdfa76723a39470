"""Decide which requests of an agent reach the model's server. Does no I/O."""

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from labrats.executor.model_proxy.allowed_models import AllowedModels
from labrats.executor.model_proxy.expected_usage import TOKENS_PER_SECOND, is_streamed, most_input_tokens, output_limit
from labrats.executor.model_proxy.further_models import Fields, further_models
from labrats.executor.model_proxy.model_server import Api, ModelServer
from labrats.executor.model_proxy.reach import (
    MOST_VALUES,
    ReachesOthers,
    TooManyValues,
    searches_by_itself,
    without_reach,
)
from labrats.executor.model_proxy.request_prices import prices_of
from labrats.executor.model_proxy.responses import Refused
from labrats.executor.model_proxy.usage_reader import Share
from labrats.executor.prices import cost_of
from labrats.executor.usage_limits import UsageLimits
from labrats.model.errors import GiveUp
from labrats.model.job import Usage
from labrats.model.network import is_restricted
from labrats.model.protocol import OVER_LIMIT, Task, is_for_an_answer

MOST_BODY_BYTES: Final = 32 * 1024 * 1024
"""Largest body of a request, as of the Messages API."""

MOST_MARKS: Final = 2_000_000
"""Limit on the brackets, commas and quotes of a body. Reading it takes up to some 150 bytes of memory for each."""

Headers = Sequence[tuple[bytes, bytes]]

_POST: Final[Mapping[Api, frozenset[str]]] = {
    "anthropic": frozenset({"/v1/messages", "/v1/messages/count_tokens"}),
    "openai": frozenset(
        f"{version}{path}"
        for version in ("", "/v1")
        for path in ("/responses", "/responses/compact", "/chat/completions", "/completions")
    ),
}
_MODEL: Final = r"(/(?!\.{1,2}$)[\w.:@-]+)"
_GET: Final[Mapping[Api, re.Pattern[str]]] = {
    "anthropic": re.compile(rf"/v1/models{_MODEL}?"),
    "openai": re.compile(rf"(/v1)?/models{_MODEL}?"),
}
"""The paths that are forwarded. Others could, with the same key, read files or start work that is not measured."""

_USUAL_OUTPUT_TOKENS: Final = 16_384
_MOST_OUTPUT_TOKENS: Final = 131_072
"""Tokens that a model writes at most if a request names no limit."""

_PARALLEL_REQUESTS: Final = 4

_MORE_MODELS: Final = re.compile(
    "models?|model_(list|info)|.*fallback.*|extra_(body|headers|query)|api_(base|key|version)|base_url|user_config|"
    "custom_llm_provider|deployment(_?id)?|litellm_.*|preset|provider(_?options)?|router_.*",
    re.DOTALL,
)
"""Fields in which gateways to several models look for one, for further fields, or for another server and key."""

_QUERY: Final = re.compile(r"((beta|api-version|client_version|limit|after_id|before_id)=[\w.:-]*(&|$))*")
"""The parameters of the programs and of Azure. Gateways have others, such as one for another model."""

_WITH_STREAM_OPTIONS: Final = ("/chat/completions", "/completions")
"""Paths whose streams report their usage only if the request asks for it."""

_NOT_FORWARDED: Final = frozenset(
    b"accept-encoding api-key authorization connection content-length content-type cookie expect forwarded host "
    b"keep-alive openai-organization openai-project proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade via x-api-key".split()
)
"""Headers of a request that concern this connection, its credentials, or who pays. Without Accept-Encoding, usage is
readable. A body is JSON, also for a server that would read a form if Content-Type said so.
"""

_PREFIXES_NOT_FORWARDED: Final = (
    *(b"x-forwarded-", b"x-original-", b"x-rewrite-", b"x-http-method", b"x-method-override"),
    *(b"cf-aig-", b"helicone-", b"x-arch-", b"x-envoy-", b"x-gateway-", b"x-goog-", b"x-litellm-", b"x-portkey-"),
)
"""Starts of the names of headers in which some servers find another method, path or host than those of the request.

Those of the second line belong to gateways, which send the request, and a key, to the server that such a header names.
"""

_CREDENTIALS: Final = (b"-key", b"apikey", b"-authorization", b"-token", b"-vk")
"""Ends of the names of headers with a key, such as one of the agent's own for the server behind a gateway."""

_AT_USUAL_PRICES: Final[Mapping[str, frozenset[bytes]]] = {
    "speed": frozenset({b"null", b'"standard"'}),
    "service_tier": frozenset({b"null", b'"auto"', b'"default"', b'"flex"', b'"standard_only"'}),
    "inference_geo": frozenset({b"null", b'"global"'}),
}
"""Fields by which a request asks for a faster answer, or one from a place, and their values that cost no more."""


_NUMBERS_OF_ANSWERS: Final = ("n", "best_of")
_NULL: Final = msgspec.Raw(b"null")


@dataclass(frozen=True)
class Approved:
    """A request to forward. target: its path with the query. model: None for requests that name none."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes
    model: str | None = None

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")

    @property
    def is_answered_by_a_model(self) -> bool:
        """False for a request that consumes no tokens."""
        return is_for_an_answer(self.path, self.model)


@dataclass
class Gate:
    """The rules for the requests of one attempt. usage: of all finished requests, with its cost if that is known."""

    token: str = field(repr=False)
    server: ModelServer
    task: Task
    usage: Usage = Usage()

    def __post_init__(self) -> None:
        self._models = AllowedModels.of(self.task.config)
        self._limits = UsageLimits.of(self.task)
        self._running: list[Usage] = []

    def check_head(self, method: bytes, target: bytes, headers: Headers) -> None:
        """Check all of a request but its body. Raises Refused."""
        fields = [(name.lower(), value) for name, value in headers]
        if not self.has_token(fields):
            raise Refused(401, "the token of this attempt is missing or wrong")
        self._check_framing(fields)
        if not self._allows(method.decode("latin-1"), target.decode("latin-1")):
            raise Refused(404, "this path is not forwarded to the model's server")
        if not _QUERY.fullmatch(target.partition(b"?")[2].decode("latin-1")):
            raise Refused(400, "only the query parameters of the agent's program are forwarded to the model's server")
        if any(name == b"content-encoding" and value.strip().lower() != b"identity" for name, value in fields):
            raise Refused(415, "a compressed request is not forwarded: send it without Content-Encoding")
        self._check_limits()

    def approve(self, method: bytes, target: bytes, headers: Headers, body: bytes) -> Approved:
        """Return the request to forward, after `check_head`. Raises Refused if its model is not the job's."""
        model = None
        if method == b"POST":
            model, body = self._check_body(body, asks_for_usage=self._must_ask_for_usage(target))
        elif body:
            raise Refused(400, "a GET request must not have a body")
        named = {
            name.strip().lower()
            for field, value in headers
            if field.lower() == b"connection"
            for name in value.split(b",")
        }
        dropped = _NOT_FORWARDED | named
        kept = [
            (name, value)
            for name, value in headers
            # Some servers read an underscore as a hyphen.
            if not {lower := name.lower(), usual := lower.replace(b"_", b"-")} & dropped
            and not usual.startswith(_PREFIXES_NOT_FORWARDED)
            and not usual.endswith(_CREDENTIALS)
        ]
        length = str(len(body)).encode()
        of_body = [(b"content-type", b"application/json"), (b"content-length", length)] if method == b"POST" else []
        host = (b"host", self.server.authority.encode("ascii", "replace"))
        return Approved(method, target, [host, *kept, *self.server.credential, *of_body], body, model)

    def expected_usage(self, request: Approved) -> Usage:
        """Return what a request may consume at most, roughly. Nothing is expected of a job without limits."""
        if not self._limits or not request.is_answered_by_a_model:
            return Usage()
        asked = output_limit(request.path, request.body) or _USUAL_OUTPUT_TOKENS
        # Programs ask for much more than they need. A job with a low limit shall not run one request at a time.
        most = asked if self._limits.tokens is None else min(asked, self._limits.tokens // _PARALLEL_REQUESTS)
        tokens = most_input_tokens(request.body)
        usage = Usage(input_tokens=tokens, output_tokens=most)
        cached = replace(usage, cache_write_tokens=tokens)
        dearest = [self.with_cost(request, usage), self.with_cost(request, cached, hour_cache_tokens=tokens)]
        return max(dearest, key=lambda each: each.cost_usd or 0)

    def with_cost(self, request: Approved, usage: Usage, hour_cache_tokens: int = 0) -> Usage:
        """Return the usage of a request with its cost, which is None if no price is known. See `cost_of`."""
        return self._with_cost(request.model, usage, hour_cache_tokens)

    def usage_of_shares(self, request: Approved, shares: Iterable[Share]) -> Usage:
        """Return what shares of a request have consumed together, with their cost."""
        usages = (self._with_cost(each.model or request.model, each.usage, each.hour_cache_tokens) for each in shares)
        return sum(usages, Usage())

    def _with_cost(self, model: str | None, usage: Usage, hour_cache_tokens: int) -> Usage:
        prices = prices_of(model, self.task)
        return replace(usage, cost_usd=cost_of(usage, prices, hour_cache_tokens)) if prices else usage

    def usage_of_abandoned(self, request: Approved, expected: Usage, seconds: float) -> Usage:
        """Return the most that a request has consumed if its client left before the end of the answer.

        The client may have got all that it needs: a model also writes what it does not send. A server notices late that
        nobody waits for an answer which it sends as a whole.

        expected: see `expected_usage`. seconds: since the request was sent.
        """
        if expected == Usage():
            return expected
        asked = output_limit(request.path, request.body)
        if not is_streamed(request.body):
            return replace(expected, output_tokens=asked or _MOST_OUTPUT_TOKENS)
        written = int(seconds * TOKENS_PER_SECOND)
        return replace(expected, output_tokens=min(written, asked or written))

    def has_room_for(self, expected: Usage) -> bool:
        """Return whether a request fits into the limits together with those that are running. One alone always does."""
        if not self._running or expected == Usage():
            return True
        return not self._exceeds_limits(sum([*self._running, expected], self.usage))

    def begin(self, expected: Usage) -> None:
        """Count a request as running. Raises Refused if a limit is already exceeded."""
        self._check_limits()
        self._running.append(expected)

    def end(self, expected: Usage, usage: Usage) -> None:
        """Count the usage of a running request, which has ended, with its cost."""
        self._running.remove(expected)
        self.usage += usage

    def has_token(self, headers: Headers) -> bool:
        """Return whether a request is from the agent. headers: with names in lower case."""
        offered = [value for name, value in headers if name == b"x-api-key"]
        offered += [
            value[7:] for name, value in headers if name == b"authorization" and value[:7].lower() == b"bearer "
        ]
        token = self.token.encode()
        return bool(offered) and all(hmac.compare_digest(value.strip(), token) for value in offered)

    @staticmethod
    def _check_framing(headers: Headers) -> None:
        """Raise Refused for a body whose length two servers could read differently."""
        names = [name for name, _ in headers]
        if b"transfer-encoding" in names and b"content-length" in names:
            raise Refused(400, "a request must not have both Content-Length and Transfer-Encoding")
        if names.count(b"transfer-encoding") > 1 or names.count(b"content-length") > 1:
            raise Refused(400, "a request must not repeat Content-Length or Transfer-Encoding")

    def _allows(self, method: str, target: str) -> bool:
        path = target.partition("?")[0]
        if not target.isascii() or "#" in target or not path.startswith(self.server.prefix):
            return False
        path = path[len(self.server.prefix) :]
        if method == "POST":
            return path in _POST[self.server.api]
        return method == "GET" and _GET[self.server.api].fullmatch(path) is not None

    def _check_limits(self) -> None:
        try:
            self._limits.check(self.usage)
        except GiveUp as over:
            raise Refused(OVER_LIMIT, str(over)) from None

    def _exceeds_limits(self, usage: Usage) -> bool:
        try:
            self._limits.check(usage)
        except GiveUp:
            return True
        return False

    def _must_ask_for_usage(self, target: bytes) -> bool:
        path = target.partition(b"?")[0].decode("latin-1")
        return bool(self._limits) and path.endswith(_WITH_STREAM_OPTIONS)

    def _check_body(self, body: bytes, *, asks_for_usage: bool) -> tuple[str, bytes]:
        """Return the model that a body names, and the body with each of its fields, and of its tools' fields, once.

        Parsers differ in which of two equal fields they use, so that a second `model` could reach the server.

        asks_for_usage: whether a stream is told to report its usage.
        """
        # A shorter body cannot have too many.
        if len(body) > MOST_MARKS and sum(map(body.count, (b"{", b"[", b",", b'"'))) > MOST_MARKS:
            raise Refused(413, f"the body must have at most {MOST_MARKS} brackets, commas and quotes")
        try:
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            model = msgspec.json.decode(fields.get("model", _NULL), type=str)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refused(400, "the body must be a JSON object with the name of a model") from None
        if unusual := next((name for name in fields if name != name.casefold().strip()), None):
            # Some servers ignore case, so that such a field would be another one there.
            raise Refused(400, f"the fields of a request are written in small letters: {unusual[:100]!r} is not")
        if any(name != "model" and _MORE_MODELS.fullmatch(name.casefold().strip()) for name in fields):
            raise Refused(400, "the body must name one model, in the field `model`")
        if bytes(fields.get("background", b"false")) not in (b"false", b"null"):
            raise Refused(400, "a response in the background is not forwarded, as its usage cannot be measured")
        self._check_model(model)
        self._check_price(fields)
        is_chosen = model == self.task.config.model  # by whoever has chosen the rule, too
        if is_restricted(self.task.config.network) and not is_chosen and searches_by_itself(model):
            raise Refused(400, f"the model {model[:200]!r} searches the web, and this job has a network rule", model)
        tools = _tools_of(fields.get("tools", _NULL))
        for other in _further_models(fields, tools):
            self._check_model(other)
        if tools:
            fields["tools"] = msgspec.Raw(msgspec.json.encode(tools))
        if asks_for_usage and bytes(fields.get("stream", _NULL)) not in (b"false", b"null"):
            fields["stream_options"] = _with_usage(fields.get("stream_options", _NULL))
        once = msgspec.json.encode(fields)
        return model, _without_reach(once) if is_restricted(self.task.config.network) else once

    def _check_price(self, fields: Mapping[str, msgspec.Raw]) -> None:
        """Raise Refused for a request that costs more than its tokens, or for several answers in a job with a limit."""
        for name, usual in _AT_USUAL_PRICES.items():
            if name in fields and bytes(fields[name]) not in usual and not self.task.config.fast:
                raise Refused(400, f"this answer would cost more, and the job is not `fast`: leave out `{name}`")
        if not self._limits:
            return
        for name in _NUMBERS_OF_ANSWERS:
            if bytes(fields.get(name, msgspec.Raw(b"1"))) not in (b"1", b"null"):
                raise Refused(400, f"a job with a limit gets one answer at a time: leave out `{name}`")
        if bytes(fields.get("prompt", msgspec.Raw(b'""'))).startswith(b"["):  # of /completions: several prompts
            raise Refused(400, "a job with a limit gets one answer at a time: send `prompt` as a text")

    def _check_model(self, model: str) -> None:
        if not model:  # some servers answer with their usual model, whose price could not be found
            raise Refused(400, "the body must name a model")
        if model not in self._models:
            raise Refused(404, f"the model {model[:200]!r} is not the job's: use {self.task.config.model!r}", model)


def _without_reach(body: bytes) -> bytes:
    try:
        return without_reach(body)
    except TooManyValues:
        raise Refused(413, f"a job with a network rule sends at most {MOST_VALUES} values in a request") from None
    except ReachesOthers as found:
        message = f"{found} would make the model's server reach other hosts, which this job may not"
        raise Refused(400, message) from None


def _with_usage(options: msgspec.Raw) -> msgspec.Raw:
    """Return the options of a stream with a report of its usage. Raises Refused unless they are null or an object."""
    try:
        given = msgspec.json.decode(options, type=dict[str, msgspec.Raw] | None) or {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(400, "`stream_options` must be an object") from None
    return msgspec.Raw(msgspec.json.encode({**given, "include_usage": msgspec.Raw(b"true")}))


def _tools_of(tools: msgspec.Raw) -> list[dict[str, msgspec.Raw]]:
    """Return the tools of a request, each field once. Raises Refused unless `tools` is null or a list of objects."""
    try:
        return msgspec.json.decode(tools, type=list[dict[str, msgspec.Raw]] | None) or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(400, "`tools` must be a list of objects") from None


def _further_models(fields: Fields, tools: Sequence[Fields]) -> list[str]:
    """Return the models that a request names besides its own. Raises Refused for a field that cannot be examined."""
    try:
        return list(further_models(fields, tools))
    except TooManyValues:
        raise Refused(413, "a field of the body that may name a model is too large") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(400, "a field of the body that may name a model is not JSON") from None
