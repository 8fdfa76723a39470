"""Keep the key out of what a model's server answers."""

import re
from typing import Final


class KeyRedactor:
    """Replaces the key by as many asterisks, also if it is escaped in JSON. key: may be empty."""

    def __init__(self, key: bytes) -> None:
        self._forms = [_forms_of(character) for character in key]
        self._key = re.compile(b"".join(map(_pattern_of, key)))
        self._longest = len(key) * _LONGEST_FORM
        self._first = key[:1] + b"\\"
        self._unsent = b""

    def redact(self, text: bytes) -> bytes:
        """Return a complete text without the key."""
        return self._key.sub(lambda found: b"*" * len(found[0]), text) if self._longest else text

    def feed(self, data: bytes) -> bytes:
        """Take the next part of a text. Return what can be sent: all but an end with which the key may begin."""
        text = self.redact(self._unsent + data)
        starts = range(max(0, len(text) - self._longest), len(text))
        sent = next((at for at in starts if text[at] in self._first and self._may_begin_with(text[at:])), len(text))
        self._unsent = text[sent:]
        return text[:sent]

    def flush(self) -> bytes:
        """Return the end of the text."""
        rest, self._unsent = self._unsent, b""
        return rest

    def _may_begin_with(self, end: bytes) -> bool:
        """Return whether the key, in any form, may begin with the end of a text. Capital letters count as small."""
        end = end.lower()
        for forms in self._forms:
            if any(form.startswith(end) for form in forms):
                return True
            if (found := next(filter(end.startswith, forms), None)) is None:
                return False
            end = end[len(found) :]
        return False


_LONGEST_FORM: Final = len(b"\\u002d")


def _forms_of(character: int) -> tuple[bytes, ...]:
    """Return the forms of a character of the key, in small letters: itself, and its escapes in JSON."""
    plain = bytes([character]).lower()
    return (plain, b"\\u00%02x" % character, *([b"\\/"] if plain == b"/" else []))


def _pattern_of(character: int) -> bytes:
    """Return a pattern of a character of the key: itself, or its escape in JSON."""
    plain, number = bytes([character]), b"%02x" % character
    digits = b"".join(b"[%s%s]" % (digit.lower(), digit.upper()) for digit in (number[:1], number[1:]))
    return b"(?:" + re.escape(plain) + rb"|\\u00" + digits + (rb"|\\/" if plain == b"/" else b"") + b")"
