"""Decide which requests of an agent reach the model's server. Does no I/O."""

import hmac
import re
from collections.abc import Mapping
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
        for path in ("/responses", "/responses/compact", "/chat/completions", "/completions")
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
        model = None
        if method == b"POST":
            model, body = self._body_rules.check(target.partition(b"?")[0].decode("latin-1"), body)
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
        return ApprovedRequest(method, target, [host, *kept, *self.server.credential, *of_body], body, model)

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
