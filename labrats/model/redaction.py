"""Takes secrets out of text, also where a program has encoded them in one of the usual ways.

Not a boundary: a secret that was transformed twice, or in an unusual way, passes. It guards against accidents.
"""

import base64
import html
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote, quote_plus

REDACTED: Final = "[redacted]"
SHORTEST_SECRET: Final = 6
"""Shorter secrets are left alone: they would match in the middle of ordinary words."""

_SHORTEST_LEAF: Final = 16
"""Of a secret that is itself a JSON document, only strings this long are taken for secrets of their own."""


class Redactor:
    """Replaces every secret it knows by a mark. The texts it is given must be whole: half a secret is not seen."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for part in _parts(secret) for form in _encodings(part)}
        self._forms = sorted(forms, key=len, reverse=True)  # a form may contain another one: the longest goes first

    def redact(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, REDACTED)
        return text

    def redact_value(self, value: Any) -> Any:
        """A JSON value with every string in it redacted, object keys too."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {self.redact(str(key)): self.redact_value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_value(item) for item in value]
        return value


def _parts(secret: str) -> Iterator[str]:
    """The secret, its lines, and the long strings in it where it is JSON, as `auth.json` is."""
    candidates = [secret, secret.strip(), *(line.strip() for line in secret.splitlines()), *_long_leaves(secret)]
    return (part for part in candidates if len(part) >= SHORTEST_SECRET)


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
        elif isinstance(value, str) and len(value) >= _SHORTEST_LEAF:
            yield value


def _encodings(secret: str) -> Iterator[str]:
    yield secret
    for text in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield text
        yield json.dumps(text)[1:-1]  # JSON in a JSON string, as tool inputs often are
    for url in (quote(secret), quote(secret, safe=""), quote_plus(secret), quote(secret, safe="/:@!$&'()*+,;=")):
        yield url
        yield _with_lower_escapes(url)
    yield html.escape(secret)
    yield html.escape(secret, quote=False)
    for quote_mark in ("'\\''", "'\"'\"'"):  # the two ways to write one within a shell's single quotes
        yield secret.replace("'", quote_mark)
    raw = secret.encode()
    yield raw.hex()
    yield raw.hex().upper()
    for offset in range(3):
        yield _base64_core(raw, offset, b"+/")
        yield _base64_core(raw, offset, b"-_")


def _with_lower_escapes(url: str) -> str:
    """`%2F` as `%2f`."""
    head, *escaped = url.split("%")
    return "%".join([head, *(piece[:2].lower() + piece[2:] for piece in escaped)])


def _base64_core(raw: bytes, offset: int, altchars: bytes) -> str:
    """The characters that `raw` makes alone, where it begins at `offset` (modulo 3) of the encoded bytes."""
    encoded = base64.b64encode(bytes(offset) + raw, altchars).decode()
    first = (offset * 8 + 5) // 6
    end = (offset + len(raw)) * 8 // 6
    return encoded[first:end]
