"""Grants of a cluster's egress proxy: the hosts that one part of an attempt may reach, signed by the engine.

The proxy verifies a grant by a key that it shares with the engine. It needs no access to the cluster's API, and a grant
stays valid while the engine restarts. The engine also reports the attempts that have not ended: grants of others end.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

import msgspec

from labrats.model.errors import LabratsError
from labrats.model.network import AllowedHosts
from labrats.model.record import Record, encode

KEY_BYTES: Final = 32
_GRANT: Final = b"labrats egress grant 1\n"
_LIVING: Final = b"labrats living attempts 1\n"
"""Beginnings of what is signed, so that no signature by the key stands for something else."""

LIVING_REQUEST: Final = ("POST", "/living-attempts")
"""Request with such a list. Its token is that of the beginning, and its body the rest."""

ListNumber = tuple[int, int]
"""Number of such a list: the epoch of the leader that sends it, and its place among the lists of this leader.

Lists are ordered by it instead of by time, since the clocks of two leaders may differ, and a clock may be set back.
"""


class InvalidGrant(LabratsError):
    """The token is not a valid grant, or it has expired."""


class EgressGrant(Record):
    """The hosts that one part of an attempt may reach.

    network:          the network rule. It is that of the agent, and `none` for other parts.
    hosts:            further hosts, each with its port. They must have public addresses, or those below.
    private_networks: networks in CIDR notation that may be reached in addition to public addresses.
    model_server:     host and port of a server that the operator has set: any address is allowed for it.
    expires_at:       seconds since the epoch.
    listed_after:     number of the last list of living attempts before the grant, which may lack the attempt.
    address:          of the only pod that may use the grant. None before the pod's first step has bound it, and for the
                      parts of a pod that run nothing but the image of Labrats.
    """

    attempt: str
    network: str | AllowedHosts
    expires_at: int
    hosts: tuple[tuple[str, int], ...] = ()
    private_networks: tuple[str, ...] = ()
    model_server: tuple[str, int] | None = None
    listed_after: ListNumber = (0, 0)
    address: str | None = None


class LivingAttemptsHead(Record):
    """The beginning of a list of all attempts that have not ended, which the engine sends to the proxy.

    size, sha256: length and digest of the names, which follow, separated by spaces.
    """

    number: ListNumber
    size: int
    sha256: str

    @classmethod
    def of(cls, names: bytes, number: ListNumber) -> "LivingAttemptsHead":
        return cls(number=number, size=len(names), sha256=hashlib.sha256(names).hexdigest())


@dataclass(frozen=True)
class LivingAttempts:
    """All attempts that had not ended when a list was made, by their names."""

    number: ListNumber
    names: frozenset[str]

    def includes(self, grant: EgressGrant) -> bool:
        """Return whether the grant's attempt may not have ended. A new one may be missing in the list."""
        return grant.attempt in self.names or grant.listed_after >= self.number


_GRANT_DECODER: Final = msgspec.json.Decoder(EgressGrant)
_LIVING_DECODER: Final = msgspec.json.Decoder(LivingAttemptsHead)


def sign_grant(grant: EgressGrant, key: str) -> str:
    """Return the token of a grant: letters, digits, `-`, `_` and one dot."""
    return _signed(encode(grant), _GRANT, key)


def read_grant(token: str, key: str, now: float) -> EgressGrant:
    """Return the grant in a token. Raises InvalidGrant.

    now: seconds since the epoch.
    """
    grant: EgressGrant = _GRANT_DECODER.decode(_verified(token, _GRANT, key))
    if grant.expires_at <= now:
        raise InvalidGrant("the grant has expired")
    return grant


def sign_living(living: LivingAttemptsHead, key: str) -> str:
    """Return the token of a list of attempts, as of a grant."""
    return _signed(encode(living), _LIVING, key)


def read_living(token: str, key: str) -> LivingAttemptsHead:
    """Return the beginning of a list in a token. Raises InvalidGrant."""
    return _LIVING_DECODER.decode(_verified(token, _LIVING, key))


def _signed(content: bytes, purpose: bytes, key: str) -> str:
    payload = base64.urlsafe_b64encode(content).rstrip(b"=")
    return f"{payload.decode()}.{_signature(payload, purpose, key)}"


def _verified(token: str, purpose: bytes, key: str) -> bytes:
    payload, _, signature = token.partition(".")
    if not hmac.compare_digest(signature.encode(), _signature(payload.encode(), purpose, key).encode()):
        raise InvalidGrant("the engine has not signed this grant")
    return base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))


def _signature(payload: bytes, purpose: bytes, key: str) -> str:
    return hmac.new(key.encode(), purpose + payload, hashlib.sha256).hexdigest()
