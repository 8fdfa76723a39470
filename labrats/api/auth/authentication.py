"""Authentication of requests by API key or session cookie."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request

from labrats.api.auth.key_uses import KeyUses
from labrats.api.auth.keys import ApiKeyIndex
from labrats.api.auth.notifier import Notifier
from labrats.api.auth.rate_limit import AuthRateLimit
from labrats.api.auth.sessions import Session, Sessions
from labrats.api.http.cookies import cookie_of
from labrats.api.http.errors import ApiError
from labrats.model.caller import Caller
from labrats.model.errors import RetryLater
from labrats.ports import Clock

SESSION_COOKIE: Final = "auth_token"
SESSION_SECRET: Final = "Labrats-Session-Secret"  # noqa: S105, a header's name
"""The header that shows that the dashboard sends a request: other ports of its host get the cookie, but not this."""

_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Credential:
    """An API key or a session's token.

    caller: returns the caller; None once the credential has expired or was revoked. changes: notified then.
    """

    text: str
    caller: Callable[[datetime], Caller | None]
    changes: Notifier

    async def wait_until_invalid(self, clock: Clock) -> None:
        """Return as soon as the credential has expired or was revoked."""
        while caller := self.caller(now := clock.now()):
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self.changes.next.wait())]
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
        raise unauthorized()

    def session(self, request: Request) -> Session | None:
        """Return the session of the cookie; None without a valid one, or without its secret.

        Raises RetryLater before the first sync.
        """
        if not self.sessions.synced.is_set():
            raise RetryLater("the engine is still reading which sessions were ended")
        return self.sessions.find(*_token_and_secret(request), self.clock.now())

    def has_own_origin(self, request: Request) -> bool:
        """Return whether the browser says that a page of this engine sends the request.

        A browser sends the cookie with requests of any site, but names the site in headers that pages cannot set.
        """
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        return site in (None, "same-origin") and (self._is_own(origin, request) if origin else site is not None)

    def check_origin(self, request: Request) -> None:
        """Raise ApiError 403 unless a page of this engine sends the request."""
        if not self.has_own_origin(request):
            message = "this request comes from another site, or has no origin; use the dashboard or an API key"
            raise ApiError(403, "foreign_origin", message)

    def _by_key(self, request: Request) -> tuple[Caller, Credential]:
        key, now = _bearer_key(request), self.clock.now()
        credential = Credential(key, partial(self.api_keys.caller, key), self.api_keys.changes)
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
        if key:
            self.rate_limit.record_failure(address, key, now)
        raise unauthorized()

    def _by_session(self, request: Request) -> tuple[Caller, Credential]:
        if (session := self.session(request)) is None:
            raise unauthorized()
        if request.method not in _SAFE_METHODS:
            self.check_origin(request)
        token, secret = _token_and_secret(request)
        caller = partial(self.sessions.caller, token, secret)
        return session.caller, Credential(token, caller, self.sessions.changes)

    def _is_own(self, origin: str, request: Request) -> bool:
        """Return whether the origin is this engine. A TLS proxy changes the scheme, so only the host is compared."""
        named = urlsplit(origin).netloc  # empty for `null`, which any page can send
        return origin == self.public_url or (bool(named) and named == request.headers.get("host"))


def _token_and_secret(request: Request) -> tuple[str, str]:
    """Return the session's token and secret in a request; empty without one."""
    return cookie_of(request, SESSION_COOKIE) or "", request.headers.get(SESSION_SECRET, "")


def _bearer_key(request: Request) -> str:
    """Return the API key in the `Authorization` header; empty without one."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def unauthorized() -> ApiError:
    message = "send a valid API key as `Authorization: Bearer KEY`, or sign in"
    return ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": 'Bearer realm="labrats"'})
