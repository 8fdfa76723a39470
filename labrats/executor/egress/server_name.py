"""The name of the server in the first message of a TLS client (RFC 8446, RFC 6066)."""

from typing import Final

_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0


class Incomplete(Exception):
    """More bytes are needed."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, size: int) -> bytes:
        """Remove the next `size` bytes and return them. Raises IndexError if there are fewer."""
        if size > len(self._data):
            raise IndexError
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> "_Reader":
        """Return a reader of a value that is preceded by its length in `size` bytes."""
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self._data

    def __bool__(self) -> bool:
        return bool(self._data)


def server_name(data: bytes) -> str | None:
    """Return the host name in a ClientHello, in lower case. None if it has none, or is something else.

    The message may be split over several records. Raises Incomplete until `data` contains all of it.
    """
    records, message = _Reader(data), b""
    try:
        while True:
            content_type = records.number(1)
            records.take(2)  # the version
            if content_type != 22:
                return None
            message += records.take(records.number(2))
            if len(message) >= 4 and message[0] != _CLIENT_HELLO:
                return None
            if len(message) >= 4 + int.from_bytes(message[1:4]) and len(message) >= 4:
                break
    except IndexError:
        raise Incomplete from None
    try:
        return _name_in(_Reader(message[4 : 4 + int.from_bytes(message[1:4])]))
    except IndexError:
        return None


def _name_in(hello: _Reader) -> str | None:
    hello.take(2 + 32)  # version and random
    for length_size in (1, 2, 1):  # session, cipher suites, compression methods
        hello.vector(length_size)
    extensions = hello.vector(2)
    while extensions:
        kind, body = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            names = body.vector(2)
            if names.number(1) != _HOST_NAME:
                return None
            return names.vector(2).rest().decode("ascii", "replace").lower()
    return None
