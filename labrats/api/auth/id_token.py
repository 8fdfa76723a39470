"""Strict validation of the ID tokens of an OpenID provider. The library is loaded on first use, as it is large."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from joserfc.jwk import Key

ALGORITHMS: Final = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "Ed25519": "OKP",
}
"""The accepted algorithms, each with its key type. HMAC is excluded: a public key could be used as its secret."""

LEEWAY: Final = timedelta(seconds=60)
"""Tolerated difference between the clocks of the provider and the engine."""
MAX_AGE: Final = timedelta(minutes=10)
"""Maximum age of a token, since it must come from the login in progress."""
MAX_SUBJECT_LENGTH: Final = 255
_RSA_2048_DIGITS: Final = 342
"""Length of a 2048-bit RSA modulus in base64url. Shorter keys are not secure."""


class InvalidToken(Exception):
    """A refused token. The text is the reason, for the log."""


class UnknownKey(InvalidToken):
    """A token whose signing key is not among the known keys of the provider, which may have newer ones."""


@dataclass(frozen=True)
class ExpectedClaims:
    """The claims that tie a token to one login."""

    issuer: str
    client_id: str
    nonce: str


def usable_keys(entries: Iterable[Any]) -> "list[Key]":
    """Return the public keys of a JWK set that can sign an ID token. Invalid entries are skipped."""
    return [key for entry in entries if isinstance(entry, dict) and (key := _public_key(entry))]


def _public_key(entry: Mapping[str, Any]) -> "Key | None":
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    if entry.get("kty") not in ALGORITHMS.values() or entry.get("use", "sig") != "sig":
        return None
    if entry["kty"] == "RSA" and len(str(entry.get("n"))) < _RSA_2048_DIGITS:
        return None
    try:
        key = import_key({name: value for name, value in entry.items() if name != "key_ops"})
        return key if key.public_key else None
    except (JoseError, ValueError, KeyError, TypeError):
        return None


def check_id_token(token: str, keys: "Sequence[Key]", expected: ExpectedClaims, now: datetime) -> dict[str, Any]:
    """Return the claims of a valid token. Raises InvalidToken."""
    from joserfc import jws, jwt
    from joserfc.errors import JoseError

    if not token.isascii():
        raise InvalidToken("the token contains characters beyond ASCII")
    try:
        header = jws.extract_compact(token.encode()).headers()
        claims = jwt.decode(token, _signing_key(header, keys), algorithms=list(ALGORITHMS)).claims
    except JoseError as error:
        raise InvalidToken(f"the signature is not valid: {error}") from error
    _check_audience(claims, expected)
    _check_times(claims, now.timestamp())
    if claims.get("nonce") != expected.nonce:
        raise InvalidToken("the nonce is not the one of this login")
    if not _is_subject(claims.get("sub")):
        raise InvalidToken(f"`sub` must be 1 to {MAX_SUBJECT_LENGTH} printable ASCII characters")
    return claims


def _signing_key(header: Mapping[str, Any], keys: "Sequence[Key]") -> "Key":
    """Return the key that the header names. Keys and key URLs in the header are ignored."""
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise InvalidToken("the algorithm is not accepted")
    if "crit" in header:
        raise InvalidToken("the header has critical extensions, which are not supported")
    of_type = [key for key in keys if key.key_type == ALGORITHMS[algorithm]]
    candidates = [key for key in of_type if key_id is None or key.kid == key_id]
    if not candidates:
        raise UnknownKey("the signing key is not one of the provider's keys")
    if len(candidates) > 1:
        raise InvalidToken("the header does not identify the signing key")
    return candidates[0]


def _check_audience(claims: Mapping[str, Any], expected: ExpectedClaims) -> None:
    if claims.get("iss") != expected.issuer:
        raise InvalidToken("the token comes from another issuer")
    audience = claims.get("aud")
    audience = [audience] if isinstance(audience, str) else audience
    if not isinstance(audience, list) or expected.client_id not in audience:
        raise InvalidToken("the audience does not include this client")
    if ("azp" in claims or len(audience) > 1) and claims.get("azp") != expected.client_id:
        raise InvalidToken("the token was issued to another client")


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    leeway = LEEWAY.total_seconds()
    expires_at, issued_at, begins_at = (_unix_time(claims, name) for name in ("exp", "iat", "nbf"))
    if expires_at is None or now >= expires_at + leeway:
        raise InvalidToken("the token has expired")
    if issued_at is None or not now - MAX_AGE.total_seconds() <= issued_at <= now + leeway:
        raise InvalidToken("the token was not issued recently")
    if begins_at is not None and begins_at > now + leeway:
        raise InvalidToken("the token is not valid yet")


def _unix_time(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a claim in Unix seconds; None if it is missing. Raises InvalidToken if it is not a number."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise InvalidToken(f"`{name}` is not a number")
    return value


def _is_subject(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"[\x20-\x7e]{{1,{MAX_SUBJECT_LENGTH}}}", value) is not None
