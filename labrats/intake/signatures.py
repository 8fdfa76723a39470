"""Whether a delivery was signed with a source's secret: nothing of its body is read before that is known."""

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
"""GitHub's: `sha256=` and the HMAC of the body, in lower-case hex."""

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
STANDARD_HEADER: Final = "webhook-signature"
"""Those of Standard Webhooks, which sign the id and the time too. A secret may be rotated: there may be several."""

TOLERANCE_SECONDS: Final = 300
"""How far the time that was signed may be from ours, either way."""

_HUB: Final = re.compile(r"sha256=([0-9a-f]{64})")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_MOST_SIGNATURES: Final = 10
_LONGEST_ID: Final = 255


class Headers(Protocol):
    """What is needed of a request's headers: all values by a lower-case name."""

    def getlist(self, key: str) -> list[str]: ...


@dataclass(frozen=True)
class Signature:
    """What a delivery offers as proof. signed_head: what is signed before the body. id: a signed one, if any."""

    digests: Sequence[bytes]
    signed_head: bytes = b""
    id: str | None = None

    def verifier(self, secret: str) -> "Verifier":
        """Return what takes the body and tells whether one of the digests was made with `secret`."""
        return Verifier(hmac.new(self._key(secret), self.signed_head, hashlib.sha256), self.digests)

    def is_by(self, secret: str, body: bytes) -> bool:
        """Return whether one of the digests was made with `secret`."""
        verifier = self.verifier(secret)
        verifier.update(body)
        return verifier.matches()

    def _key(self, secret: str) -> bytes:
        """The secret's text; for Standard Webhooks, where it is `whsec_` and base64, what that stands for."""
        if self.id is None:
            return secret.encode()
        try:
            return signing_key(secret)
        except ValueError:
            return secret.encode()  # it only looks like one


class Verifier:
    """Hashes a body as it arrives."""

    def __init__(self, computed: hmac.HMAC, digests: Sequence[bytes]) -> None:
        self._computed, self._digests = computed, digests

    def update(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self._computed.update(piece)

    def matches(self) -> bool:
        """Return whether the body so far has one of the digests. Takes as long whichever byte is wrong."""
        digest = self._computed.digest()
        found = [hmac.compare_digest(digest, each) for each in self._digests]
        return any(found)


def hub_signature(headers: Headers) -> Signature | None:
    """What stands in X-Hub-Signature-256; None where that is missing, doubled, or not as GitHub writes it."""
    sent = headers.getlist(HUB_HEADER)
    match = _HUB.fullmatch(sent[0]) if len(sent) == 1 else None
    return Signature([bytes.fromhex(match[1])]) if match else None


def standard_signature(headers: Headers, now: datetime) -> Signature | None:
    """What the headers of Standard Webhooks say; None where one is missing or doubled, or the time is long past."""
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
