"""Signatures of webhooks, checked against the published example of Standard Webhooks."""

from datetime import UTC, datetime

import pytest

from labrats.net.webhook_signature import signed_headers, signing_key

EXAMPLE_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EXAMPLE_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
EXAMPLE_TIME = datetime.fromtimestamp(1614265330, UTC)


def test_the_published_example_has_its_published_signature() -> None:
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", EXAMPLE_TIME, b'{"test": 2432232314}', [signing_key(EXAMPLE_SECRET)]
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": EXAMPLE_SIGNATURE,
    }


def test_several_keys_give_a_signature_each() -> None:
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", EXAMPLE_TIME, b'{"test": 2432232314}',
        [b"new-test-secret", signing_key(EXAMPLE_SECRET)],
    )  # fmt: skip
    first, second = headers["webhook-signature"].split(" ")
    assert first.startswith("v1,")
    assert first != second == EXAMPLE_SIGNATURE


def test_headers_without_a_key_have_an_id_and_no_signature() -> None:
    assert set(signed_headers("msg_1", EXAMPLE_TIME, b"{}", [])) == {"webhook-id", "webhook-timestamp"}


def test_a_secret_without_the_prefix_is_its_own_key() -> None:
    assert signing_key("test-secret") == b"test-secret"


@pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64", "whsec_abc"])
def test_a_secret_with_the_prefix_must_be_base64(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        signing_key(secret)
