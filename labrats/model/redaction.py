"""Takes secrets out of text, also where a program has encoded them in one of the usual ways.

Not a boundary: a secret that was transformed twice, or in an unusual way, passes. It guards against accidents.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from urllib.parse import quote, quote_plus

from labrats.model.outside_text import INVISIBLE

REDACTED: Final = "[redacted]"
SHORTEST_SECRET: Final = 6
"""Shorter secrets are left alone: they would match in the middle of ordinary words."""

_SHORTEST_LEAF: Final = 16
"""Of a secret that is itself a JSON document, only strings this long are taken for secrets of their own."""


WORD_END: Final = re.compile(r"[ \t。，、！？；：]")
"""A character at which a line may be cut in two: few secrets have one."""

_ENGINE_KEY: Final = re.compile(r"(?<![A-Za-z0-9_-])lr_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
"""An API key of an engine, whichever it is."""

_NOISE: Final = re.compile(
    r"[^\n]\x08"  # a character that is typed over
    r"|\s"  # a wrapped or folded text
    r"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # colours and titles on a terminal
    r"|[\x00-\x1f\x7f-\x9f]"
    rf"|[{INVISIBLE}\u2800\ufe00-\ufe0f]"
    r"|\\[nrt]|\\"  # a line break as JSON writes it, an escaped slash, a line that a shell continues
)
"""Characters within a secret that people still recognise."""

_QUOTED_NOISE: Final = re.compile(rf"\n[ \t]*(?:[+>#|*-][ \t]*)+|{_NOISE.pattern}")
"""The same in lines that begin with a mark: of a patch, a quotation, a comment. Base64 may begin with one by itself."""

_HINT_OF_NOISE: Final = re.compile(r"[^\x20-\x5b\x5d-\x7e]|\\")
"""Without one of these a text has no noise but spaces, which words have between them."""

_RUN: Final = re.compile(r"[A-Za-z0-9+/_=-]{24,}")
_WINDOW: Final = 12
"""So many characters of base64 or hex are a fragment of a secret, and no coincidence."""


class Redactor:
    """Replaces every secret it knows by a mark, and API keys of any engine.

    A text may be wrapped, folded, coloured or escaped within a secret. Of base64 and hex that comes in pieces, such as
    lines, long fragments are replaced too; half of a secret in plain text is not seen.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        parts = {part for secret in secrets for part in _parts(secret)}
        encoded = {form for part in parts for form in _binary_encodings(part)}
        forms = {form for part in parts for form in _text_encodings(part)} | encoded
        self._forms = sorted(forms, key=len, reverse=True)  # a form may contain another one: the longest goes first
        bare = {_NOISE.sub("", form) for form in forms}
        self._bare_forms = [form for form in bare if len(form) >= SHORTEST_SECRET]
        self._windows = frozenset(
            form[start : start + _WINDOW] for form in encoded for start in range(len(form) - _WINDOW + 1)
        )

    def redact(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, REDACTED)
        if self._forms and _HINT_OF_NOISE.search(text):
            text = self._redact_noisy(text, _NOISE)
            text = self._redact_noisy(text, _QUOTED_NOISE)
        if self._windows:
            text = _RUN.sub(self._redact_fragments, text)
        return _ENGINE_KEY.sub(REDACTED, text) if "lr_" in text else text

    def safe_length(self, text: str) -> int:
        """Return how much of the beginning of a text can be cut at the end of any word without parting a secret.

        text: the beginning of a line whose rest is still to come.
        """
        bare = _NOISE.sub("", text)
        start = min((_start_of(form, bare) for form in self._bare_forms), default=len(bare))
        return len(text) if start == len(bare) else _places_without(_NOISE, text)[start]

    def redact_value(self, value: Any) -> Any:
        """A JSON value with every string in it redacted, object keys too."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {self.redact(str(key)): self.redact_value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_value(item) for item in value]
        return value

    def _redact_noisy(self, text: str, noise: re.Pattern[str]) -> str:
        """Replace the secrets that noise keeps from being found, together with the noise in them."""
        bare = noise.sub("", text)
        found = sorted(span for form in self._bare_forms for span in _occurrences(form, bare))
        if not found:
            return text
        places = _places_without(noise, text)
        kept, end = list[str](), 0
        for first, behind in found:
            start = places[first]
            if start >= end:
                kept += [text[end:start], REDACTED]
            end = max(end, places[behind - 1] + 1)
        return "".join([*kept, text[end:]])

    def _redact_fragments(self, run: re.Match[str]) -> str:
        text = run[0]
        if not any(text[at : at + _WINDOW] in self._windows for at in range(0, len(text), _WINDOW)):
            return text
        secret = [False] * len(text)
        for at in range(len(text) - _WINDOW + 1):
            if text[at : at + _WINDOW] in self._windows:
                secret[at : at + _WINDOW] = [True] * _WINDOW
        pieces = groupby(zip(secret, text, strict=True), key=itemgetter(0))
        return "".join(REDACTED if is_secret else "".join(map(itemgetter(1), piece)) for is_secret, piece in pieces)


def _occurrences(form: str, text: str) -> Iterator[tuple[int, int]]:
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + 1)


def _places_without(noise: re.Pattern[str], text: str) -> list[int]:
    """Return where in `text` each character stands that is no noise."""
    places, end = list[int](), 0
    for found in noise.finditer(text):
        places += range(end, found.start())
        end = found.end()
    return [*places, *range(end, len(text))]


def _start_of(form: str, text: str) -> int:
    """Return where `form` begins in `text`, be it only with its first characters at the end; or else the length."""
    if (whole := text.find(form)) >= 0:
        return whole
    longest = min(len(form) - 1, len(text))
    return next((len(text) - k for k in range(longest, 0, -1) if text.endswith(form[:k])), len(text))


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


def _text_encodings(secret: str) -> Iterator[str]:
    yield secret
    for text in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield text
        yield json.dumps(text)[1:-1]  # JSON in a JSON string, as tool inputs often are
    for url in (quote(secret), quote(secret, safe=""), quote_plus(secret), quote(secret, safe="/:@!$&'()*+,;=")):
        yield url
        yield _with_lower_escapes(url)
    yield html.escape(secret)
    yield html.escape(secret, quote=False)
    for slash in ("\\u002f", "\\u002F", "&#x2F;", "&#x2f;", "&#47;"):
        yield secret.replace("/", slash)
    for quote_mark in ("'\\''", "'\"'\"'"):  # the two ways to write one within a shell's single quotes
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
    """`%2F` as `%2f`."""
    head, *escaped = url.split("%")
    return "%".join([head, *(piece[:2].lower() + piece[2:] for piece in escaped)])


def _base64_core(raw: bytes, offset: int, altchars: bytes) -> str:
    """The characters that `raw` makes alone, where it begins at `offset` (modulo 3) of the encoded bytes."""
    encoded = base64.b64encode(bytes(offset) + raw, altchars).decode()
    first = (offset * 8 + 5) // 6
    end = (offset + len(raw)) * 8 // 6
    return encoded[first:end]
