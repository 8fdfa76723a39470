"""A signature is valid only for the unchanged body and the secret of its source."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from labrats.intake.signatures import Signature, hub_signature, standard_signature
from tests.fakes.clock import NOON
from tests.support.deliveries import SECRET
from tests.support.deliveries import hub_signature as sign

BODY = b'{"action": "labeled"}'
TIMESTAMP = str(int(NOON.timestamp()))


def hub(body: bytes = BODY, secret: str = SECRET) -> Signature:
    found = hub_signature(Headers({"X-Hub-Signature-256": sign(body, secret)}))
    assert found
    return found


def standard(changed: Mapping[str, str] | None = None, key: bytes = SECRET.encode()) -> Signature | None:
    digest = hmac.digest(key, f"msg_1.{TIMESTAMP}.".encode() + BODY, hashlib.sha256)
    signature = f"v1,{base64.b64encode(digest).decode()}"
    headers = {"webhook-id": "msg_1", "webhook-timestamp": TIMESTAMP, "webhook-signature": signature}
    return standard_signature(Headers(headers | {**(changed or {})}), NOON)


def is_by(signature: Signature, secret: str, body: bytes) -> bool:
    verifier = signature.verifier(secret)
    verifier.update(body)
    return verifier.matches()


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(body=st.binary(min_size=1, max_size=300), data=st.data())
def test_a_flipped_bit_of_the_body_invalidates_the_signature(body: bytes, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    assert is_by(hub(body), SECRET, body)
    assert not is_by(hub(body), SECRET, flipped(body, bit))


@given(bit=st.integers(0, (len("sha256=") + 64) * 8 - 1))
def test_a_flipped_bit_of_the_signature_invalidates_it(bit: int) -> None:
    sent = flipped(sign(BODY).encode(), bit).decode("latin-1")
    found = hub_signature(Headers(raw=[(b"x-hub-signature-256", sent.encode("latin-1"))]))
    assert found is None or not is_by(found, SECRET, BODY)


@given(secret=st.text(min_size=1))
def test_another_secret_has_another_signature(secret: str) -> None:
    assert is_by(hub(), secret, BODY) == (secret == SECRET)


class TestStandardWebhooks:
    def test_id_and_time_are_signed_too(self) -> None:
        good = standard()
        assert good
        assert (is_by(good, SECRET, BODY), good.id) == (True, "msg_1")
        for changed in ({"webhook-id": "msg_2"}, {"webhook-timestamp": str(int(TIMESTAMP) + 1)}):
            forged = standard(changed)
            assert forged
            assert not is_by(forged, SECRET, BODY)

    def test_a_secret_may_be_base64(self) -> None:
        key = bytes(range(24))
        found = standard(key=key)
        assert found
        assert is_by(found, f"whsec_{base64.b64encode(key).decode()}", BODY)

    def test_a_github_secret_is_never_decoded_from_base64(self) -> None:
        secret = "whsec_dGVzdC1zZWNyZXQ="
        assert is_by(hub(secret=secret), secret, BODY)

    @pytest.mark.parametrize(
        "changed",
        [
            {"webhook-id": ""},
            {"webhook-id": "x" * 256},
            {"webhook-timestamp": ""},
            {"webhook-timestamp": "-1"},
            {"webhook-timestamp": "1e9"},
            {"webhook-timestamp": str(int(TIMESTAMP) - 301)},
            {"webhook-timestamp": str(int(TIMESTAMP) + 301)},
            {"webhook-signature": ""},
            {"webhook-signature": "v1a,AAAA"},
            {"webhook-signature": "v1,é"},
        ],
    )
    def test_malformed_standard_headers_are_no_signature(self, changed: dict[str, str]) -> None:
        assert standard(changed) is None

    def test_one_valid_signature_of_several_is_enough(self) -> None:
        good = base64.b64encode(
            hmac.digest(SECRET.encode(), f"msg_1.{TIMESTAMP}.".encode() + BODY, hashlib.sha256)
        ).decode()
        found = standard({"webhook-signature": f"v1,{base64.b64encode(b'other').decode()} v1,{good}"})
        assert found
        assert is_by(found, SECRET, BODY)
