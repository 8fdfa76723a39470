"""Signatures of webhooks, by the published example of Standard Webhooks."""

from datetime import UTC, datetime

import pytest

from labrats.net.webhook_signature import signed_headers, signing_key

EXAMPLE_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EXAMPLE_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
EXAMPLE_TIME = datetime.fromtimestamp(1614265330, UTC)


def test_the_published_example_comes_out() -> None:
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", EXAMPLE_TIME, b'{"test": 2432232314}', [signing_key(EXAMPLE_SECRET)]
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": EXAMPLE_SIGNATURE,
    }


def test_while_secrets_are_changed_there_is_a_signature_by_each() -> None:
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", EXAMPLE_TIME, b'{"test": 2432232314}',
        [b"new-test-secret", signing_key(EXAMPLE_SECRET)],
    )  # fmt: skip
    first, second = headers["webhook-signature"].split(" ")
    assert first.startswith("v1,")
    assert first != second == EXAMPLE_SIGNATURE


def test_without_a_secret_nothing_is_signed_and_the_id_is_there_all_the_same() -> None:
    assert set(signed_headers("msg_1", EXAMPLE_TIME, b"{}", [])) == {"webhook-id", "webhook-timestamp"}


def test_any_other_text_is_a_secret_as_it_stands() -> None:
    assert signing_key("test-secret") == b"test-secret"


@pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64", "whsec_abc"])
def test_a_secret_that_looks_encoded_has_to_be(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        signing_key(secret)
