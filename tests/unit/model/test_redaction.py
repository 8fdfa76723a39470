"""Redaction of secrets in the usual encodings."""

import base64
import html
import json
import re
import shlex
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.model.redaction import REDACTED, Redactor

SECRET = "t3st secret/s€cret+key&\"quoted\"='42'<>?%"

ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda text: json.dumps(text),
    "JSON with unescaped characters": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "URL path": quote,
    "URL component": lambda text: quote(text, safe=""),
    "URL component in lower case": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "URL form": quote_plus,
    "HTML": html.escape,
    "HTML text": lambda text: html.escape(text, quote=False),
    "hex": lambda text: text.encode().hex(),
    "upper-case hex": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "URL-safe base64": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "shell": shlex.quote,
    "hex with colons": lambda text: text.encode().hex(":"),
    "with slashes as JSON may escape them": lambda text: text.replace("/", "\\u002f"),
    "with slashes as HTML may escape them": lambda text: text.replace("/", "&#x2F;"),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())
@pytest.mark.parametrize("before", ["", "u", "u:", "x-access-token:"])
@pytest.mark.parametrize("after", ["", "\n", "@host", " and more of the same line"])
def test_every_usual_encoding_of_a_secret_is_redacted(encode: Callable[[str], str], before: str, after: str) -> None:
    leak = encode(before + SECRET + after)

    redacted = Redactor([SECRET]).redact(leak)

    removed = len(leak) - len(redacted) + len(REDACTED)
    assert REDACTED in redacted
    assert removed >= len(encode(SECRET)) - 6  # quotes, padding and shared characters of base64 may remain


@pytest.mark.parametrize("around", [("", ""), ("Bearer ", "\n"), ('{"key":"', '"}')])
def test_an_api_key_of_any_engine_is_redacted(around: tuple[str, str]) -> None:
    key = "lr_" + "aB3-_" * 8 + "xyz"
    before, after = around
    assert Redactor().redact(before + key + after) == before + REDACTED + after
    assert Redactor().redact_value({"said": [before + key + after]}) == {"said": [before + REDACTED + after]}
    assert Redactor().redact(f"{key}longer lr_short") == f"{key}longer lr_short"


def test_other_text_is_unchanged() -> None:
    text = "t3st secret key, base64: dDNzdA=="

    assert Redactor([SECRET]).redact(text) == text
    assert Redactor().redact(text) == text


def test_a_secret_is_redacted_among_invisible_characters() -> None:
    assert Redactor(["hunter-22"]).redact("is " + "\u200b".join("hunter-22")) == "is [redacted]"
    family = "\U0001f468\u200d\U0001f469 of hunters"
    assert Redactor(["hunter-22"]).redact(family) == family


def test_every_line_of_a_secret_is_a_secret() -> None:
    key = "-----BEGIN TEST KEY-----\nMIIEtestline0001\n  MIIEtestline0002\n-----END TEST KEY-----\n"

    assert Redactor([key]).redact("leaked: MIIEtestline0002!") == f"leaked: {REDACTED}!"


def test_the_strings_inside_a_json_secret_are_secrets() -> None:
    login = json.dumps({"mode": "chatgpt", "tokens": [{"access": "test-token-0123456789"}]})

    redactor = Redactor([login])

    assert redactor.redact("Bearer test-token-0123456789") == f"Bearer {REDACTED}"
    assert redactor.redact("the chatgpt mode") == "the chatgpt mode"


def test_a_secret_that_contains_another_is_redacted_completely() -> None:
    redactor = Redactor(["test-pass", "test-pass-phrase"])

    assert redactor.redact("test-pass-phrase") == REDACTED


def test_very_short_secrets_are_not_redacted() -> None:
    assert Redactor(["git", "12345"]).redact("git is at 12345") == "git is at 12345"


def test_values_are_redacted_at_any_depth() -> None:
    value = {"key": ["test-secret", {"test-secret": 1, "n": 2.5, "flag": True, "nothing": None}]}

    expected = {"key": [REDACTED, {REDACTED: 1, "n": 2.5, "flag": True, "nothing": None}]}
    assert Redactor(["test-secret"]).redact_value(value) == expected


@given(st.text(min_size=6, max_size=80), st.text(max_size=40), st.text(max_size=40))
def test_any_secret_is_redacted(secret: str, before: str, after: str) -> None:
    if REDACTED.find(secret) < 0:
        assert secret not in Redactor([secret]).redact(before + secret + after).replace(REDACTED, "\0")
