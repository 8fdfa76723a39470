"""A fake GitHub API on loopback: it issues tokens to an App and delivers events to the App's webhook."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import httpx2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from tests.support.deliveries import github_headers
from tests.support.loopback import QuietHandler, served_by

APP_ID = "4711"
APP_KEY = RSAKey.generate_key(2048)
APP_KEY_PEM = APP_KEY.as_pem(private=True).decode()
INSTALLATION = 42


@dataclass
class FakeGitHub:
    """A GitHub whose App is installed for `repositories` and delivers its events to `hook_url`.

    grants:     the body of each granted request for a token.   claims: the claims of each valid App token.
    statuses:   statuses to answer the next requests with, instead of handling them.
    headers:    headers to add to the next answer.
    deliveries: each attempt to deliver, in order.              page: the number of deliveries on a page of their list.
    """

    url: str = ""
    repositories: set[str] = field(default_factory=lambda: {"octo/demo"})
    grants: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    hook_url: str = ""
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    page: int = 2
    _sent: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def deliver(self, event: str, body: bytes) -> None:
        """Send an event to the App's webhook once, and record the delivery with its result."""
        guid = str(uuid.uuid4())
        self._sent[guid] = (event, body)
        self._attempt(guid, redelivery=False)

    def _attempt(self, guid: str, *, redelivery: bool) -> None:
        event, body = self._sent[guid]
        try:
            answer = httpx2.post(self.hook_url, content=body, headers=github_headers(event, body, delivery=guid))
            status = "OK" if answer.is_success else f"Invalid HTTP Response: {answer.status_code}"
        except httpx2.HTTPError:
            status = "failed to connect to host"
        delivery = {"id": len(self.deliveries) + 1, "guid": guid, "event": event, "redelivery": redelivery}
        self.deliveries.append(delivery | {"delivered_at": datetime.now(UTC).isoformat(), "status": status})

    def _answer_hook_route(self, method: str, path: str, query: str) -> tuple[int, Any]:
        if (method, path) == ("GET", "/app/hook/config"):
            return 200, {"url": self.hook_url, "content_type": "json"}
        if (method, path) == ("GET", "/app/hook/deliveries"):
            start = int(parse_qs(query).get("cursor", ["0"])[0])
            shown = self.deliveries[::-1][start : start + self.page]
            if start + self.page < len(self.deliveries):
                address = f"https://api.github.test/app/hook/deliveries?per_page=100&cursor={start + self.page}"
                self.headers["Link"] = f'<{address}>; rel="next"'
            return 200, shown
        number = path.removeprefix("/app/hook/deliveries/").removesuffix("/attempts")
        if method == "POST" and number.isdecimal() and 0 < int(number) <= len(self.deliveries):
            self._attempt(self.deliveries[int(number) - 1]["guid"], redelivery=True)
            return 202, {}
        return 404, {"message": "Not Found"}

    def answer(self, method: str, target: str, proof: str, body: bytes) -> tuple[int, Any]:
        path, _, query = target.partition("?")
        if self.statuses:
            return self.statuses.pop(0), {"message": "scripted by the test"}
        try:
            self.claims.append(jwt.decode(proof, APP_KEY, algorithms=["RS256"]).claims)
        except JoseError:
            return 401, {"message": "A JSON web token could not be decoded"}
        if path.startswith("/app/hook/"):
            return self._answer_hook_route(method, path, query)
        if method == "GET" and path.removeprefix("/repos/").removesuffix("/installation") in self.repositories:
            return 200, {"id": INSTALLATION, "permissions": {"contents": "write", "issues": "read", "members": "read"}}
        if (method, path) == ("POST", f"/app/installations/{INSTALLATION}/access_tokens"):
            self.grants.append(json.loads(body))
            return 201, {"token": f"ghs_test_token_{len(self.grants)}", "expires_at": "2030-01-01T13:00:00Z"}
        return 404, {"message": "Not Found"}


@contextmanager
def a_github() -> Iterator[FakeGitHub]:
    github = FakeGitHub()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            proof = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, answer = github.answer(self.command, self.path, proof, self.body())
            self.answer(status, json.dumps(answer).encode(), github.headers)
            github.headers.clear()

        do_POST = do_GET

    with served_by(Handler) as port:
        github.url = f"http://127.0.0.1:{port}"
        yield github
