"""Sign-in at an OpenID provider: the authorization code flow, with PKCE, state and nonce."""

import asyncio
import base64
import hashlib
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx2
import structlog
from pydantic import SecretStr

from labrats.api.auth.id_token import ExpectedClaims, InvalidToken, UnknownKey, check_id_token, usable_keys
from labrats.api.auth.sessions import Signer, User
from labrats.api.http.errors import ApiError
from labrats.model.errors import RetryLater
from labrats.net.tls import verifying_tls
from labrats.ports import Clock

if TYPE_CHECKING:
    from joserfc.jwk import Key

log = structlog.get_logger()

SCOPE: Final = "openid profile email"
LOGIN_LIFETIME: Final = timedelta(minutes=10)
DISCOVERY_LIFETIME: Final = timedelta(hours=1)
KEYS_LIFETIME: Final = timedelta(minutes=10)
RESPONSE_SECONDS: Final = 10.0
RESPONSE_BYTES: Final = 1024 * 1024
MOST_REQUESTS: Final = 20
"""Requests to the provider at a time. Each uses a file descriptor, and anybody can begin a login."""
_PURPOSE: Final = "login"

Connect = Callable[[], httpx2.AsyncClient]
"""Factory of clients for requests to the provider."""


@dataclass(frozen=True)
class ClientRegistration:
    """The URL of the issuer, and the engine's credentials as its client.

    admin_groups: groups whose members have all permissions, while other users only read. Empty: all users have them.
    """

    issuer: str
    client_id: str
    client_secret: SecretStr | None
    admin_groups: Sequence[str] = ()


@dataclass(frozen=True)
class Endpoints:
    """The parts of the discovery document that the engine uses."""

    authorization: str
    token: str
    keys: str
    user_info: str | None
    accepts_basic_auth: bool
    """True if the token endpoint accepts the client secret in the `Authorization` header."""
    sends_issuer: bool
    """True if each authorization response names its issuer (RFC 9207)."""


@dataclass(frozen=True)
class _Cached:
    value: Any
    until: datetime


class OpenIdProvider:
    """The client side of the OpenID provider that `registration` names."""

    def __init__(self, registration: ClientRegistration, signer: Signer, clock: Clock, connect: Connect) -> None:
        self._registration, self._signer, self._clock, self._connect = registration, signer, clock, connect
        self._endpoints: _Cached | None = None
        self._keys: _Cached | None = None
        self._requests = asyncio.Semaphore(MOST_REQUESTS)
        self._used_states: OrderedDict[str, datetime] = OrderedDict()

    @property
    def issuer(self) -> str:
        """The provider's URL."""
        return self._registration.issuer

    async def begin(self, redirect_uri: str, next_path: str) -> tuple[str, str]:
        """Return the provider's URL for the browser, and a cookie value that `finish` needs.

        next_path: the page that the user wants to see after the login.
        """
        endpoints = await self._discover()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._registration.client_id,
            "redirect_uri": redirect_uri,
            "scope": f"{SCOPE} groups" if self._registration.admin_groups else SCOPE,
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        separator = "&" if urlsplit(endpoints.authorization).query else "?"
        login = {"state": state, "nonce": nonce, "verifier": verifier, "redirect_uri": redirect_uri, "next": next_path}
        cookie = self._signer.sign(_PURPOSE, login, self._clock.now() + LOGIN_LIFETIME)
        return f"{endpoints.authorization}{separator}{urlencode(query)}", cookie

    def next_page(self, cookie: str) -> str:
        """Return the page that the user of a login wants to see; `/` unless the cookie is from `begin`."""
        login = self._signer.read(_PURPOSE, cookie, self._clock.now()) or {}
        page: str = login.get("next", "/")
        return page

    async def finish(self, cookie: str, response: Mapping[str, str]) -> tuple[User, str]:
        """Return the user who signed in, and the page that the user wanted to see.

        cookie: from `begin`. response: the query parameters that the provider sent the browser back with.
        Raises ApiError 401 unless the response is the valid one for this login, RetryLater if the provider cannot be
        reached.
        """
        login = self._use_up_login(cookie, state := response.get("state", ""))
        try:
            return await self._user_of(login, response)
        except RetryLater:  # the same response may succeed later
            self._used_states.pop(state, None)
            raise

    async def _user_of(self, login: Mapping[str, Any], response: Mapping[str, str]) -> tuple[User, str]:
        endpoints = await self._discover()
        self._check_issuer(endpoints, response.get("iss"))
        if error := response.get("error"):
            raise _refused(f"the OpenID provider did not sign you in ({_error_code(error)})")
        if not (code := response.get("code")):
            raise _refused("the OpenID provider sent no code")
        tokens = await self._exchange(endpoints, code, login)
        claims = await self._claims(tokens.get("id_token"), endpoints, login["nonce"])
        wanted = {"name", "email"} | ({"groups"} if self._registration.admin_groups else set())
        if endpoints.user_info and not wanted <= claims.keys():
            claims = await self._user_info(endpoints.user_info, tokens.get("access_token"), claims["sub"]) | claims
        return _user_from(claims, self._registration), login.get("next", "/")

    def _use_up_login(self, cookie: str, state: str) -> dict[str, Any]:
        """Return what `begin` stored in the cookie, once per state. Raises ApiError 401."""
        now = self._clock.now()
        while self._used_states and next(iter(self._used_states.values())) <= now:
            self._used_states.popitem(last=False)
        login = self._signer.read(_PURPOSE, cookie, now)
        if login is None or not secrets.compare_digest(login["state"].encode(), state.encode()):
            raise _refused("this login was not started in this browser, or took too long; start it again")
        if state in self._used_states:
            raise _refused("this login is already finished; start it again")
        self._used_states[state] = now + LOGIN_LIFETIME
        return login

    def _check_issuer(self, endpoints: Endpoints, issuer: str | None) -> None:
        if issuer != self._registration.issuer and (issuer is not None or endpoints.sends_issuer):
            raise _refused("the response came from another OpenID provider")

    async def _exchange(self, endpoints: Endpoints, code: str, login: Mapping[str, Any]) -> dict[str, Any]:
        """Exchange the code for tokens."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": login["redirect_uri"],
            "code_verifier": login["verifier"],
        }
        headers = {}
        if self._registration.client_secret and endpoints.accepts_basic_auth:
            headers["Authorization"] = basic_credentials(
                self._registration.client_id, self._registration.client_secret.get_secret_value()
            )
        else:
            form["client_id"] = self._registration.client_id
            if self._registration.client_secret:
                form["client_secret"] = self._registration.client_secret.get_secret_value()
        status, tokens = await self._request("POST", endpoints.token, headers=headers, data=form)
        if status != 200:
            reason = _error_code(tokens.get("error"))
            log.warning("OpenID token request failed", status=status, error=reason)
            raise _refused(f"the OpenID provider did not confirm the login ({reason})")
        return tokens

    async def _claims(self, token: Any, endpoints: Endpoints, nonce: str) -> dict[str, Any]:
        expected = ExpectedClaims(self._registration.issuer, self._registration.client_id, nonce)
        try:
            if not isinstance(token, str):
                raise InvalidToken("the response has no ID token")
            try:
                return check_id_token(token, await self._fetch_keys(endpoints.keys), expected, self._clock.now())
            except UnknownKey:  # the provider may have rotated its keys since the last fetch
                self._keys = None
                return check_id_token(token, await self._fetch_keys(endpoints.keys), expected, self._clock.now())
        except InvalidToken as error:
            log.warning("ID token refused", reason=str(error))
            raise _refused("the OpenID provider sent an invalid ID token; the engine's log says why") from error

    async def _user_info(self, url: str, access_token: Any, subject: str) -> dict[str, Any]:
        """Fetch further claims about the subject."""
        status, claims = await self._request("GET", url, headers={"Authorization": f"Bearer {access_token}"})
        if status != 200 or claims.get("sub") != subject:
            log.warning("OpenID user info request failed", status=status)
            raise _refused("the OpenID provider does not say who you are; the engine's log says more")
        return claims

    async def _discover(self) -> Endpoints:
        now = self._clock.now()
        if self._endpoints is None or now >= self._endpoints.until:
            document = await self._fetch(f"{self._registration.issuer.rstrip('/')}/.well-known/openid-configuration")
            self._endpoints = _Cached(self._endpoints_in(document), now + DISCOVERY_LIFETIME)
        endpoints: Endpoints = self._endpoints.value
        return endpoints

    def _endpoints_in(self, document: Mapping[str, Any]) -> Endpoints:
        if document.get("issuer") != self._registration.issuer:
            raise self._unusable("the issuer in its discovery document differs from OIDC_ISSUER")
        if "S256" not in _names(document, "code_challenge_methods_supported", default="S256"):
            raise self._unusable("it does not support PKCE with S256")
        methods = _names(document, "token_endpoint_auth_methods_supported", default="client_secret_basic")
        return Endpoints(
            authorization=self._url(document, "authorization_endpoint"),
            token=self._url(document, "token_endpoint"),
            keys=self._url(document, "jwks_uri"),
            user_info=None if document.get("userinfo_endpoint") is None else self._url(document, "userinfo_endpoint"),
            accepts_basic_auth="client_secret_basic" in methods,
            sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _url(self, document: Mapping[str, Any], name: str) -> str:
        """Return the URL of an endpoint. It must be https if the issuer's is."""
        url = document.get(name)
        schemes = ("https",) if self._registration.issuer.startswith("https:") else ("http", "https")
        if not isinstance(url, str) or _scheme(url) not in schemes:
            raise self._unusable(f"its {name} must be a URL that begins with {' or '.join(schemes)}")
        return url

    async def _fetch_keys(self, url: str) -> "list[Key]":
        now = self._clock.now()
        if self._keys is None or now >= self._keys.until:
            entries = (await self._fetch(url)).get("keys")
            self._keys = _Cached(usable_keys(entries if isinstance(entries, list) else ()), now + KEYS_LIFETIME)
        keys: list[Key] = self._keys.value
        return keys

    async def _fetch(self, url: str) -> dict[str, Any]:
        status, document = await self._request("GET", url)
        if status != 200:
            raise self._unusable(f"it answers with status {status}")
        return document

    async def _request(self, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON object of the provider's response; an empty object for any other body."""
        try:
            async with (
                asyncio.timeout(RESPONSE_SECONDS),
                self._requests,
                self._connect() as client,
                client.stream(method, url, **options) as response,
            ):
                return response.status_code, _json_object(await _read_bounded(response))
        except (httpx2.HTTPError, TimeoutError) as error:
            raise self._unusable("it cannot be reached") from error

    def _unusable(self, reason: str) -> RetryLater:
        return RetryLater(f"cannot use the OpenID provider at {self._registration.issuer} at present: {reason}", 10)


async def _read_bounded(response: httpx2.Response) -> bytes:
    """Return the body; empty if it is larger than RESPONSE_BYTES."""
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > RESPONSE_BYTES:
            return b""
    return body


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def connection() -> Connect:
    """Return a factory of clients that verify TLS, follow no redirects and ignore the environment's proxies."""
    tls = verifying_tls()
    return lambda: httpx2.AsyncClient(verify=tls, trust_env=False, follow_redirects=False)


def basic_credentials(client_id: str, client_secret: str) -> str:
    """Return the `Authorization` header of client_secret_basic. Both parts are form-encoded first (RFC 6749, 2.3.1)."""
    joined = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return f"Basic {base64.b64encode(joined.encode()).decode()}"


def _user_from(claims: Mapping[str, Any], registration: ClientRegistration) -> User:
    """Return the user that the claims describe. The id depends on issuer and subject."""
    subject: str = claims["sub"]
    digest = hashlib.sha256(f"{registration.issuer}\0{subject}".encode()).hexdigest()
    email = claims.get("email") if claims.get("email_verified") is not False else None
    candidates = (claims.get("name"), claims.get("preferred_username"), email, subject)
    name = next(name for each in candidates if (name := _printable_line(each)))
    return User(f"user-{digest[:16]}", name, _printable_line(email), is_viewer=not _is_admin(claims, registration))


def _is_admin(claims: Mapping[str, Any], registration: ClientRegistration) -> bool:
    """Return whether a user has all permissions. A claim `groups` of another form names no group."""
    groups = claims.get("groups")
    named = groups if isinstance(groups, list) else []
    return not registration.admin_groups or any(group in registration.admin_groups for group in named)


def _printable_line(claim: Any) -> str | None:
    """Return the printable characters of a claim, at most 200; None if it is not text or has none."""
    if not isinstance(claim, str):
        return None
    return "".join(character for character in claim if character.isprintable())[:200].strip() or None


def _error_code(text: Any) -> str:
    """Return the text if it looks like an OAuth error code, since anybody can send other text."""
    return text if isinstance(text, str) and re.fullmatch(r"[a-z_]{1,60}", text) else "unknown error"


def _refused(message: str) -> ApiError:
    return ApiError(401, "login_refused", message)


def _names(document: Mapping[str, Any], field: str, *, default: str) -> list[Any]:
    """Return a list of the discovery document. Where it is missing or null, OpenID Connect has a default."""
    names = document.get(field)
    return names if isinstance(names, list) else [default]


def _scheme(url: str) -> str:
    """Return the scheme of a URL; empty for an invalid one."""
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""
