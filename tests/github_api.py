"""A GitHub on loopback that gives tokens to an App, as strict as the real one where it matters."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

APP_ID = "4711"
APP_KEY = RSAKey.generate_key(2048)
APP_KEY_PEM = APP_KEY.as_pem(private=True).decode()
INSTALLATION = 42


@dataclass
class FakeGitHub:
    """Its App is installed for `repositories`. asked: each request for a token; answers: statuses to give instead."""

    url: str = ""
    repositories: set[str] = field(default_factory=lambda: {"octo/demo"})
    asked: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def answer(self, method: str, path: str, proof: str, body: bytes) -> tuple[int, Any]:
        if self.statuses:
            return self.statuses.pop(0), {"message": "as the test says"}
        try:
            self.claims.append(jwt.decode(proof, APP_KEY, algorithms=["RS256"]).claims)
        except JoseError:
            return 401, {"message": "A JSON web token could not be decoded"}
        if method == "GET" and path.removeprefix("/repos/").removesuffix("/installation") in self.repositories:
            return 200, {"id": INSTALLATION, "permissions": {"contents": "write", "issues": "read", "members": "read"}}
        if (method, path) == ("POST", f"/app/installations/{INSTALLATION}/access_tokens"):
            self.asked.append(json.loads(body))
            return 201, {"token": f"ghs_test_token_{len(self.asked)}", "expires_at": "2030-01-01T13:00:00Z"}
        return 404, {"message": "Not Found"}


@contextmanager
def a_github() -> Iterator[FakeGitHub]:
    github = FakeGitHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            proof = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, answer = github.answer(self.command, self.path, proof, body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_POST = do_GET  # noqa: N815, the library's name

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    github.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
