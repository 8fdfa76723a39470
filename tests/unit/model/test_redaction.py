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

from labrats.model import redaction
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


def wrapped(text: str, width: int, end: str = "\n") -> str:
    return end.join(text[start : start + width] for start in range(0, len(text), width))


FILE = b"first line of a file\nTOKEN=" + SECRET.encode() + b"\nand what comes after it in the file, for a while\n"

NOISY: dict[str, str] = {
    **{f"base64, {width} a line": wrapped(base64.b64encode(FILE).decode(), width) for width in (76, 64, 60)},
    **{f"hex, {width} a line": wrapped(FILE.hex(), width) for width in (76, 64, 60, 32)},
    "base64 with Windows' line ends": wrapped(base64.b64encode(FILE).decode(), 76, "\r\n"),
    "base64 in JSON": json.dumps({"content": wrapped(base64.b64encode(FILE).decode(), 60)}),
    "folded": wrapped(SECRET, 10, "\n    "),
    "continued by a shell": wrapped(SECRET, 10, "\\\n"),
    "coloured": wrapped(SECRET, 7, "\x1b[1;31m"),
    "with characters without width": wrapped(SECRET, 1, "\u200b"),
    "with soft hyphens": wrapped(SECRET, 5, "\u00ad"),
    "in an added part of a patch": "+" + wrapped(SECRET, 10, "\n+"),
    "base64 in a patch": "+" + wrapped(base64.b64encode(FILE).decode(), 60, "\n+"),
    "quoted": "> > " + wrapped(SECRET, 10, "\n> > "),
    "typed over": SECRET[:9] + "x\b" + SECRET[9:],
    "with null bytes": wrapped(SECRET, 2, "\0"),
    "hex with colons": SECRET.encode().hex(":"),
    "with slashes as JSON may escape them": SECRET.replace("/", "\\u002f"),
    "with slashes as HTML may escape them": SECRET.replace("/", "&#x2F;"),
    "with escaped slashes": json.dumps({"token": SECRET}).replace("/", "\\/"),
}


@pytest.mark.parametrize("leak", NOISY.values(), ids=NOISY)
def test_a_secret_with_noise_is_redacted(leak: str) -> None:
    redacted = Redactor([SECRET]).redact(leak)

    assert REDACTED in redacted
    assert "€cret" not in redacted
    assert len(leak) - len(redacted) + len(REDACTED) >= len(SECRET)
    bare = re.sub(r"[\s\\]|\[redacted\]", "", redacted)
    for encoded in (SECRET.encode().hex(), base64.b64encode(SECRET.encode()).decode()):
        assert not any(encoded[start : start + 16] in bare for start in range(len(encoded) - 16))


@pytest.mark.parametrize("width", [76, 64, 60])
def test_the_lines_of_a_wrapped_secret_leave_no_long_fragment(width: int) -> None:
    redactor, secret = Redactor(["test-" + "k3y" * 40]), "test-" + "k3y" * 40
    encoded = base64.b64encode(b"x" + secret.encode()).decode()
    lines = [redactor.redact(line) for line in wrapped(encoded, width).splitlines()]
    assert all(REDACTED in line for line in lines[:-1])
    assert sum(len(line.replace(REDACTED, "")) for line in lines) < 30


def test_text_around_a_noisy_secret_is_unchanged() -> None:
    redacted = Redactor(["test-secret"]).redact("one\ntwo test-\n  secret\nthree \x1b[1mfour\x1b[0m")
    assert redacted == f"one\ntwo {REDACTED}\nthree \x1b[1mfour\x1b[0m"


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


@pytest.mark.parametrize("shift", range(-40, 41, 8))
@pytest.mark.parametrize(
    "filler",
    ["word ", "\n \t", "\\ ", "AAAA", "\n> ", "\x1b[38;5mcolour " + "word " * 80],
)
def test_secret_at_a_cut_of_a_long_text_is_redacted(filler: str, shift: int) -> None:
    """A long text is examined in pieces of 128 KiB."""
    secret = "test-Secret0123456789abcdefghijk"
    wrapped = "\u200b".join(secret)

    def filled(length: int) -> str:
        whole = filler * (length // len(filler))
        return whole + "." * (length - len(whole))

    text = "".join([filled(131_072 + shift), secret, filled(200_000 + shift), wrapped, filled(100_000)])

    redacted = Redactor([secret]).redact(text)

    assert redacted.count(REDACTED) == 2
    assert secret not in redacted.replace("\u200b", "")
    assert redacted.replace(REDACTED, "") == text.replace(secret, "").replace(wrapped, "")


def test_long_text_is_examined_in_pieces() -> None:
    """No other thread runs while a pattern is applied, such as the one that measures the memory of the agent."""
    texts = ["word " * 100_000, "\n" * 500_000, "a" * 500_000, "\x1b]" * 250_000]
    for text in texts:
        pieces = list(redaction._pieces(text))
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= 256 * 1024 + 1
