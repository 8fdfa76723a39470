"""Grants of a cluster's egress proxy: the hosts that one part of an attempt may reach, signed by the engine.

The proxy verifies a grant by a key that it shares with the engine. It needs no access to the cluster's API, and a grant
stays valid while the engine restarts.
"""

import base64
import hashlib
import hmac
from typing import Final

import msgspec

from labrats.model.errors import LabratsError
from labrats.model.network import AllowedHosts
from labrats.model.record import Record, encode

KEY_BYTES: Final = 32
_PURPOSE: Final = b"labrats egress grant 1\n"
"""Beginning of what is signed, so that no other signature by the key is a grant."""


class InvalidGrant(LabratsError):
    """The token is not a valid grant, or it has expired."""


class EgressGrant(Record):
    """The hosts that one part of an attempt may reach.

    network:          the network rule. It is that of the agent, and `none` for other parts.
    hosts:            further hosts, each with its port. They must have public addresses, or those below.
    private_networks: networks in CIDR notation that may be reached in addition to public addresses.
    model_server:     host and port of a server that the operator has set: any address is allowed for it.
    expires_at:       seconds since the epoch.
    """

    attempt: str
    network: str | AllowedHosts
    expires_at: int
    hosts: tuple[tuple[str, int], ...] = ()
    private_networks: tuple[str, ...] = ()
    model_server: tuple[str, int] | None = None


_DECODER: Final = msgspec.json.Decoder(EgressGrant)


def sign_grant(grant: EgressGrant, key: str) -> str:
    """Return the token of a grant: letters, digits, `-`, `_` and one dot."""
    payload = base64.urlsafe_b64encode(encode(grant)).rstrip(b"=")
    return f"{payload.decode()}.{_signature(payload, key)}"


def read_grant(token: str, key: str, now: float) -> EgressGrant:
    """Return the grant in a token. Raises InvalidGrant.

    now: seconds since the epoch.
    """
    payload, _, signature = token.partition(".")
    if not hmac.compare_digest(signature.encode(), _signature(payload.encode(), key).encode()):
        raise InvalidGrant("the engine has not signed this grant")
    grant: EgressGrant = _DECODER.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if grant.expires_at <= now:
        raise InvalidGrant("the grant has expired")
    return grant


def _signature(payload: bytes, key: str) -> str:
    return hmac.new(key.encode(), _PURPOSE + payload, hashlib.sha256).hexdigest()
