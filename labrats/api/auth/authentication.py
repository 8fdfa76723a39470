"""Authentication of requests by API key or session cookie."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request

from labrats.api.auth.key_uses import KeyUses
from labrats.api.auth.keys import ApiKeyIndex
from labrats.api.auth.rate_limit import AuthRateLimit
from labrats.api.auth.sessions import Session, Sessions
from labrats.api.http.cookies import cookie_of
from labrats.api.http.errors import ApiError
from labrats.model.caller import Caller
from labrats.model.errors import RetryLater
from labrats.ports import Clock

SESSION_COOKIE: Final = "auth_token"
_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Credential:
    """An accepted credential and the registry that resolves it to a caller."""

    text: str
    registry: ApiKeyIndex | Sessions

    def caller(self, now: datetime) -> Caller | None:
        """Return the caller; None once the credential has expired or was revoked."""
        return self.registry.caller(self.text, now)

    async def wait_until_invalid(self, clock: Clock) -> None:
        """Return as soon as the credential has expired or was revoked."""
        while caller := self.caller(now := clock.now()):
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self.registry.changes.next.wait())]
            if caller.expires_at:
                waits.append(asyncio.ensure_future(clock.sleep((caller.expires_at - now).total_seconds())))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()


@dataclass(frozen=True)
class Authenticator:
    """Authentication of callers by API key or session cookie."""

    api_keys: ApiKeyIndex
    key_uses: KeyUses
    sessions: Sessions
    rate_limit: AuthRateLimit
    clock: Clock
    public_url: str | None
    """The engine's configured URL: an allowed origin of requests, besides their own host."""

    def authenticate(self, request: Request) -> tuple[Caller, Credential]:
        """Return the caller and the credential. An `Authorization` header takes precedence over the cookie.

        Raises ApiError: 401 without a valid credential; 403 for a write that another site may have triggered;
        429 after too many wrong keys. Raises RetryLater while keys or sessions cannot be checked.
        """
        if "authorization" in request.headers:
            return self._by_key(request)
        if cookie_of(request, SESSION_COOKIE) is not None:
            return self._by_session(request)
        raise _unauthorized()

    def session(self, request: Request) -> Session | None:
        """Return the session of the cookie; None without a valid one. Raises RetryLater before the first sync."""
        if not self.sessions.synced.is_set():
            raise RetryLater("the engine is still reading which sessions were ended")
        return self.sessions.find(cookie_of(request, SESSION_COOKIE) or "", self.clock.now())

    def check_origin(self, request: Request) -> None:
        """Raise ApiError 403 unless the browser says that a page of this engine sends the request.

        A browser sends the cookie with requests of any site, but names the site in headers that pages cannot set.
        """
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site in (None, "same-origin") and (self._is_own(origin, request) if origin else site is not None):
            return
        message = "this request comes from another site, or has no origin; use the dashboard or an API key"
        raise ApiError(403, "foreign_origin", message)

    def _by_key(self, request: Request) -> tuple[Caller, Credential]:
        credential, now = Credential(_bearer_key(request), self.api_keys), self.clock.now()
        address = request.client.host if request.client else ""
        if caller := credential.caller(now):
            self.api_keys.check_not_stale(caller)
            if caller.secret:
                self.key_uses.record(caller.secret, now)
            return caller, credential
        if not self.api_keys.synced.is_set():
            raise RetryLater("the engine is still reading the API keys that it has stored")
        if seconds := self.rate_limit.seconds_to_wait(address, now):
            message = "too many wrong API keys came from your address; try again later"
            raise ApiError(429, "too_many_attempts", message, {"Retry-After": str(seconds)})
        if credential.text:
            self.rate_limit.record_failure(address, credential.text, now)
        raise _unauthorized()

    def _by_session(self, request: Request) -> tuple[Caller, Credential]:
        if (session := self.session(request)) is None:
            raise _unauthorized()
        if request.method not in _SAFE_METHODS:
            self.check_origin(request)
        return session.caller, Credential(cookie_of(request, SESSION_COOKIE) or "", self.sessions)

    def _is_own(self, origin: str, request: Request) -> bool:
        """Return whether the origin is this engine. A TLS proxy changes the scheme, so only the host is compared."""
        named = urlsplit(origin).netloc  # empty for `null`, which any page can send
        return origin == self.public_url or (bool(named) and named == request.headers.get("host"))


def _bearer_key(request: Request) -> str:
    """Return the API key in the `Authorization` header; empty without one."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _unauthorized() -> ApiError:
    message = "send a valid API key as `Authorization: Bearer KEY`, or sign in"
    return ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": 'Bearer realm="labrats"'})
