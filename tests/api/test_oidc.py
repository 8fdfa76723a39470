"""Sign-in at an OpenID provider: only a valid response signs a user in."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import httpx2
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from pydantic import SecretStr, ValidationError
from structlog.testing import capture_logs

from labrats.api.app import create_app
from labrats.api.auth import oidc
from labrats.api.auth.oidc import LOGIN_LIFETIME, ClientRegistration, OpenIdProvider, basic_credentials
from labrats.api.auth.sessions import Signer
from labrats.main import refuse_unprotected
from labrats.model.errors import LabratsError
from labrats.settings import EngineSettings
from tests.api.conftest import SESSION_SECRET, USER, Api, api_in_memory
from tests.api.openid import CLIENT_ID, CLIENT_SECRET, FIRST_KEY, ISSUER, SECOND_KEY, ScriptedOpenIdProvider, signed

CALLBACK = "/api/auth/oidc/callback"


@dataclass(frozen=True)
class Login:
    """An engine with an OpenID provider, and a program that signs in there."""

    api: Api
    openid: ScriptedOpenIdProvider
    client: httpx2.AsyncClient

    async def begin(self, **query: str) -> dict[str, str]:
        """Sign in at the provider. Return the query parameters of its redirect to the engine."""
        started = await self.client.get("/api/auth/oidc", params=query)
        assert started.status_code == 303, started.text
        return self.openid.authorize(started.headers["Location"])

    async def come_back(self, answer: dict[str, str]) -> httpx2.Response:
        return await self.client.get(f"{CALLBACK}?{urlencode(answer)}")

    async def sign_in(self) -> httpx2.Response:
        return await self.come_back(await self.begin())

    async def user(self) -> Any:
        return (await self.client.get("/api/auth/me")).json()["user"]


@pytest.fixture
async def login(tmp_path: Path) -> AsyncIterator[Login]:
    async with api_in_memory(tmp_path) as api:
        openid = ScriptedOpenIdProvider(api.clock)
        registration = ClientRegistration(ISSUER, CLIENT_ID, SecretStr(CLIENT_SECRET))
        provider = OpenIdProvider(registration, Signer(SESSION_SECRET), api.clock, openid.connect)
        services = replace(api.services, openid_provider=provider)
        api = replace(api, services=services, app=create_app(services))
        async with api.client(None) as program:
            yield Login(api, openid, program)


async def test_sign_in_leads_to_the_wanted_page(login: Login) -> None:
    answer = await login.come_back(await login.begin(next="/jobs/ir-3ab1c2d4/log"))

    assert (answer.status_code, answer.headers["Location"]) == (303, "/jobs/ir-3ab1c2d4/log")


SECRET = {"Labrats-Session-Secret": "0123456789abcdef0123456789abcdef"}


@pytest.mark.parametrize(
    "navigation", [{"Accept": "text/html,*/*;q=0.8"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}]
)
async def test_browser_signs_in_on_the_sign_in_page_with_a_secret(login: Login, navigation: dict[str, str]) -> None:
    """Pages of other ports get the cookie of a browser, so that its session needs a secret from the beginning."""
    response = urlencode(await login.begin(next="/jobs?status=failed"))

    redirect = await login.client.get(f"{CALLBACK}?{response}", headers=navigation)
    assert (redirect.status_code, redirect.headers["Referrer-Policy"]) == (303, "no-referrer")
    assert redirect.headers["Location"] == f"/login?next=%2Fjobs%3Fstatus%3Dfailed#{response}"
    assert "Set-Cookie" not in redirect.headers

    own = {"Sec-Fetch-Site": "same-origin"}
    finished = await login.client.post(f"{CALLBACK}?{response}", headers=SECRET | own)
    assert finished.status_code == 204
    assert [cookie.partition("=")[0] for cookie in finished.headers.get_list("Set-Cookie")] == [
        "auth_token",
        "oidc_login",
    ]
    assert await login.user() is None
    assert (await login.client.get("/api/auth/me", headers=SECRET)).json()["user"]["name"] == "Ada"
    assert (await login.client.post(f"{CALLBACK}?{response}", headers=SECRET | own)).status_code == 401


async def test_page_of_another_origin_cannot_finish_a_sign_in(login: Login) -> None:
    response = urlencode(await login.begin())
    for headers in ({}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://engine.test:3000"}):
        refused = await login.client.post(f"{CALLBACK}?{response}", headers=SECRET | headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
    assert (await login.client.get(f"{CALLBACK}?{response}")).status_code == 303  # the login is not used up


async def test_page_of_another_site_is_refused_before_the_sign_in(login: Login) -> None:
    answer = await login.client.get("/api/auth/oidc", params={"next": "//evil.example"})

    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "next")


async def test_the_provider_is_named_to_everybody(login: Login) -> None:
    me = (await login.client.get("/api/auth/me")).json()

    assert me["signIn"] == {"oidc": ISSUER, "link": False}


async def test_sign_in_at_the_provider_sets_the_session_cookie(login: Login) -> None:
    answer = await login.sign_in()

    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookies = answer.headers.get_list("Set-Cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == ["auth_token", "oidc_login"]
    assert all("HttpOnly" in cookie and "SameSite=lax" in cookie for cookie in cookies)
    user = await login.user()
    assert (user["name"], user["email"]) == ("Ada", "ada@example.com")
    assert user["id"].startswith("user-")


async def test_the_redirect_to_the_provider_has_state_nonce_and_pkce_challenge(login: Login) -> None:
    started = [await login.client.get("/api/auth/oidc") for _ in range(2)]

    first, second = [parse_qs(urlsplit(each.headers["Location"]).query) for each in started]
    assert first["redirect_uri"] == [f"http://engine.test{CALLBACK}"]
    assert first["scope"] == ["openid profile email"]
    assert first["code_challenge_method"] == ["S256"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name][0]) >= 43
        assert first[name] != second[name]
    cookie = started[0].headers["Set-Cookie"]
    for attribute in ("HttpOnly", "SameSite=lax", f"Path={CALLBACK}", "Max-Age=600"):
        assert attribute in cookie


async def test_the_same_subject_is_the_same_user_at_each_sign_in(login: Login) -> None:
    await login.sign_in()
    first = await login.user()
    login.openid.user_info["name"] = "Ada L."
    await login.sign_in()
    again = await login.user()

    assert (again["id"], again["name"]) == (first["id"], "Ada L.")


@pytest.mark.parametrize(
    ("claims", "user_info", "name", "email"),
    [
        ({"name": "Ada", "email": "a@example.com"}, {}, "Ada", "a@example.com"),
        ({"name": "Ada"}, {"sub": "ada", "name": "not this", "email": "a@example.com"}, "Ada", "a@example.com"),
        ({}, {"sub": "ada", "preferred_username": "ada1"}, "ada1", None),
        ({}, {"sub": "ada"}, "ada", None),
        ({}, {"sub": "ada", "email": "a@example.com"}, "a@example.com", "a@example.com"),
        ({}, {"sub": "ada", "email": "a@example.com", "email_verified": False}, "ada", None),
        ({}, {"sub": "ada", "name": ["Ada"], "email": 5}, "ada", None),
        ({}, {"sub": "ada", "name": "A\x00d\x1b[31ma\u202e\n"}, "Ad[31ma", None),
        ({}, {"sub": "ada", "name": "x" * 1000}, "x" * 200, None),
    ],
)  # fmt: skip
async def test_claims_and_user_info_become_the_user(
    login: Login, claims: dict[str, Any], user_info: dict[str, Any], name: str, email: str | None
) -> None:
    login.openid.claims, login.openid.user_info = claims, user_info

    assert (await login.sign_in()).status_code == 303

    user = await login.user()
    assert (user["name"], user["email"]) == (name, email)


@pytest.fixture
async def grouped(login: Login) -> Login:
    """The same, where the members of `ops` have all permissions."""
    registration = ClientRegistration(ISSUER, CLIENT_ID, SecretStr(CLIENT_SECRET), ["ops", "leads"])
    provider = OpenIdProvider(registration, Signer(SESSION_SECRET), login.api.clock, login.openid.connect)
    services = replace(login.api.services, openid_provider=provider)
    app = create_app(services)
    program = replace(login.api, app=app).client(None)
    return replace(login, client=program)


@pytest.mark.parametrize(
    ("claims", "user_info", "scopes"),
    [
        ({"groups": ["staff", "ops"]}, {}, ["admin", "submit"]),
        ({}, {"groups": ["leads"]}, ["admin", "submit"]),
        ({"groups": ["staff"]}, {"groups": ["ops"]}, ["viewer"]),
        ({"groups": []}, {}, ["viewer"]),
        ({"groups": "ops"}, {}, ["viewer"]),
        ({"groups": {"ops": True}}, {}, ["viewer"]),
        ({"groups": [["ops"], None, "OPS"]}, {}, ["viewer"]),
        ({}, {}, ["viewer"]),
    ],
)
async def test_users_outside_of_the_groups_of_admins_only_read(
    grouped: Login, claims: dict[str, Any], user_info: dict[str, Any], scopes: list[str]
) -> None:
    grouped.openid.claims = claims
    grouped.openid.user_info |= user_info

    begun = await grouped.client.get("/api/auth/oidc")
    assert "openid profile email groups" in unquote_plus(begun.headers["Location"])
    assert (await grouped.sign_in()).status_code == 303

    assert (await grouped.client.get("/api/auth/me")).json()["scopes"] == scopes
    grouped.client.headers["Origin"] = "http://engine.test"
    reads = await grouped.client.get("/api/agents")
    writes = await grouped.client.post("/api/agents", json={"name": "by-a-user"})
    assert (reads.status_code, writes.status_code) == (200, 201 if "admin" in scopes else 403)


def test_client_id_and_secret_are_form_encoded_before_they_are_joined() -> None:
    sent = base64.b64decode(basic_credentials("labrats:1", "a:b%c+d/e f").removeprefix("Basic ")).decode()
    assert sent == "labrats%3A1:a%3Ab%25c%2Bd%2Fe+f"


# Tokens

RSA_OTHER = RSAKey.generate_key(2048, {"kid": "first"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
NOW = 1767268800
"""Noon of the fake clock, in Unix seconds."""

BAD_CLAIMS: list[dict[str, Any]] = [
    {"iss": None},
    {"iss": "https://auth.test/"},
    {"iss": "https://elsewhere.test"},
    {"iss": [ISSUER]},
    {"aud": None},
    {"aud": "another"},
    {"aud": []},
    {"aud": ["another"]},
    {"aud": f"{CLIENT_ID} another"},
    {"aud": {CLIENT_ID: 1}},
    {"aud": [CLIENT_ID, "another"]},
    {"aud": [CLIENT_ID, "another"], "azp": "another"},
    {"azp": "another"},
    {"azp": ""},
    {"exp": None},
    {"exp": NOW - 61},
    {"exp": str(NOW + 300)},
    {"exp": True},
    {"exp": {}},
    {"iat": None},
    {"iat": NOW + 120},
    {"iat": NOW - 3600},
    {"iat": "now"},
    {"nbf": NOW + 120},
    {"nbf": "later"},
    {"nonce": None},
    {"nonce": "another"},
    {"nonce": ["another"]},
    {"nonce": ""},
    {"sub": None},
    {"sub": ""},
    {"sub": 5},
    {"sub": ["ada"]},
    {"sub": "x" * 256},
    {"sub": "ada\n"},
    {"sub": "é"},
]
Signing = Callable[[dict[str, Any]], str]


def segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def unsigned(claims: dict[str, Any], alg: str) -> str:
    return f"{segment({'alg': alg, 'kid': 'first'})}.{segment(claims)}."


def tampered(claims: dict[str, Any]) -> str:
    head, _, signature = signed(claims | {"sub": "mallory"}).split(".")
    return f"{head}.{segment(claims)}.{signature}"


def hmac_signed(claims: dict[str, Any], secret: bytes) -> str:
    """Sign the claims with HMAC. Not with joserfc, which refuses a public key as a secret."""
    text = f"{segment({'alg': 'HS256', 'kid': 'first'})}.{segment(claims)}"
    signature = base64.urlsafe_b64encode(hmac.digest(secret, text.encode(), "sha256")).decode().rstrip("=")
    return f"{text}.{signature}"


def signed_text(payload: str) -> str:
    return jws.serialize_compact({"alg": "RS256", "kid": "first"}, payload, FIRST_KEY)


BAD_SIGNATURES: dict[str, Signing] = {
    "alg none": lambda claims: unsigned(claims, "none"),
    "alg None": lambda claims: unsigned(claims, "None"),
    "no alg": lambda claims: f"{segment({'kid': 'first'})}.{segment(claims)}.",
    "alg is no text": lambda claims: f"{segment({'alg': ['RS256'], 'kid': 'first'})}.{segment(claims)}.eA",
    "no signature": lambda claims: signed(claims).rpartition(".")[0] + ".",
    "two parts": lambda claims: signed(claims).rpartition(".")[0],
    "the public key as a secret": lambda claims: hmac_signed(claims, FIRST_KEY.as_pem(private=False)),
    "the client's secret": lambda claims: hmac_signed(claims, CLIENT_SECRET.encode()),
    "another key of the same name": lambda claims: signed(claims, RSA_OTHER),
    "a key of no known name": lambda claims: signed(claims, RSA_OTHER, kid="unknown"),
    "another key, no name": lambda claims: signed(claims, RSA_OTHER, kid=None),
    "a key type that is not published": lambda claims: signed(claims, EC, "ES256", kid="first"),
    "the key in its header": lambda claims: signed(claims, RSA_OTHER, jwk=RSA_OTHER.as_dict(private=False)),
    "an address of keys in its header": lambda claims: signed(claims, RSA_OTHER, jku="https://elsewhere.test/jwks"),
    "a certificate in its header": lambda claims: signed(claims, RSA_OTHER, x5u="https://elsewhere.test/cert"),
    "changed claims": tampered,
    "a demand that we do not know": lambda claims: signed(claims, crit=["b64"], b64=True),
    "a cut signature": lambda claims: signed(claims)[:-4],
    "a line break": lambda claims: signed(claims).replace(".", ".\n"),
    "empty": lambda _: "",
    "no token": lambda _: "token",
    "claims that are a list": lambda claims: signed_text(json.dumps([claims])),
    "an expiry that is no number": lambda claims: signed_text(json.dumps(claims | {"exp": float("nan")})),
    "a header that is a list": lambda claims: f"{segment(['RS256'])}.{segment(claims)}.eA",
    "half of a surrogate pair": lambda claims: f"\ud800{signed(claims)}",
    "a header without end": lambda claims: f"{segment({'alg': 'RS256', 'x': 'x' * 100_000})}.{segment(claims)}.eA",
}


def bad_tokens() -> list[Any]:
    claims = [
        pytest.param(lambda good, wrong=wrong: signed(changed(good, wrong)), id=str(wrong)) for wrong in BAD_CLAIMS
    ]
    return claims + [pytest.param(sign, id=name) for name, sign in BAD_SIGNATURES.items()]


def changed(claims: dict[str, Any], wrong: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (claims | wrong).items() if value is not None}


def test_there_are_many_bad_tokens() -> None:
    assert len(bad_tokens()) >= 40


@pytest.mark.parametrize("sign", bad_tokens())
async def test_an_invalid_token_signs_nobody_in(login: Login, sign: Signing) -> None:
    login.openid.sign = sign

    with capture_logs() as logged:
        answer = await login.sign_in()

    assert (answer.status_code, answer.json()["code"]) == (401, "login_refused")
    assert "ID token refused" in [entry["event"] for entry in logged]
    assert await login.user() is None


GOOD_CLAIMS: list[dict[str, Any]] = [
    {"aud": [CLIENT_ID]},
    {"aud": [CLIENT_ID, "another"], "azp": CLIENT_ID},
    {"azp": CLIENT_ID},
    {"exp": NOW - 30},
    {"iat": NOW + 30},
    {"nbf": NOW + 30},
    {"iat": float(NOW)},
    {"sub": "x" * 255},
    {"acr": "2fa", "amr": ["otp"]},
]


@pytest.mark.parametrize("claims", GOOD_CLAIMS, ids=str)
async def test_a_token_with_further_claims_and_small_clock_skew_is_accepted(
    login: Login, claims: dict[str, Any]
) -> None:
    login.openid.claims = claims
    login.openid.user_info["sub"] = claims.get("sub", "ada")

    assert (await login.sign_in()).status_code == 303


@pytest.mark.parametrize(("key", "alg"), [(FIRST_KEY, "RS512"), (FIRST_KEY, "PS256"), (EC, "ES256"), (ED, "Ed25519")])
async def test_tokens_may_use_any_accepted_algorithm(login: Login, key: Key, alg: str) -> None:
    login.openid.keys = [FIRST_KEY, EC, ED]
    login.openid.sign = lambda claims: signed(claims, key, alg)

    assert (await login.sign_in()).status_code == 303


async def test_a_token_needs_no_key_id_if_only_one_key_has_its_type(login: Login) -> None:
    login.openid.sign = lambda claims: signed(claims, kid=None)
    assert (await login.sign_in()).status_code == 303

    login.openid.keys = [FIRST_KEY, SECOND_KEY]
    login.api.clock.step(3600)
    assert (await login.sign_in()).status_code == 401


# Keys and discovery


async def test_discovery_document_and_keys_are_cached(login: Login) -> None:
    for _ in range(3):
        assert (await login.sign_in()).status_code == 303

    assert login.openid.requests == ["discovery", "keys"]


async def test_a_rotated_key_is_accepted_at_once_and_the_old_one_refused_after_that(login: Login) -> None:
    await login.sign_in()
    login.openid.keys, login.openid.sign = [SECOND_KEY], lambda claims: signed(claims, SECOND_KEY)
    assert (await login.sign_in()).status_code == 303
    assert login.openid.requests == ["discovery", "keys", "keys"]

    login.openid.sign = lambda claims: signed(claims, FIRST_KEY)
    assert (await login.sign_in()).status_code == 401


async def test_a_withdrawn_key_is_accepted_for_at_most_ten_minutes(login: Login) -> None:
    login.openid.keys = [FIRST_KEY, SECOND_KEY]
    await login.sign_in()
    login.openid.keys = [SECOND_KEY]
    login.api.clock.step(600)

    assert (await login.sign_in()).status_code == 401


async def test_a_null_in_the_discovery_document_counts_as_missing(login: Login) -> None:
    login.openid.document = dict.fromkeys(
        ("code_challenge_methods_supported", "token_endpoint_auth_methods_supported", "userinfo_endpoint")
    )
    assert (await login.sign_in()).status_code == 303


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://elsewhere.test"},
        {"issuer": f"{ISSUER}/"},
        {"authorization_endpoint": "http://auth.test/authorize"},
        {"token_endpoint": "http://auth.test/token"},
        {"token_endpoint": None},
        {"token_endpoint": "https://[x"},
        {"jwks_uri": "file:///etc/passwd"},
        {"userinfo_endpoint": "javascript:alert(1)"},
        {"code_challenge_methods_supported": ["plain"]},
    ],
    ids=str,
)
async def test_an_insecure_discovery_document_is_refused(login: Login, document: dict[str, Any]) -> None:
    login.openid.document = document

    answer = await login.client.get("/api/auth/oidc")

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert ISSUER in answer.json()["error"]


async def test_an_unreachable_provider_is_retried_at_the_next_login(login: Login) -> None:
    login.openid.is_down = True
    assert (await login.client.get("/api/auth/oidc")).status_code == 503

    login.openid.is_down = False
    assert (await login.sign_in()).status_code == 303


async def test_a_login_during_which_the_provider_is_down_can_be_finished_later(login: Login) -> None:
    response = await login.begin()
    login.openid.is_down = True
    assert (await login.come_back(response)).status_code == 503
    login.openid.is_down = False
    assert (await login.come_back(response)).status_code == 303
    assert (await login.come_back(response)).status_code == 401


# Flows


async def test_logins_at_a_silent_provider_use_few_connections(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    connections: list[int] = []
    open_now = 0

    class Silent(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            nonlocal open_now
            open_now += 1
            connections.append(open_now)
            try:
                await asyncio.Event().wait()
            finally:
                open_now -= 1
            raise AssertionError("it never answers")

    monkeypatch.setattr(oidc, "RESPONSE_SECONDS", 0.2)
    provider = login.api.services.openid_provider
    monkeypatch.setattr(provider, "_connect", lambda: httpx2.AsyncClient(transport=Silent()))

    answers = await asyncio.gather(*(login.client.get("/api/auth/oidc") for _ in range(5 * oidc.MOST_REQUESTS)))

    assert {answer.status_code for answer in answers} == {503}
    assert max(connections) == oidc.MOST_REQUESTS


async def refused(login: Login, answer: dict[str, str]) -> None:
    came_back = await login.come_back(answer)
    assert (came_back.status_code, came_back.json()["code"]) == (401, "login_refused")
    assert await login.user() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": ""},
        {"state": "another"},
        {"state": "é"},
        {"code": "code-99"},
        {"code": ""},
        {"iss": "https://elsewhere.test"},
        {"iss": f"{ISSUER}/"},
        {"iss": ""},
        {"error": "access_denied"},
        {"error": "<script>alert(1)</script>"},
    ],
    ids=str,
)
async def test_a_wrong_response_is_refused(login: Login, wrong: dict[str, str]) -> None:
    answer = await login.begin() | wrong
    came_back = await login.come_back(answer)
    assert (came_back.status_code, came_back.json()["code"]) == (401, "login_refused")
    assert "<script>" not in came_back.text
    assert await login.user() is None


@pytest.mark.parametrize("missing", ["state", "code", "iss"])
async def test_an_incomplete_response_is_refused(login: Login, missing: str) -> None:
    answer = await login.begin()
    del answer[missing]
    await refused(login, answer)


async def test_a_provider_without_issuer_support_may_omit_the_issuer(login: Login) -> None:
    login.openid.document = {"authorization_response_iss_parameter_supported": False}
    answer = await login.begin()
    del answer["iss"]

    assert (await login.come_back(answer)).status_code == 303


async def test_a_response_without_the_login_cookie_is_refused(login: Login) -> None:
    answer = await login.begin()
    login.client.cookies.clear()
    await refused(login, answer)


async def test_a_response_in_another_browser_is_refused(login: Login) -> None:
    """Otherwise attackers could sign a victim in as themselves."""
    answer = await login.begin()
    async with login.api.client(None) as another:
        other = replace(login, client=another)
        await other.begin()
        await refused(other, answer)


async def test_a_login_can_be_finished_only_once(login: Login) -> None:
    answer = await login.begin()
    saved = dict(login.client.cookies)
    login.openid.checks_codes = False
    assert (await login.come_back(answer)).status_code == 303

    login.client.cookies.clear()
    login.client.cookies.update(saved)
    await refused(login, answer)
    await refused(login, answer | {"code": "a-fresh-one"})


class CountedTime(datetime):
    """A time that counts its comparisons with others."""

    comparisons = 0

    def __le__(self, other: Any) -> bool:
        CountedTime.comparisons += 1
        return super().__le__(other)

    def __gt__(self, other: Any) -> bool:
        CountedTime.comparisons += 1
        return super().__gt__(other)


async def test_finished_logins_cost_nothing_and_are_forgotten_after_the_lifetime(login: Login) -> None:
    provider, now = login.api.services.openid_provider, login.api.clock.now()
    assert provider is not None
    until = CountedTime.fromisoformat((now + LOGIN_LIFETIME).isoformat())
    provider._used_states.update({f"state-{number}": until for number in range(100)})

    assert (await login.sign_in()).status_code == 303
    assert CountedTime.comparisons == 1

    login.api.clock.step(LOGIN_LIFETIME.total_seconds())
    assert (await login.sign_in()).status_code == 303
    assert len(provider._used_states) == 1


async def test_a_login_must_be_finished_in_time(login: Login) -> None:
    answer = await login.begin()
    login.api.clock.step(LOGIN_LIFETIME.total_seconds())
    await refused(login, answer)


async def test_a_code_for_another_pkce_challenge_is_refused(login: Login) -> None:
    """Covers an attacker's own code, and a request from which PKCE was removed."""
    for challenge in ("", "x" * 43):
        answer = await login.begin()
        login.openid.codes[answer["code"]]["code_challenge"] = challenge
        await refused(login, answer)


async def test_session_and_login_cookies_are_not_interchangeable(login: Login) -> None:
    answer = await login.begin()
    login.client.cookies["auth_token"] = login.client.cookies["oidc_login"]
    assert await login.user() is None
    login.client.cookies.clear()
    login.client.cookies["oidc_login"] = login.api.services.sessions.begin(USER, login.api.clock.now())
    await refused(login, answer)


async def test_user_info_of_another_subject_is_refused(login: Login) -> None:
    login.openid.user_info["sub"] = "mallory"
    await refused(login, await login.begin())


async def test_a_wrong_secret_is_refused_by_the_provider_and_never_shown(login: Login) -> None:
    provider = login.api.services.openid_provider
    assert provider
    provider._registration = ClientRegistration(ISSUER, CLIENT_ID, SecretStr("another-test-secret"))

    with capture_logs() as logged:
        came_back = await login.sign_in()

    assert came_back.json()["error"].endswith("(invalid_client)")
    assert "another-test-secret" not in came_back.text + str(logged)


async def test_without_a_provider_the_error_names_the_login_link(api: Api) -> None:
    async with api.browser(None) as browser:
        for path in ("/api/auth/oidc", CALLBACK):
            answer = await browser.get(path)
            assert answer.status_code == 404
            assert "labrats login-link" in answer.json()["error"]


# Configuration

OIDC = {"OIDC_ISSUER": ISSUER, "OIDC_CLIENT_ID": CLIENT_ID}


def settings_of(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> EngineSettings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return EngineSettings()


def test_with_a_provider_the_engine_may_listen_beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    reachable = {"LABRATS_HOST": "0.0.0.0"}
    with pytest.raises(LabratsError, match="OIDC_ISSUER"):
        refuse_unprotected(settings_of(monkeypatch, reachable))

    refuse_unprotected(settings_of(monkeypatch, reachable | OIDC))


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"OIDC_ISSUER": ISSUER}, "OIDC_ISSUER needs OIDC_CLIENT_ID"),
        (OIDC | {"OIDC_ISSUER": "auth.test"}, "OIDC_ISSUER"),
        (OIDC | {"OIDC_ISSUER": f"{ISSUER}?x=1"}, "OIDC_ISSUER"),
        ({"LABRATS_PUBLIC_URL": "https://labrats.test/path"}, "LABRATS_PUBLIC_URL"),
        ({"AUTH_JWT_SECRET": "short"}, "AUTH_JWT_SECRET"),
        ({"LABRATS_TRUSTED_PROXIES": "proxy"}, "LABRATS_TRUSTED_PROXIES"),
    ],
)
def test_an_invalid_setting_is_named_in_the_error(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        settings_of(monkeypatch, environment)
