"""Write the lines of an attempt's output, one for each event: numbered, time-stamped and limited in size."""

import errno
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import LINE_BYTES, OUTPUT_BYTES, AnyEvent, ErrorEvent, PartEvent, ResultEvent

STDOUT: Final = 1

BYTES_PER_SECOND: Final = 16 * 1024 * 1024
"""Sustained rate at which an attempt may write, and the size of a burst. Beyond it, writers wait."""

PART_BYTES: Final = 32 * 1024
"""Size of a file's part in one line, where base64 adds a third."""

_OUTPUT_ADVICE: Final = "have the agent print less, or raise LABRATS_MAX_OUTPUT_MIB"
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK_FULL_PAUSE_SECONDS: Final = 0.2

_encode = msgspec.json.Encoder().encode


class EventLines:
    """The output of an attempt. Each event is one line, and is written when the call returns."""

    def __init__(
        self,
        output: int,
        folder: Path | None,
        *,
        output_bytes: int = OUTPUT_BYTES,
        rate_limiter: "RateLimiter | None" = None,
        first_seq: int = 1,
    ) -> None:
        """Create the output.

        output:       a file descriptor.
        folder:       the folder for files that are too large for a line; None to write them to the output in parts.
        output_bytes: the limit on the size of all lines except the last.
        """
        self._output = output
        self._folder = folder
        self._output_bytes = output_bytes
        self._bytes_left = output_bytes
        self._rate_limiter = rate_limiter or RateLimiter(BYTES_PER_SECOND)
        self._seq = first_seq - 1

    @property
    def folder(self) -> Path | None:
        """The folder for files, which the engine reads; None if they are written to the output in parts."""
        return self._folder

    @property
    def next_seq(self) -> int:
        """The number of the next event."""
        return self._seq + 1

    def limit(self, output_bytes: int) -> None:
        """Limit the size of all lines except the last. Lines that are already written count."""
        self._bytes_left += output_bytes - self._output_bytes
        self._output_bytes = output_bytes

    def stamp(self) -> dict[str, Any]:
        """Return the number and the time of the next event."""
        self._seq += 1
        return {"seq": self._seq, "at": datetime.now(UTC)}

    def write(self, event: AnyEvent) -> None:
        """Write an event, which has the latest stamp.

        Raises GiveUp with the code `output_limit` when the output reaches its limit. From then on only the last event
        is written.
        """
        line = _encode(event) + b"\n"
        assert len(line) <= LINE_BYTES, f"a line of {len(line)} bytes"
        if not isinstance(event, ResultEvent | ErrorEvent | PartEvent) and not self._has_room_for(len(line)):
            self._seq -= 1
            return
        while line:
            try:
                line = line[os.write(self._output, line) :]
            except OSError as error:
                if error.errno not in _DISK_FULL:
                    raise
                # Block the attempt until there is space again: without events, nobody could follow its work.
                time.sleep(_DISK_FULL_PAUSE_SECONDS)

    def store_file(self, file: str, content: bytes) -> None:
        """Write a file to the folder, or in parts to the output if there is no folder."""
        if self._folder is None:
            for offset in range(0, max(1, len(content)), PART_BYTES):
                end = offset + PART_BYTES
                part = PartEvent(file=file, offset=offset, data=content[offset:end], **self.stamp())
                self.write(replace(part, is_last=end >= len(content)))
            return
        unfinished = self._folder / f"{file}.part"
        unfinished.write_bytes(content)
        unfinished.replace(self._folder / file)

    def _has_room_for(self, size: int) -> bool:
        """Count a line against the limit. Raises GiveUp when the limit is first exceeded, and returns False later."""
        if self._bytes_left < 0:
            return False
        self._bytes_left -= size
        if self._bytes_left < 0:
            self._seq -= 1
            mebibytes = self._output_bytes / 2**20
            message = f"the attempt has written more than {mebibytes:g} MiB of log and events ({_OUTPUT_ADVICE})"
            raise GiveUp(FailedCode.OUTPUT_LIMIT, message)
        self._rate_limiter.spend(size)
        return True


class RateLimiter:
    """Limits a writer to a number of bytes per second, with bursts of one second's worth."""

    def __init__(
        self,
        bytes_per_second: int,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._now, self._sleep = bytes_per_second, now, sleep
        self._left, self._at = float(bytes_per_second), now()

    def spend(self, size: int) -> None:
        """Count written bytes, and block the whole process while they exceed the rate."""
        self._left -= size
        if self._left >= 0:
            return
        now = self._now()
        self._left = min(float(self._rate), self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 0:
            self._sleep(-self._left / self._rate)
