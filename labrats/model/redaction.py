"""Redaction of secrets in text, in plain form and in the usual encodings.

It is no security boundary but guards against accidents: a secret that is encoded twice, or in an unusual way, remains.
"""

import base64
import html
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from operator import itemgetter
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

_ENGINE_KEY: Final = re.compile(r"(?<![A-Za-z0-9_-])lr_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
"""The form of an API key of any engine."""

_NOISE: Final = re.compile(
    r"[^\n]\x08"  # an overtyped character
    r"|\s"  # wrapping
    r"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # colours and titles on a terminal
    r"|[\x00-\x1f\x7f-\x9f]"
    rf"|[{INVISIBLE}\u2800\ufe00-\ufe0f]"
    r"|\\[nrt]|\\"  # an escaped line break or slash in JSON, a continued line in a shell
)
"""Characters that may occur within a secret that people still recognise."""

_QUOTED_NOISE: Final = re.compile(rf"\n[ \t]*(?:[+>#|*-][ \t]*)+|{_NOISE.pattern}")
"""The same, and marks at the beginning of lines: of a patch, a quotation, a comment. A mark may also be base64."""

_HINT_OF_NOISE: Final = re.compile(r"[^\x20-\x5b\x5d-\x7e]|\\")
"""Characters by which a text shows that it has noise other than the spaces between its words."""

_RUN: Final = re.compile(r"[A-Za-z0-9+/_=-]{24,65536}")
_PIECE: Final = 128 * 1024
_ESCAPE: Final = "\x1b"
_LONGEST_SEQUENCE: Final = 256
_WITHIN_A_WORD: Final = re.compile("[A-Za-z0-9]{2}")

_WINDOW: Final = 12
"""The number of characters of base64 or hex that are a fragment of a secret and no coincidence."""


class Redactor:
    """A filter that replaces known secrets, and API keys of any engine, by a mark.

    A secret may be wrapped, folded, coloured or escaped. Long fragments of base64 and hex are replaced, too, such as
    the lines of an encoded secret; half of a plain secret is not detected.

    digests: of secrets that are known only by these. They are replaced in plain form.
    """

    def __init__(self, secrets: Iterable[str] = (), digests: Sequence[SecretDigest] = ()) -> None:
        self._secrets, self._digests = tuple(secrets), digests
        parts = {part for secret in self._secrets for part in _parts(secret)}
        encoded = {form for part in parts for form in _binary_encodings(part)}
        forms = {form for part in parts for form in _text_encodings(part)} | encoded
        self._forms = sorted(forms, key=len, reverse=True)  # longest first, as a form may contain another one
        bare = {_NOISE.sub("", form) for form in forms}
        self._bare_forms = [form for form in bare if len(form) >= MIN_SECRET_LENGTH]
        self._windows = frozenset(
            form[start : start + _WINDOW] for form in encoded for start in range(len(form) - _WINDOW + 1)
        )

    def including(self, *secrets: str) -> "Redactor":
        """Return a filter that also replaces `secrets`."""
        return Redactor([*self._secrets, *secrets], self._digests)

    def redact(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, REDACTED)
        if found := sorted(place for digest in self._digests for place in digest.places_in(text)):
            text = _without(text, found)
        if self._forms and any(map(_HINT_OF_NOISE.search, _pieces(text))):
            text = self._redact_noisy(text, _NOISE)
            text = self._redact_noisy(text, _QUOTED_NOISE)
        if self._windows:
            text = "".join(_RUN.sub(self._redact_fragments, piece) for piece in _pieces(text))
        return _ENGINE_KEY.sub(REDACTED, text) if "lr_" in text else text

    def redact_host(self, host: str) -> str:
        """Return the name of a host, with or without its port, or REDACTED if it contains a secret in any case."""
        lower = host.lower()
        return REDACTED if any(form.lower() in lower for form in self._forms) else self.redact(host)

    def safe_length(self, text: str) -> int:
        """Return the length of the part of a text in which a cut between two words splits no secret.

        text: the beginning of a line, without the rest.
        """
        bare = _NOISE.sub("", text)
        start = min((_start_of(form, bare) for form in self._bare_forms), default=len(bare))
        return len(text) if start == len(bare) else _WithoutNoise(_NOISE, text).place(start)

    def redact_value(self, value: Any) -> Any:
        """Redact every string in a JSON value, including object keys."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {self.redact(str(key)): self.redact_value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_value(item) for item in value]
        return value

    def _redact_noisy(self, text: str, noise: re.Pattern[str]) -> str:
        """Replace the secrets that are interspersed with noise, together with the noise."""
        bare = _WithoutNoise(noise, text)
        found = sorted(span for form in self._bare_forms for span in _occurrences(form, bare.text))
        return _without(text, [(bare.place(first), bare.place(behind - 1) + 1) for first, behind in found])

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


def _without(text: str, places: Iterable[tuple[int, int]]) -> str:
    """Return a text with a mark in place of some parts, which may overlap. places: their starts and ends, in order."""
    kept, end = list[str](), 0
    for start, behind in places:
        if start >= end:
            kept += [text[end:start], REDACTED]
        end = max(end, behind)
    return "".join([*kept, text[end:]])


def _occurrences(form: str, text: str) -> Iterator[tuple[int, int]]:
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + 1)


class _WithoutNoise:
    """A text without its noise. text: what is left of it."""

    def __init__(self, noise: re.Pattern[str], text: str) -> None:
        self._noise = noise
        self._pieces = list(_pieces(text))
        bare = [noise.sub("", piece) for piece in self._pieces]
        self.text = "".join(bare)
        self._ends = list(accumulate(map(len, bare)))
        self._starts = [0, *accumulate(map(len, self._pieces))]
        self._last: tuple[int, Sequence[int]] = (-1, ())

    def place(self, index: int) -> int:
        """Return the position of a character of `text` in the text with its noise."""
        number = bisect_right(self._ends, index)
        if number != self._last[0]:
            self._last = number, _places_without(self._noise, self._pieces[number])
        return self._starts[number] + self._last[1][index - (self._ends[number - 1] if number else 0)]


def _pieces(text: str) -> Iterator[str]:
    """Yield the parts of a long text, cut within words, where there is no noise.

    A pattern is applied to all of its text at once, and no other thread runs meanwhile, such as the one that measures
    the attempt's memory.
    """
    at = 0
    while len(text) - at > _PIECE:
        words = _WITHIN_A_WORD.finditer(text, at + _PIECE, at + 2 * _PIECE)
        ends = (word.start() + 1 for word in words)
        end = next((end for end in ends if _ESCAPE not in text[end - _LONGEST_SEQUENCE : end]), at + _PIECE)
        yield text[at:end]
        at = end
    yield text[at:]


def _places_without(noise: re.Pattern[str], text: str) -> list[int]:
    """Return the position of each character of `text` that is not noise."""
    places, end = list[int](), 0
    for found in noise.finditer(text):
        places += range(end, found.start())
        end = found.end()
    return [*places, *range(end, len(text))]


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
