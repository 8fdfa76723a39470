"""ID tokens: what an OpenID provider says of who signed in. Whatever is not exactly right is refused."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, import_key

ALGORITHMS: Final = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "Ed25519": "OKP",
}
"""The algorithms that are accepted, each with its type of key: none that a public key could be a secret of."""

LEEWAY: Final = timedelta(seconds=60)
MAX_AGE: Final = timedelta(minutes=10)
"""How old a token may be that is said to come of a login just made."""
MAX_SUBJECT: Final = 255
_RSA_2048_DIGITS: Final = 342
"""The length of a modulus of 2048 bits in base64url; anything shorter can be broken."""


class InvalidToken(Exception):
    """The token is refused. The text says why, for the log."""


class UnknownKey(InvalidToken):
    """None of the provider's keys that we have signed it: it may have new ones."""


@dataclass(frozen=True)
class ExpectedClaims:
    """What the token of a login must say."""

    issuer: str
    client_id: str
    nonce: str


def usable_keys(entries: Iterable[Any]) -> list[Key]:
    """The public keys of a JWK set that can sign an ID token. What makes no sense is none, and harms no other."""
    return [key for entry in entries if isinstance(entry, dict) and (key := _key_of(entry))]


def _key_of(entry: Mapping[str, Any]) -> Key | None:
    if entry.get("kty") not in ALGORITHMS.values() or entry.get("use", "sig") != "sig":
        return None
    if entry["kty"] == "RSA" and len(str(entry.get("n"))) < _RSA_2048_DIGITS:
        return None
    try:
        key = import_key({name: value for name, value in entry.items() if name != "key_ops"})
        return key if key.public_key else None
    except (JoseError, ValueError, KeyError, TypeError):
        return None


def check_id_token(token: str, keys: Sequence[Key], expected: ExpectedClaims, now: datetime) -> dict[str, Any]:
    """The claims of a token that is right in every respect. Raises InvalidToken."""
    if not token.isascii():
        raise InvalidToken("it is no text of a token")
    try:
        header = jws.extract_compact(token.encode()).headers()
        claims = jwt.decode(token, _signer_of(header, keys), algorithms=list(ALGORITHMS)).claims
    except JoseError as error:
        raise InvalidToken(f"it is not signed as it should be: {error}") from error
    _check_audience(claims, expected)
    _check_times(claims, now.timestamp())
    if claims.get("nonce") != expected.nonce:
        raise InvalidToken("its nonce is not that of this login")
    if not is_subject(claims.get("sub")):
        raise InvalidToken("it does not say whom it is about")
    return claims


def _signer_of(header: Mapping[str, Any], keys: Sequence[Key]) -> Key:
    """The key that the header means. Keys in it, and addresses of keys, are never looked at."""
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise InvalidToken("its algorithm is not accepted")
    if "crit" in header:
        raise InvalidToken("it demands what we do not understand")
    fitting = [key for key in keys if key.key_type == ALGORITHMS[algorithm]]
    meant = [key for key in fitting if key_id is None or key.kid == key_id]
    if not meant:
        raise UnknownKey("it is signed with none of the provider's keys")
    if len(meant) > 1:
        raise InvalidToken("it does not say which key it is signed with")
    return meant[0]


def _check_audience(claims: Mapping[str, Any], expected: ExpectedClaims) -> None:
    if claims.get("iss") != expected.issuer:
        raise InvalidToken("it is another issuer's")
    audience = claims.get("aud")
    audience = [audience] if isinstance(audience, str) else audience
    if not isinstance(audience, list) or expected.client_id not in audience:
        raise InvalidToken("it is not meant for us")
    if ("azp" in claims or len(audience) > 1) and claims.get("azp") != expected.client_id:
        raise InvalidToken("it was issued to another client")


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    leeway = LEEWAY.total_seconds()
    expires_at, issued_at, begins_at = (_seconds(claims, name) for name in ("exp", "iat", "nbf"))
    if expires_at is None or now >= expires_at + leeway:
        raise InvalidToken("it has expired")
    if issued_at is None or not now - MAX_AGE.total_seconds() <= issued_at <= now + leeway:
        raise InvalidToken("it was not issued just now")
    if begins_at is not None and begins_at > now + leeway:
        raise InvalidToken("it is not valid yet")


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    """The time in that claim; None where there is none. Raises InvalidToken for what is no time."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise InvalidToken(f"its {name} is no time")
    return value


def is_subject(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"[\x20-\x7e]{{1,{MAX_SUBJECT}}}", value) is not None
