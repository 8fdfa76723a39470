"""Credentials: the App's JWT, tokens of its installation, personal tokens."""

import base64
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from tests.support.github.calls import Actor, Json
from tests.support.github.errors import ApiError, not_found

APP_ID: Final = "4711"
APP_SLUG: Final = "labrats-test"
APP_LOGIN: Final = f"{APP_SLUG}[bot]"
APP_USER_ID: Final = 4712
APP_KEY: Final = RSAKey.generate_key(2048)
APP_KEY_PEM: Final = APP_KEY.as_pem(private=True).decode()
INSTALLATION: Final = 42
APP: Final[Json] = {"id": int(APP_ID), "slug": APP_SLUG, "name": "Labrats Test", "client_id": "Iv1.test"}

GRANTED: Final = {
    "metadata": "read",
    "contents": "write",
    "issues": "write",
    "pull_requests": "write",
    "actions": "read",
    "checks": "write",
    "statuses": "write",
    "members": "read",
}
"""Permissions of the installation, unless a test says otherwise."""


@dataclass
class Access:
    """All credentials.

    permissions: of the installation.     installed: repositories where the App is installed; None: all.
    events:      to which the App subscribes.
    withheld:    permissions that tokens lack although they are granted.
    lag_seconds: age below which a token is unknown.
    suspended:   true: the installation is.
    codes:       of Apps that were created by a manifest, with the manifest, until each is used.
    grants:      the body of each granted request for a token.   claims: the claims of each valid App JWT.
    """

    permissions: dict[str, str] = field(default_factory=lambda: dict(GRANTED))
    events: list[str] = field(default_factory=lambda: ["issues", "issue_comment", "pull_request"])
    installed: set[str] | None = None
    withheld: set[str] = field(default_factory=set)
    lag_seconds: float = 0
    suspended: bool = False
    codes: dict[str, Json] = field(default_factory=dict)
    grants: list[Json] = field(default_factory=list)
    claims: list[Json] = field(default_factory=list)
    _tokens: dict[str, Actor] = field(default_factory=dict)
    _created: dict[str, float] = field(default_factory=dict)

    def add_person(self, token: str, login: str, user_id: int = 1, permissions: dict[str, str] | None = None) -> None:
        """Accept a personal token. permissions: of a fine-grained one; a classic one has all."""
        self._tokens[token] = Actor("person", login, user_id, permissions)

    def create_app(self, code: str) -> Json:
        """Return the App of a code, with its credentials. It is not installed yet. Raises ApiError."""
        if (manifest := self.codes.pop(code, None)) is None:
            raise not_found()
        self.permissions, self.events = manifest["default_permissions"], manifest.get("default_events", [])
        self.installed = set()
        secret = "whsec_of-the-app-of-a-test" if manifest.get("hook_attributes") else None
        return {"pem": APP_KEY_PEM, "webhook_secret": secret, "client_secret": "unused"}

    def revoke_all(self) -> None:
        """Let all tokens end, as they do after an hour."""
        self._tokens.clear()

    def installed_on(self, repository: str) -> bool:
        return self.installed is None or repository in self.installed

    def rename(self, old: str, new: str) -> None:
        """Let the tokens for a repository be for its new name."""
        for token, actor in self._tokens.items():
            if actor.repositories and old in actor.repositories:
                self._tokens[token] = replace(actor, repositories=actor.repositories - {old} | {new})
        if self.installed and old in self.installed:
            self.installed = self.installed - {old} | {new}

    def create_token(self, body: Json, owned: Mapping[str, int]) -> tuple[str, dict[str, str]]:
        """Create a token of the installation, and return it with its permissions.

        owned: the ids of its repositories by full name.
        """
        if self.suspended:
            raise ApiError(403, "This installation has been suspended")
        wanted = body.get("permissions", self.permissions)
        limited = Actor("installation", permissions=self.permissions)
        if not all(limited.may(f"{name}:{level}") for name, level in wanted.items()):
            raise ApiError(422, "The permissions requested are not granted to this installation.")
        reached = {name for name in owned if self.installed_on(name)}
        if "repositories" in body:
            reached = {name for name in reached if name.partition("/")[2] in body["repositories"]}
            if len(reached) != len(body["repositories"]):
                problem = "does not exist or is not accessible to the parent installation."
                raise ApiError(422, f"There is at least one repository that {problem}")
        if "repository_ids" in body:
            reached = {name for name in reached if owned[name] in body["repository_ids"]}
            if len(reached) != len(body["repository_ids"]):
                raise ApiError(422, "There is at least one repository that does not exist.")
        self.grants.append(body)
        token = f"ghs_test_token_{len(self.grants)}"
        granted = {name: level for name, level in wanted.items() if name not in self.withheld}
        self._tokens[token] = Actor("installation", APP_LOGIN, APP_USER_ID, granted, frozenset(reached))
        self._created[token] = time.monotonic()
        return token, granted

    def identify(self, authorization: str) -> Actor:
        """Return the actor of a request's header. Raises ApiError for unknown credentials."""
        scheme, _, proof = authorization.partition(" ")
        if not proof:
            return Actor()
        if scheme.lower() == "basic":
            proof = base64.b64decode(proof).decode().partition(":")[2]
        if actor := self._tokens.get(proof):
            if time.monotonic() - self._created.get(proof, -math.inf) < self.lag_seconds:
                raise ApiError(401, "Bad credentials")
            return actor
        if proof.count(".") != 2:
            raise ApiError(401, "Bad credentials")
        return self._app(proof)

    def _app(self, proof: str) -> Actor:
        try:
            claims: dict[str, Any] = jwt.decode(proof, APP_KEY, algorithms=["RS256"]).claims
        except (JoseError, ValueError):
            raise ApiError(401, "A JSON web token could not be decoded") from None
        if claims.get("iss") != APP_ID:
            raise not_found()
        self.claims.append(claims)
        return Actor("app", APP_SLUG)
