"""The name of the server in the first message of a TLS client (RFC 8446, RFC 6066)."""

from typing import Final

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_RECORD_HEAD: Final = 5
_MESSAGE_HEAD: Final = 4


class ClientHello:
    """The first message of a TLS client, as far as it has arrived. It may be split over several records.

    Each byte is read once, so that no client can make the proxy work for long.
    """

    def __init__(self) -> None:
        self._unread, self._message = bytearray(), bytearray()
        self._is_other = False

    def feed(self, data: bytes) -> bool:
        """Add received bytes. Return True once the message is complete, or is another one than a ClientHello."""
        self._unread += data
        while not self._has_ended and (record := self._next_record()) is not None:
            self._message += record
            self._is_other = len(self._message) > 0 and self._message[0] != _CLIENT_HELLO
        return self._has_ended

    @property
    def server_name(self) -> str | None:
        """The host name in the complete message, in lower case. None if there is none, or if it is another message."""
        if self._is_other:
            return None
        try:
            return _name_in(_Reader(memoryview(bytes(self._message[_MESSAGE_HEAD : self._size]))))
        except IndexError:
            return None

    @property
    def _size(self) -> int:
        return _MESSAGE_HEAD + int.from_bytes(self._message[1:_MESSAGE_HEAD])

    @property
    def _has_ended(self) -> bool:
        return self._is_other or (len(self._message) >= _MESSAGE_HEAD and len(self._message) >= self._size)

    def _next_record(self) -> bytes | None:
        """Remove the next record and return its content. None until it is complete."""
        if self._unread and self._unread[0] != _HANDSHAKE:
            self._is_other = True
            return None
        end = _RECORD_HEAD + int.from_bytes(self._unread[3:_RECORD_HEAD])
        if len(self._unread) < max(end, _RECORD_HEAD):
            return None
        record = bytes(self._unread[_RECORD_HEAD:end])
        del self._unread[:end]
        return record


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, size: int) -> memoryview:
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
        return bytes(self._data)

    def __bool__(self) -> bool:
        return len(self._data) > 0


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
