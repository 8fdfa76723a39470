"""Symmetric signatures of Standard Webhooks, by which a receiver verifies that a webhook is authentic.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

PREFIX: Final = "whsec_"


def signing_key(secret: str) -> bytes:
    """Return the key that `secret` stands for: decoded after `whsec_`, otherwise the text itself. Raises ValueError."""
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"a signing secret must continue with base64 after {PREFIX}") from None
    if not key:
        raise ValueError(f"a signing secret must have a key after {PREFIX}")
    return key


def signed_headers(message_id: str, at: datetime, body: bytes, keys: Sequence[bytes]) -> Mapping[str, str]:
    """Return the headers of one delivery of `body`, signed with each of `keys`. A receiver accepts any one signature.

    message_id: equal for each delivery of the same message; must not contain a full stop.
    """
    timestamp = str(int(at.timestamp()))
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp}
    if keys:
        signed = b".".join((message_id.encode(), timestamp.encode(), body))
        headers["webhook-signature"] = " ".join(_signature(key, signed) for key in keys)
    return headers


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
