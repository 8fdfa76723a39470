"""Keep the key out of what a model's server answers."""

import re


class KeyRedactor:
    """Replaces the key by as many asterisks, also if it is escaped in JSON. key: may be empty."""

    def __init__(self, key: bytes) -> None:
        self._key = re.compile(b"".join(map(_in_any_form, key)))
        self._longest = len(key) * _LONGEST_FORM
        self._unsent = b""

    def redact(self, text: bytes) -> bytes:
        """Return a complete text without the key."""
        return self._key.sub(lambda found: b"*" * len(found[0]), text) if self._longest else text

    def feed(self, data: bytes) -> bytes:
        """Take the next part of a text. Return what can be sent: all but an end in which the key may begin."""
        text = self.redact(self._unsent + data)
        sent = max(0, len(text) - max(0, self._longest - 1))
        self._unsent = text[sent:]
        return text[:sent]

    def flush(self) -> bytes:
        """Return the end of the text."""
        rest, self._unsent = self._unsent, b""
        return rest


_LONGEST_FORM = len(b"\\u002d")


def _in_any_form(character: int) -> bytes:
    """Return a pattern of a character of the key: itself, or its escape in JSON."""
    plain, number = bytes([character]), b"%02x" % character
    digits = b"".join(b"[%s%s]" % (digit.lower(), digit.upper()) for digit in (number[:1], number[1:]))
    return b"(?:" + re.escape(plain) + rb"|\\u00" + digits + (rb"|\\/" if plain == b"/" else b"") + b")"
