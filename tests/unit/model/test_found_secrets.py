"""Secrets that GitHub has found, which the engine recognises by digests."""

import pytest

from labrats.model.found_secrets import SecretDigest, digests_in
from labrats.model.record import encode
from labrats.model.redaction import REDACTED, Redactor

TOKEN = "ghp_" + "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX"


def redacted(text: str, *lines: str) -> str:
    return Redactor(digests=digests_in(lines)).redact(text)


@pytest.mark.parametrize(
    "line",
    [
        f"TOKEN={TOKEN}",
        f'  "token": "{TOKEN}",',
        f"const token = `{TOKEN}`;",
        f"curl -H 'Authorization: token {TOKEN}' https://example.com/a/b",
        f"https://octo:{TOKEN}@example.com/octo/demo.git",
        f"-see {TOKEN}.",
    ],
)
def test_token_on_a_line_is_redacted_elsewhere(line: str) -> None:
    text = f'{{"text": "I wrote {TOKEN}\\n, x{TOKEN}y and https://a:{TOKEN}@b"}}'
    assert TOKEN not in redacted(text, line)
    assert redacted("The token is in place.", line) == "The token is in place."


def test_private_key_is_redacted_on_all_of_its_lines() -> None:
    key = [
        "-----BEGIN PRIVATE KEY-----",
        "MIIBVwIBADANBgkqhkiG9w0B",
        "AQEFAASCAUEwggE9AgEAAkEA",
        "-----END PRIVATE KEY-----",
    ]
    assert redacted("\n".join(key), *key, "other").splitlines() == [key[0], REDACTED, REDACTED, key[3]]


def test_short_password_is_redacted() -> None:
    assert redacted("it is hunter-two", "hunter-two") == f"it is {REDACTED}"


def test_digest_does_not_show_the_secret() -> None:
    assert TOKEN[4:].encode() not in encode(SecretDigest.of(TOKEN))
    assert digests_in([]) == digests_in([""]) == ()
