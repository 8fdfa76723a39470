"""Signing in at an OpenID provider: the authorization code flow, with PKCE, state and nonce."""

import asyncio
import base64
import hashlib
import json
import re
import secrets
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx2
import structlog
from joserfc.jwk import Key
from pydantic import SecretStr

from labrats.api.auth.id_token import ExpectedClaims, InvalidToken, UnknownKey, check_id_token, usable_keys
from labrats.api.auth.sessions import Signer, User
from labrats.api.http.errors import ApiError
from labrats.model.errors import RetryLater
from labrats.ports import Clock

log = structlog.get_logger()

SCOPE: Final = "openid profile email"
LOGIN_LIFETIME: Final = timedelta(minutes=10)
DISCOVERY_LIFETIME: Final = timedelta(hours=1)
KEYS_LIFETIME: Final = timedelta(minutes=10)
ANSWER_SECONDS: Final = 10.0
ANSWER_BYTES: Final = 1024 * 1024
_PURPOSE: Final = "login"

Connect = Callable[[], httpx2.AsyncClient]


@dataclass(frozen=True)
class ClientRegistration:
    """Who says who may sign in, and how it knows us."""

    issuer: str
    client_id: str
    client_secret: SecretStr | None


@dataclass(frozen=True)
class Endpoints:
    """What of the provider's discovery document concerns us."""

    authorization: str
    token: str
    keys: str
    user_info: str | None
    secret_in_header: bool
    names_itself: bool
    """Whether it says in each answer which issuer it is (RFC 9207)."""


@dataclass(frozen=True)
class _Kept:
    """Something fetched before, good until then."""

    value: Any
    until: datetime


class OpenIdProvider:
    """The OpenID provider at `issuer`. connect: how it is reached."""

    def __init__(self, registration: ClientRegistration, signer: Signer, clock: Clock, connect: Connect) -> None:
        self._registration, self._signer, self._clock, self._connect = registration, signer, clock, connect
        self._endpoints: _Kept | None = None
        self._keys: _Kept | None = None
        self._used_states: dict[str, datetime] = {}

    async def begin(self, redirect_uri: str) -> tuple[str, str]:
        """Where to send the browser, and what it is to keep until it comes back."""
        endpoints = await self._discover()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._registration.client_id,
            "redirect_uri": redirect_uri,
            "scope": SCOPE,
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        joint = "&" if urlsplit(endpoints.authorization).query else "?"
        kept = {"state": state, "nonce": nonce, "verifier": verifier, "redirect_uri": redirect_uri}
        cookie = self._signer.sign(_PURPOSE, kept, self._clock.now() + LOGIN_LIFETIME)
        return f"{endpoints.authorization}{joint}{urlencode(asked)}", cookie

    async def finish(self, cookie: str, answer: Mapping[str, str]) -> User:
        """Who has signed in, by what the browser kept and what the provider sent it back with.

        Raises ApiError 401 for all but the one right answer, RetryLater when the provider is out of reach.
        """
        kept = self._take(cookie, answer.get("state", ""))
        endpoints = await self._discover()
        self._check_issuer(endpoints, answer.get("iss"))
        if error := answer.get("error"):
            raise _refused(f"the OpenID provider did not sign you in ({_word(error)})")
        if not (code := answer.get("code")):
            raise _refused("the OpenID provider sent no code")
        tokens = await self._exchange(endpoints, code, kept)
        claims = await self._claims(tokens.get("id_token"), endpoints, kept["nonce"])
        if endpoints.user_info and not ("name" in claims and "email" in claims):
            claims = await self._user_info(endpoints.user_info, tokens.get("access_token"), claims["sub"]) | claims
        return _user_of(claims, self._registration.issuer)

    def _take(self, cookie: str, state: str) -> dict[str, Any]:
        """What the browser kept for the login of this state, which is used up with it."""
        now = self._clock.now()
        self._used_states = {used: until for used, until in self._used_states.items() if now < until}
        kept = self._signer.read(_PURPOSE, cookie, now)
        if kept is None or not secrets.compare_digest(kept["state"].encode(), state.encode()):
            raise _refused("this login was not begun in this browser, or took too long; begin it again")
        if state in self._used_states:
            raise _refused("this login was finished before; begin it again")
        self._used_states[state] = now + LOGIN_LIFETIME
        return kept

    def _check_issuer(self, endpoints: Endpoints, named: str | None) -> None:
        if named != self._registration.issuer and (named is not None or endpoints.names_itself):
            raise _refused("the answer came from another OpenID provider")

    async def _exchange(self, endpoints: Endpoints, code: str, kept: Mapping[str, Any]) -> dict[str, Any]:
        """The tokens for a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": kept["redirect_uri"],
            "code_verifier": kept["verifier"],
        }
        headers = {}
        if self._registration.client_secret and endpoints.secret_in_header:
            headers["Authorization"] = basic_credentials(
                self._registration.client_id, self._registration.client_secret.get_secret_value()
            )
        else:
            form["client_id"] = self._registration.client_id
            if self._registration.client_secret:
                form["client_secret"] = self._registration.client_secret.get_secret_value()
        status, answer = await self._ask("POST", endpoints.token, headers=headers, data=form)
        if status != 200:
            reason = _word(answer.get("error"))
            log.warning("the OpenID provider gave no tokens", status=status, error=reason)
            raise _refused(f"the OpenID provider did not confirm the login ({reason})")
        return answer

    async def _claims(self, token: Any, endpoints: Endpoints, nonce: str) -> dict[str, Any]:
        expected = ExpectedClaims(self._registration.issuer, self._registration.client_id, nonce)
        try:
            if not isinstance(token, str):
                raise InvalidToken("there is none")
            try:
                return check_id_token(token, await self._fetch_keys(endpoints.keys), expected, self._clock.now())
            except UnknownKey:  # the provider has rolled its keys over since we last looked
                self._keys = None
                return check_id_token(token, await self._fetch_keys(endpoints.keys), expected, self._clock.now())
        except InvalidToken as error:
            log.warning("an ID token was refused", reason=str(error))
            raise _refused(
                "what the OpenID provider says of you cannot be trusted; the engine's log says why"
            ) from error

    async def _user_info(self, url: str, access_token: Any, subject: str) -> dict[str, Any]:
        """More about the subject than its token says."""
        status, answer = await self._ask("GET", url, headers={"Authorization": f"Bearer {access_token}"})
        if status != 200 or answer.get("sub") != subject:
            log.warning("the OpenID provider told nothing of a user", status=status)
            raise _refused("the OpenID provider does not say who you are; the engine's log says more")
        return answer

    async def _discover(self) -> Endpoints:
        now = self._clock.now()
        if self._endpoints is None or now >= self._endpoints.until:
            document = await self._fetch(f"{self._registration.issuer.rstrip('/')}/.well-known/openid-configuration")
            self._endpoints = _Kept(self._endpoints_in(document), now + DISCOVERY_LIFETIME)
        found: Endpoints = self._endpoints.value
        return found

    def _endpoints_in(self, document: Mapping[str, Any]) -> Endpoints:
        if document.get("issuer") != self._registration.issuer:
            raise self._unusable("it calls itself by another name than OIDC_ISSUER")
        if "S256" not in document.get("code_challenge_methods_supported", ["S256"]):
            raise self._unusable("it does not know PKCE with S256")
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return Endpoints(
            authorization=self._address(document, "authorization_endpoint"),
            token=self._address(document, "token_endpoint"),
            keys=self._address(document, "jwks_uri"),
            user_info=self._address(document, "userinfo_endpoint") if "userinfo_endpoint" in document else None,
            secret_in_header="client_secret_basic" in methods,
            names_itself=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _address(self, document: Mapping[str, Any], name: str) -> str:
        """An endpoint: never without TLS where the issuer has it."""
        address = document.get(name)
        schemes = ("https",) if self._registration.issuer.startswith("https:") else ("http", "https")
        if not isinstance(address, str) or urlsplit(address).scheme not in schemes:
            raise self._unusable(f"its {name} is no address, or not as safe as its own")
        return address

    async def _fetch_keys(self, url: str) -> list[Key]:
        now = self._clock.now()
        if self._keys is None or now >= self._keys.until:
            entries = (await self._fetch(url)).get("keys")
            self._keys = _Kept(usable_keys(entries if isinstance(entries, list) else ()), now + KEYS_LIFETIME)
        found: list[Key] = self._keys.value
        return found

    async def _fetch(self, url: str) -> dict[str, Any]:
        status, answer = await self._ask("GET", url)
        if status != 200:
            raise self._unusable(f"it answers {status}")
        return answer

    async def _ask(self, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
        """The status and the JSON object that the provider answers; an empty one where it answers something else."""
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._connect() as client,
                client.stream(method, url, **options) as answer,
            ):
                return answer.status_code, _json_object(await _bounded(answer))
        except (httpx2.HTTPError, TimeoutError) as error:
            raise self._unusable("it cannot be reached") from error

    def _unusable(self, reason: str) -> RetryLater:
        return RetryLater(
            f"the OpenID provider at {self._registration.issuer} is of no use at the moment: {reason}", 10
        )


async def _bounded(answer: httpx2.Response) -> bytes:
    """The body; nothing of one that is larger than any that makes sense."""
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > ANSWER_BYTES:
            return b""
    return body


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def connection() -> Connect:
    """How providers are reached: verified, without detours, and without the environment's proxies."""
    tls = ssl.create_default_context()
    return lambda: httpx2.AsyncClient(verify=tls, trust_env=False, follow_redirects=False)


def basic_credentials(client_id: str, client_secret: str) -> str:
    """The `Authorization` header of client_secret_basic: both form-encoded first (RFC 6749, 2.3.1), then joined."""
    joined = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return f"Basic {base64.b64encode(joined.encode()).decode()}"


def _user_of(claims: Mapping[str, Any], issuer: str) -> User:
    """The user behind the claims. Another issuer's user of the same subject is somebody else."""
    subject: str = claims["sub"]
    digest = hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()
    email = claims.get("email") if claims.get("email_verified") is not False else None
    names = (claims.get("name"), claims.get("preferred_username"), email, subject)
    name = next(name for each in names if (name := _line(each)))
    return User(f"user-{digest[:16]}", name, _line(email))


def _line(text: Any) -> str | None:
    """A claim as a short line of text, with nothing in it that cannot be seen; None of what is none."""
    if not isinstance(text, str):
        return None
    return "".join(character for character in text if character.isprintable())[:200].strip() or None


def _word(text: Any) -> str:
    """An error code of OAuth, which a stranger may have written."""
    return text if isinstance(text, str) and re.fullmatch(r"[a-z_]{1,60}", text) else "unknown error"


def _refused(message: str) -> ApiError:
    return ApiError(401, "login_refused", message)
