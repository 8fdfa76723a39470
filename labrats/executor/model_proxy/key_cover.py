"""Cover the model's key in what a server sends back: some repeat the headers of a request in their errors."""


class KeyCover:
    """Replaces the key by as many asterisks, so that lengths stay. key: may be empty."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._unsent = b""

    def whole(self, text: bytes) -> bytes:
        """Return a complete text without the key."""
        return text.replace(self._key, b"*" * len(self._key)) if self._key else text

    def part(self, data: bytes) -> bytes:
        """Take the next part of a text. Return what can be sent: all but an end in which the key may begin."""
        text = self.whole(self._unsent + data)
        sent = max(0, len(text) - max(0, len(self._key) - 1))
        self._unsent = text[sent:]
        return text[:sent]

    def rest(self) -> bytes:
        """Return the end of the text."""
        rest, self._unsent = self._unsent, b""
        return rest
