"""Decide which requests of an agent reach the model's server. Does no I/O."""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from labrats.executor.key_proxy.approved_request import ApprovedRequest, Headers
from labrats.executor.key_proxy.budget import Budget
from labrats.executor.key_proxy.model_server import Api, ModelServer
from labrats.executor.key_proxy.request_body import BodyRules
from labrats.executor.key_proxy.responses import Refused
from labrats.model.protocol import Task

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
