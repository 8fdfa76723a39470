"""Decide which requests of an agent reach the model's server, and how they are changed. Does no I/O."""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from labrats.executor.key_proxy.budget import Budget
from labrats.executor.key_proxy.model_server import Api, ApprovedRequest, Headers, ModelServer
from labrats.executor.key_proxy.reach import (
    MOST_VALUES,
    ReachesOthers,
    TooManyValues,
    searches_by_itself,
    without_reach,
)
from labrats.executor.key_proxy.request_fields import FieldFilter
from labrats.executor.key_proxy.responses import Refused
from labrats.model.model_names import AllowedModels
from labrats.model.network import limits_model_server
from labrats.model.protocol import Task

MOST_MARKS: Final = 2_000_000
"""Limit on the brackets, commas and quotes of a body. Reading it takes up to some 150 bytes of memory for each."""

_STREAM_WITH_OPTIONS: Final = "/chat/completions"
"""End of the path whose streams report their usage only if the request asks for it."""

_AT_USUAL_PRICES: Final[Mapping[str, frozenset[bytes]]] = {
    "speed": frozenset({b"null", b'"standard"'}),
    "service_tier": frozenset({b"null", b'"auto"', b'"default"', b'"flex"', b'"standard_only"'}),
    "inference_geo": frozenset({b"null", b'"global"'}),
}
"""Fields by which a request asks for a faster answer, or one from a place, and their values that cost no more."""

_NULL: Final = msgspec.Raw(b"null")


class CheckedBody(NamedTuple):
    """A body as it is forwarded. removed: the names of the fields that are not forwarded."""

    model: str
    content: bytes
    removed: Sequence[str]


class BodyRules:
    """The rules for the bodies of one attempt's requests."""

    def __init__(self, task: Task) -> None:
        self._config = task.config
        self._models = AllowedModels.of(task.config)
        self._limits_server = limits_model_server(task.config.network, task.endpoint)

    def check(self, path: str, body: bytes) -> CheckedBody:
        """Return a body as it is forwarded: with its listed fields, each of them and of its tools' fields once.

        Parsers differ in which of two equal fields they use, so that a second `model` could reach the server. A stream
        is told to report its usage: without it, the report of the agent's program would count. Raises Refused.

        path: of the request.
        """
        # A shorter body cannot have too many.
        if len(body) > MOST_MARKS and len(body) - len(body.translate(None, b'{[,"')) > MOST_MARKS:
            raise Refused(413, f"the body must have at most {MOST_MARKS} brackets, commas and quotes")
        try:
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            model = msgspec.json.decode(fields.get("model", _NULL), type=str)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refused(400, "the body must be a JSON object with the name of a model") from None
        filter_ = FieldFilter()
        fields = filter_.keep_listed(path, fields)
        if bytes(fields.get("background", b"false")) not in (b"false", b"null"):
            raise Refused(400, "a response in the background is not forwarded, as its usage cannot be measured")
        self._check_model(model)
        self._check_price(fields)
        is_chosen = model == self._config.model  # by whoever has chosen the rule, too
        if self._limits_server and not is_chosen and searches_by_itself(model):
            raise Refused(400, f"the model {model[:100]!r} searches the web, and this job has a network rule", model)
        for other in filter_.models:
            self._check_model(other)
        if path.endswith(_STREAM_WITH_OPTIONS) and bytes(fields.get("stream", _NULL)) not in (b"false", b"null"):
            fields["stream_options"] = _with_usage(fields.get("stream_options", _NULL))
        once = msgspec.json.encode(fields)
        return CheckedBody(model, _without_reach(once) if self._limits_server else once, filter_.removed)

    def _check_price(self, fields: Mapping[str, msgspec.Raw]) -> None:
        """Raise Refused for a request that costs more than its tokens."""
        for name, usual in _AT_USUAL_PRICES.items():
            if name in fields and bytes(fields[name]) not in usual and not self._config.fast:
                raise Refused(400, f"this answer would cost more, and the job is not `fast`: leave out `{name}`")

    def _check_model(self, model: str) -> None:
        if not model:  # some servers answer with their usual model, whose price could not be found
            raise Refused(400, "the body must name a model")
        if model not in self._models:
            raise Refused(404, f"the model {model[:100]!r} is not the job's: use {self._config.model!r}", model)


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


MOST_BODY_BYTES: Final = 32 * 1024 * 1024
"""Largest body of a request, as of the Messages API."""

_POST: Final[Mapping[Api, frozenset[str]]] = {
    "anthropic": frozenset({"/v1/messages", "/v1/messages/count_tokens"}),
    "openai": frozenset(
        f"{version}{path}"
        for version in ("", "/v1")
        for path in ("/responses", "/responses/compact", "/chat/completions")
    ),
}
_MODEL: Final = r"(/(?!\.{1,2}$)[\w.:@-]+)"
_GET: Final[Mapping[Api, re.Pattern[str]]] = {
    "anthropic": re.compile(rf"/v1/models{_MODEL}?"),
    "openai": re.compile(rf"(/v1)?/models{_MODEL}?"),
}
"""The paths that are forwarded. Others could, with the same key, read files or start work that is not measured."""

_QUERY: Final = re.compile(r"((beta|api-version|client_version|limit|after_id|before_id)=[\w.:-]*(&|$))*")
"""The parameters of the programs and of Azure. Gateways have others, such as one for another model."""

_FORWARDED: Final = frozenset(
    b"accept anthropic-beta anthropic-dangerous-direct-browser-access anthropic-version conversation-id "
    b"idempotency-key openai-beta originator session-id thread-id traceparent tracestate user-agent version x-app "
    b"x-client-request-id x-openai-internal-codex-responses-lite x-openai-subagent".split()
)
_FORWARDED_PREFIXES: Final = (b"x-claude-code-", b"x-codex-", b"x-stainless-")
"""The headers that are forwarded: those of the agents' programs and of the providers' libraries.

In others, some servers and gateways find another method, path, host, model or key than those of the request, or who
pays. The proxy sets those of the credential and the body itself. Without Accept-Encoding, usage is readable. A body is
JSON, also for a server that would read a form if Content-Type said so.
"""


@dataclass
class RequestPolicy:
    """The rules for the requests of one attempt. token: of the agent."""

    token: str = field(repr=False)
    server: ModelServer
    task: Task

    def __post_init__(self) -> None:
        self.budget = Budget(self.task)
        self._body_rules = BodyRules(self.task)

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
        self.budget.check()

    def approve(self, method: bytes, target: bytes, headers: Headers, body: bytes) -> ApprovedRequest:
        """Return the request to forward, after `check_head`. Raises Refused if its model is not the job's."""
        model: str | None = None
        removed: Sequence[str] = ()
        if method == b"POST":
            model, body, removed = self._body_rules.check(target.partition(b"?")[0].decode("latin-1"), body)
        elif body:
            raise Refused(400, "a GET request must not have a body")
        # Some servers read an underscore as a hyphen.
        usual = [(name.lower().replace(b"_", b"-"), name, value) for name, value in headers]
        kept = [(name, value) for key, name, value in usual if key in _FORWARDED or key.startswith(_FORWARDED_PREFIXES)]
        length = str(len(body)).encode()
        of_body = [(b"content-type", b"application/json"), (b"content-length", length)] if method == b"POST" else []
        host = (b"host", self.server.authority.encode("ascii", "replace"))
        return ApprovedRequest(method, target, [host, *kept, *self.server.credential, *of_body], body, model, removed)

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
