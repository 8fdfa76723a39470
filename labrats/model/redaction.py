"""Redaction of secrets in text, in plain form and in the usual encodings.

It is no security boundary but guards against accidents: a secret that is encoded twice, or in an unusual way, remains.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote, quote_plus

from labrats.model.found_secrets import SecretDigest
from labrats.model.outside_text import INVISIBLE

REDACTED: Final = "[redacted]"
MIN_SECRET_LENGTH: Final = 6
"""The minimum length of a redacted secret: shorter ones would match in the middle of ordinary words."""

_MIN_LEAF_LENGTH: Final = 16
"""The minimum length of strings that are secrets of their own within a secret that is a JSON document."""

WORD_END: Final = re.compile(r"[ \t。，、！？；：]")
"""Characters at which a line may be cut in two: few secrets contain one."""

_INVISIBLE: Final = re.compile(f"[{INVISIBLE}]+")

_ENGINE_KEY: Final = re.compile(r"(?<![A-Za-z0-9_-])lr_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
"""The form of an API key of any engine."""


class Redactor:
    """A filter that replaces known secrets, and API keys of any engine, by a mark.

    A part of a secret remains, and so does a secret that is wrapped over lines or interspersed with visible characters.

    digests: of secrets that are known only by these. They are replaced in plain form.
    """

    def __init__(self, secrets: Iterable[str] = (), digests: Sequence[SecretDigest] = ()) -> None:
        self._secrets, self._digests = tuple(secrets), digests
        parts = {part for secret in self._secrets for part in _parts(secret)}
        forms = {form for part in parts for form in (*_text_encodings(part), *_binary_encodings(part))}
        self._forms = sorted(forms, key=len, reverse=True)  # longest first, as a form may contain another one

    def including(self, *secrets: str) -> "Redactor":
        """Return a filter that also replaces `secrets`."""
        return Redactor([*self._secrets, *secrets], self._digests)

    def redact(self, text: str) -> str:
        bare = _INVISIBLE.sub("", text)
        if bare != text and self._is_in(bare):  # people read it there, and copy it
            text = bare
        for form in self._forms:
            text = text.replace(form, REDACTED)
        if found := sorted(place for digest in self._digests for place in digest.places_in(text)):
            text = _without(text, found)
        return _ENGINE_KEY.sub(REDACTED, text) if "lr_" in text else text

    def _is_in(self, text: str) -> bool:
        return any(form in text for form in self._forms) or any(digest.places_in(text) for digest in self._digests)

    def redact_host(self, host: str) -> str:
        """Return the name of a host, with or without its port, or REDACTED if it contains a secret in any case."""
        lower = host.lower()
        return REDACTED if any(form.lower() in lower for form in self._forms) else self.redact(host)

    def safe_length(self, text: str) -> int:
        """Return the length of the part of a text in which a cut between two words splits no secret.

        text: the beginning of a line, without the rest.
        """
        return min((_start_of(form, text) for form in self._forms), default=len(text))

    def redact_value(self, value: Any) -> Any:
        """Redact every string in a JSON value, including object keys."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {self.redact(str(key)): self.redact_value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_value(item) for item in value]
        return value


def _without(text: str, places: Iterable[tuple[int, int]]) -> str:
    """Return a text with a mark in place of some parts, which may overlap. places: their starts and ends, in order."""
    kept, end = list[str](), 0
    for start, behind in places:
        if start >= end:
            kept += [text[end:start], REDACTED]
        end = max(end, behind)
    return "".join([*kept, text[end:]])


def _start_of(form: str, text: str) -> int:
    """Return the position of `form` in `text`, or of its beginning at the end of `text`; otherwise the length."""
    if (found := text.find(form)) >= 0:
        return found
    longest = min(len(form) - 1, len(text))
    return next((len(text) - k for k in range(longest, 0, -1) if text.endswith(form[:k])), len(text))


def _parts(secret: str) -> Iterator[str]:
    """Yield the secret, its lines, and its long strings if it is JSON, like `auth.json`."""
    candidates = [secret, secret.strip(), *(line.strip() for line in secret.splitlines()), *_long_leaves(secret)]
    return (part for part in candidates if len(part) >= MIN_SECRET_LENGTH)


def _long_leaves(secret: str) -> Iterator[str]:
    try:
        pending = [json.loads(secret)]
    except ValueError:
        return
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str) and len(value) >= _MIN_LEAF_LENGTH:
            yield value


def _text_encodings(secret: str) -> Iterator[str]:
    yield secret
    for text in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield text
        yield json.dumps(text)[1:-1]  # JSON in a JSON string, as in many tool inputs
    for url in (quote(secret), quote(secret, safe=""), quote_plus(secret), quote(secret, safe="/:@!$&'()*+,;=")):
        yield url
        yield _with_lower_escapes(url)
    yield html.escape(secret)
    yield html.escape(secret, quote=False)
    for slash in ("\\u002f", "\\u002F", "&#x2F;", "&#x2f;", "&#47;"):
        yield secret.replace("/", slash)
    for quote_mark in ("'\\''", "'\"'\"'"):  # the two ways to write it within single quotes of a shell
        yield secret.replace("'", quote_mark)


def _binary_encodings(secret: str) -> Iterator[str]:
    raw = secret.encode()
    yield raw.hex(":")
    yield raw.hex(":").upper()
    yield raw.hex()
    yield raw.hex().upper()
    for offset in range(3):
        yield _base64_core(raw, offset, b"+/")
        yield _base64_core(raw, offset, b"-_")


def _with_lower_escapes(url: str) -> str:
    """Return `url` with lower-case escapes, such as `%2f`."""
    head, *escaped = url.split("%")
    return "%".join([head, *(piece[:2].lower() + piece[2:] for piece in escaped)])


def _base64_core(raw: bytes, offset: int, altchars: bytes) -> str:
    """Return the base64 characters that only `raw` determines. offset: its position in the encoded bytes, modulo 3."""
    encoded = base64.b64encode(bytes(offset) + raw, altchars).decode()
    first = (offset * 8 + 5) // 6
    end = (offset + len(raw)) * 8 // 6
    return encoded[first:end]
