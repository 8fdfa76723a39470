"""Who is calling: by an API key, or by the cookie of a session."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request

from labrats.api.auth.keys import Caller, KeyRing
from labrats.api.auth.permissions import Access
from labrats.api.auth.sessions import Session, Sessions
from labrats.api.http.errors import ApiError
from labrats.api.services import Services
from labrats.model.errors import RetryLater
from labrats.ports import Clock

SESSION_COOKIE: Final = "auth_token"
_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Credential:
    """What let a request in, and who knows whom it stands for."""

    text: str
    known_to: KeyRing | Sessions

    def caller(self, now: datetime) -> Caller | None:
        """Whom it stands for; None once it has expired or was revoked."""
        return self.known_to.caller(self.text, now)

    async def lapse(self, clock: Clock) -> None:
        """Return as soon as it has expired or was revoked."""
        while caller := self.caller(now := clock.now()):
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self.known_to.changes.next.wait())]
            if caller.expires_at:
                waits.append(asyncio.ensure_future(clock.sleep((caller.expires_at - now).total_seconds())))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()


def authenticate(request: Request, services: Services, access: Access) -> tuple[Caller, Credential]:
    """Who calls a route of that `access`, and by what. An `Authorization` header always beats the cookie.

    Raises 401; 403 for a write that another site may have made the browser send; 429 for who guesses keys.
    """
    if "authorization" in request.headers:
        return _by_key(request, services)
    if access is not Access.KEY and SESSION_COOKIE in request.cookies:
        return _by_session(request, services)
    raise _unauthorized(access)


def bearer_key(request: Request) -> str:
    """The API key that came with the request; empty when none did."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _by_key(request: Request, services: Services) -> tuple[Caller, Credential]:
    credential, now = Credential(bearer_key(request), services.api_keys), services.clock.now()
    address = request.client.host if request.client else ""
    if caller := credential.caller(now):
        services.api_keys.refuse_unless_sure(caller)
        return caller, credential
    if not services.api_keys.synced.is_set():
        raise RetryLater("the engine is still reading the API keys that it has stored")
    if seconds := services.auth_rate_limit.seconds_to_wait(address, now):
        message = "too many wrong API keys came from your address; try again later"
        raise ApiError(429, "too_many_attempts", message, {"Retry-After": str(seconds)})
    if credential.text:
        services.auth_rate_limit.note(address, credential.text, now)
    raise _unauthorized(Access.KEY)


def _by_session(request: Request, services: Services) -> tuple[Caller, Credential]:
    if (session := session_of(request, services)) is None:
        raise _unauthorized(Access.CALLER)
    if request.method not in _SAFE_METHODS:
        refuse_foreign_origin(request, services)
    return session.caller, Credential(request.cookies[SESSION_COOKIE], services.sessions)


def session_of(request: Request, services: Services) -> Session | None:
    """The session whose cookie came with the request."""
    if not services.sessions.synced.is_set():
        raise RetryLater("the engine is still reading which sessions were ended")
    return services.sessions.find(request.cookies.get(SESSION_COOKIE, ""), services.clock.now())


def refuse_foreign_origin(request: Request, services: Services) -> None:
    """Raises 403 unless the browser says that a page of our own sends the request.

    Browsers send a cookie along whoever asks them to, but say who did, in headers that no page can write.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site in (None, "same-origin") and (_is_own(origin, request, services) if origin else site is not None):
        return
    message = "this request comes from another site, or does not say where from; use the dashboard, or an API key"
    raise ApiError(403, "foreign_origin", message)


def _is_own(origin: str, request: Request, services: Services) -> bool:
    """The scheme is not compared: behind a proxy with TLS, ours is not the one that the browser sees."""
    named = urlsplit(origin).netloc  # empty for `null`, which any page can have sent
    return origin == services.settings.public_url or (bool(named) and named == request.headers.get("host"))


def _unauthorized(access: Access) -> ApiError:
    signed_in = "" if access is Access.KEY else ", or sign in"
    message = f"send a valid API key as `Authorization: Bearer KEY`{signed_in}"
    return ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": 'Bearer realm="labrats"'})
