"""An OpenID provider with scripted faults. It is as strict with clients as Authelia."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import Key, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from labrats.ports import Clock

ISSUER = "https://auth.test"
CLIENT_ID = "labrats"
CLIENT_SECRET = "test:secret%with+all/of it"

FIRST_KEY, SECOND_KEY = (RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}) for kid in ("first", "second"))


@dataclass
class ScriptedOpenIdProvider:
    """A provider that signs in everybody, with the attribute `claims`.

    sign: signs the claims; None signs them correctly. codes: the authorization request of each code.
    """

    clock: Clock
    keys: list[Key] = field(default_factory=lambda: [FIRST_KEY])
    claims: dict[str, Any] = field(default_factory=dict)
    user_info: dict[str, Any] = field(default_factory=lambda: {"sub": "ada", "name": "Ada", "email": "ada@example.com"})
    document: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, str] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sign: Callable[[dict[str, Any]], str] | None = None
    is_down: bool = False
    checks_codes: bool = True

    def connect(self) -> httpx2.AsyncClient:
        """Return a client that reaches the provider, for the engine."""
        routes = [
            Route("/.well-known/openid-configuration", self._discovery),
            Route("/jwks", self._key_set),
            Route("/token", self._token, methods=["POST"]),
            Route("/userinfo", self._user_info),
        ]
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(Starlette(routes=routes)))

    def authorize(self, url: str) -> dict[str, str]:
        """Sign a user in at the URL from the engine. Return the query parameters of the redirect to the engine."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query, strict_parsing=True).items()}
        assert (query["response_type"], query["client_id"]) == ("code", CLIENT_ID)
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return {"code": code, "state": query["state"], "iss": ISSUER} | self.answer

    def id_token(self, **wrong: Any) -> str:
        """Return a token for the latest login. `wrong` replaces claims; None leaves a claim out."""
        now = int(self.clock.now().timestamp())
        nonce = list(self.codes.values())[-1]["nonce"]
        valid = {"iss": ISSUER, "aud": CLIENT_ID, "sub": "ada", "iat": now, "exp": now + 300, "nonce": nonce}
        claims = {name: value for name, value in (valid | self.claims | wrong).items() if value is not None}
        return self.sign(claims) if self.sign else signed(claims)

    async def _discovery(self, request: Request) -> Response:
        self.requests.append("discovery")
        if self.is_down:
            return Response(status_code=502)
        return JSONResponse(
            {
                "issuer": ISSUER,
                "authorization_endpoint": f"{ISSUER}/authorize",
                "token_endpoint": f"{ISSUER}/token",
                "jwks_uri": f"{ISSUER}/jwks",
                "userinfo_endpoint": f"{ISSUER}/userinfo",
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
            | self.document
        )

    async def _key_set(self, request: Request) -> Response:
        self.requests.append("keys")
        if self.is_down:
            return Response(status_code=502)
        invalid: list[Any] = [
            {"kty": "RSA", "n": "!" * 400, "e": "AQAB"},
            {"kty": "EC", "crv": "P-0"},
            {},
            None,
            "key",
        ]
        return JSONResponse({"keys": invalid + [key.as_dict(private=False) for key in self.keys]})

    async def _token(self, request: Request) -> Response:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        parts = base64.b64decode(credentials).decode().split(":") if scheme == "Basic" else []
        if [unquote_plus(part) for part in parts] != [CLIENT_ID, CLIENT_SECRET]:
            return JSONResponse({"error": "invalid_client"}, 401)
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        query = self.codes.get(form["code"])
        if self.checks_codes and (query is None or not _matches(form, query)):
            return JSONResponse({"error": "invalid_grant"}, 400)
        tokens = {"access_token": "test-access-token", "token_type": "bearer", "id_token": self.id_token()}
        return Response(json.dumps(tokens), media_type="application/json")

    async def _user_info(self, request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer test-access-token"
        return JSONResponse(self.user_info)


def _matches(form: dict[str, str], query: dict[str, str]) -> bool:
    """Return whether the token request comes from the sender of the authorization request."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
    return (
        (query["code_challenge_method"], query["code_challenge"]) == ("S256", digest)
        and form["redirect_uri"] == query["redirect_uri"]
        and form["grant_type"] == "authorization_code"
    )


def signed(claims: dict[str, Any], key: Key = FIRST_KEY, alg: str = "RS256", **header: Any) -> str:
    """Return a correctly signed token. header: fields beside `alg` and `kid`; None leaves a field out."""
    full_header = {name: value for name, value in ({"alg": alg, "kid": key.kid} | header).items() if value is not None}
    return jwt.encode(full_header, claims, key, algorithms=[alg])
