"""A scripted login server for Codex: it renews a login once for each refresh token, and refuses one that was used."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.loopback import QuietHandler, served_by


def a_jwt(name: str, expires_in: float, age: float = 0.0) -> str:
    """Return an unsigned token that expires in so many seconds, and was issued `age` seconds ago."""
    now = int(time.time())
    claims = {"exp": now + int(expires_in), "iat": now - int(age), "jti": name}
    return f"{_part({'alg': 'none'})}.{_part(claims)}.dGVzdA"


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@dataclass
class LoginServer:
    """The server. lifetime: of its tokens, in seconds.

    valid:      the refresh token that it accepts. refused: the requests with another one.
    access:     the access tokens that it has issued.
    delay:      seconds from a renewal to its answer.
    fault:      a status with which it answers once, without renewing anything.
    """

    lifetime: float = 10 * 86_400
    valid: str = "refresh-token-1"
    access: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    delay: float = 0.0
    fault: int | None = None
    port: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/oauth/token"

    def login(self, *, expires_in: float = -60, age: float = 3600, **document: Any) -> str:
        """Return the content of `auth.json` with the valid refresh token, by default with an expired access token."""
        tokens = {"id_token": a_jwt("id", expires_in), "access_token": a_jwt("access-0", expires_in, age)}
        usual = {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "last_refresh": "2030-01-01T00:00:00Z"}
        return json.dumps(usual | {"tokens": tokens | {"refresh_token": self.valid, "account_id": "acc-1"}} | document)

    def answer(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.requests.append(request)
            if fault := self.fault:
                self.fault = None
                return fault, {}
            if request.get("refresh_token") != self.valid:
                self.refused.append(str(request.get("refresh_token")))
                return 401, {"error": {"code": "refresh_token_reused", "message": "it was already used"}}
            number = len(self.access) + 1
            self.valid = f"refresh-token-{number + 1}"
            self.access.append(a_jwt(f"access-{number}", self.lifetime))
            return 200, {"access_token": self.access[-1], "refresh_token": self.valid, "id_token": a_jwt("id", 3600)}


@contextmanager
def a_login_server(**fields: Any) -> Iterator[LoginServer]:
    """Serve on loopback until the context exits."""
    server = LoginServer(**fields)

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            status, answer = server.answer(json.loads(self.body()))
            time.sleep(server.delay)
            self.answer(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    with served_by(Handler) as server.port:
        yield server
