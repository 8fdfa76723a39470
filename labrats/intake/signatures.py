"""Verification of the signature of a delivery. A body is parsed only after that."""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from labrats.net.webhook_signature import signing_key

HUB_HEADER: Final = "x-hub-signature-256"
"""GitHub's header: `sha256=` and the HMAC of the body in lower-case hex."""

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
STANDARD_HEADER: Final = "webhook-signature"
"""The headers of Standard Webhooks, whose signatures cover the id and the time, too. Rotated secrets give several."""

TOLERANCE_SECONDS: Final = 300
"""The largest accepted difference between the signed time and the engine's clock."""

_HUB: Final = re.compile(r"sha256=([0-9a-f]{64})")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_MOST_SIGNATURES: Final = 10
_LONGEST_ID: Final = 255


class Headers(Protocol):
    """The headers of a request: all values of a lower-case name."""

    def getlist(self, key: str) -> list[str]: ...


@dataclass(frozen=True)
class Signature:
    """The signature of a delivery. signed_head: signed text before the body. id: the signed id, if there is one."""

    digests: Sequence[bytes]
    signed_head: bytes = b""
    id: str | None = None

    def verifier(self, secret: str) -> "Verifier":
        """Return a verifier of the digests for `secret`."""
        return Verifier(hmac.new(self._key(secret), self.signed_head, hashlib.sha256), self.digests)

    def _key(self, secret: str) -> bytes:
        """Return the HMAC key: the secret's text, or the decoded base64 of a `whsec_` secret of Standard Webhooks."""
        if self.id is None:
            return secret.encode()
        try:
            return signing_key(secret)
        except ValueError:
            return secret.encode()  # it is plain text


class Verifier:
    """Computes the HMAC of a body as it arrives."""

    def __init__(self, computed: hmac.HMAC, digests: Sequence[bytes]) -> None:
        self._computed, self._digests = computed, digests

    def update(self, piece: bytes) -> None:
        """Add the next piece of the body."""
        self._computed.update(piece)

    def matches(self) -> bool:
        """Return whether one of the digests is that of the body so far. Compares in constant time."""
        digest = self._computed.digest()
        found = [hmac.compare_digest(digest, each) for each in self._digests]
        return any(found)


def hub_signature(headers: Headers) -> Signature | None:
    """Return the signature in X-Hub-Signature-256; None if the header is missing, repeated or malformed."""
    sent = headers.getlist(HUB_HEADER)
    match = _HUB.fullmatch(sent[0]) if len(sent) == 1 else None
    return Signature([bytes.fromhex(match[1])]) if match else None


def standard_signature(headers: Headers, now: datetime) -> Signature | None:
    """Return the signature of Standard Webhooks; None if a header is missing, repeated, malformed or out of date."""
    values = [headers.getlist(name) for name in (ID_HEADER, TIMESTAMP_HEADER, STANDARD_HEADER)]
    if any(len(each) != 1 for each in values):
        return None
    (message_id,), (timestamp,), (signatures,) = values
    if not _TIMESTAMP.fullmatch(timestamp) or abs(now.timestamp() - int(timestamp)) > TOLERANCE_SECONDS:
        return None
    digests = [digest for each in signatures.split(" ")[:_MOST_SIGNATURES] if (digest := _standard_digest(each))]
    if not digests or not 0 < len(message_id) <= _LONGEST_ID:
        return None
    return Signature(digests, f"{message_id}.{timestamp}.".encode(), message_id)


def _standard_digest(text: str) -> bytes | None:
    version, _, encoded = text.partition(",")
    try:
        return base64.b64decode(encoded, validate=True) if version == "v1" else None
    except ValueError:
        return None
