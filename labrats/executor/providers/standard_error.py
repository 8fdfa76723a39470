"""The standard error of an agent's program, of which the beginning and the end are kept in memory."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

MOST_BYTES: Final = 64 * 1024 * 1024
"""Size at which a program is ended, since it would never stop."""

_KEPT_BYTES: Final = 64 * 1024
"""Size of the beginning and of the end; also the usual capacity of a pipe."""


class StandardError:
    """A pipe for the standard error of one program. A context manager.

    writable: the descriptor that the program inherits.
    """

    def __init__(self) -> None:
        self._readable, self.writable = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._readable, False)
        self._beginning, self._end = b"", b""
        self._size = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop:
            self._loop.remove_reader(self._readable)
        os.close(self._readable)
        os.close(self.writable)

    @property
    def has_overflowed(self) -> bool:
        """True if the program has written more than MOST_BYTES."""
        return self._size > MOST_BYTES

    @property
    def beginning(self) -> str:
        """The first 64 KiB that the program has written so far."""
        self._read()
        return self._beginning.decode("utf-8", "replace")

    @property
    def end(self) -> str:
        """The last 64 KiB that the program has written so far."""
        self._read()
        return self._end.decode("utf-8", "replace")

    def follow(self, on_overflow: Callable[[], None]) -> None:
        """Read until the context exits, and call `on_overflow` if the program writes too much."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._readable, self._follow, on_overflow)

    def _follow(self, on_overflow: Callable[[], None]) -> None:
        self._read()
        if self.has_overflowed:
            on_overflow()

    def finish(self) -> None:
        """Read the rest of what an ended program has written."""
        while self._read() and not self.has_overflowed:
            pass

    def _read(self) -> int:
        """Read what the pipe contains, and return the number of bytes."""
        chunk = b""
        with suppress(BlockingIOError):
            chunk = os.read(self._readable, _KEPT_BYTES)
        self._size += len(chunk)
        self._beginning += chunk[: _KEPT_BYTES - len(self._beginning)]
        self._end = (self._end + chunk)[-_KEPT_BYTES:]
        return len(chunk)
