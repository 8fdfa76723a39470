"""Writes an attempt's events: numbered, stamped, redacted and bounded."""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from labrats.executor.git_outputs import find_pull_request
from labrats.model.errors import GiveUp
from labrats.model.job import AgentSession, FailedCode, Outputs, Usage
from labrats.model.protocol import (
    LINE_BYTES,
    OUTPUT_BYTES,
    PATCH_FILE,
    RESULT_FILE,
    TEXT_BYTES,
    AnyEvent,
    ErrorEvent,
    LogEvent,
    OutputEvent,
    PartEvent,
    ResultEvent,
    SessionEvent,
    StatusEvent,
    ToolEvent,
    UsageEvent,
)
from labrats.model.redaction import Redactor

BYTES_PER_SECOND: Final = 16 * 1024 * 1024
"""The pace at which an attempt may write for long, and how much of it at once. Beyond it, what prints has to wait."""

PART_BYTES: Final = 32 * 1024
"""Of a file in one line, where it takes a third more."""

MOST_RESULT_BYTES: Final = 64 * 1024 * 1024
"""The largest result, as JSON."""

_RESULT_BYTES: Final = LINE_BYTES // 2
"""A larger result leaves too little room in its line for the rest of the event."""

_OUTPUT_ADVICE: Final = "have the agent print less, or raise LABRATS_MAX_OUTPUT_MIB"

_NAME_BYTES: Final = 256
_SENTENCE_BYTES: Final = 4 * 1024
_LONG_STRING_BYTES: Final = 1024
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK_FULL_PAUSE_SECONDS: Final = 0.2
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f]")

_encode = msgspec.json.Encoder().encode


class EventWriter:
    """The one writer of an attempt's output. Each event is one line, and has reached `output` when the call returns.

    usage, outputs:   what the attempt has consumed and made so far; the terminal event repeats them.
    own_usage:        what of the usage is of the provider that runs now.
    session:          in which the agent's program works, where it has said so.
    pull_request_url: the last one that a tool's answer ended with, whose ever it is.
    """

    def __init__(
        self,
        output: int,
        folder: Path | None,
        redactor: Redactor | None = None,
        *,
        output_bytes: int = OUTPUT_BYTES,
        pace: "RateLimiter | None" = None,
        first_seq: int = 1,
    ) -> None:
        """output: a file descriptor. folder: where a result goes that is too large for a line; None where nobody
        would find it there: its parts then go into the output. output_bytes: the bound on all lines but the last.
        """
        self.usage = Usage()
        self.provider_usage = Usage()
        self.outputs = Outputs()
        self._earlier_usage = Usage()
        self.pull_request_url: str | None = None
        self.session: AgentSession | None = None
        self._output = output
        self._folder = folder
        self._redactor = redactor or Redactor()
        self._output_bytes = output_bytes
        self._bytes_left = output_bytes
        self._pace = pace or RateLimiter(BYTES_PER_SECOND)
        self._seq = first_seq - 1

    @property
    def next_seq(self) -> int:
        """The number of the next event."""
        return self._seq + 1

    def limit_output(self, output_bytes: int) -> None:
        """Set the bound on all lines but the last, those that are written already included."""
        self._bytes_left += output_bytes - self._output_bytes
        self._output_bytes = output_bytes

    def log(self, text: str) -> None:
        """A text for people: an event for each line, several for a very long one.

        Like every event but the last it raises GiveUp, with the code `output_limit`, when the output has reached its
        bound. From then on nothing but the last event is written.
        """
        for line in self.clean(text).rstrip().split("\n"):
            for piece in split_text(line.removesuffix("\r"), TEXT_BYTES):
                self._write(LogEvent(text=piece, **self._stamp()))

    def status(self, state: str, message: str | None = None) -> None:
        """What the executor is doing now."""
        self._write(StatusEvent(state=state, message=message and self._sentence(message), **self._stamp()))

    def tool_call(self, call_id: str, name: str, tool_input: Any) -> None:
        """The agent calls a tool."""
        value = shorten_value(self._redactor.redact_value(tool_input), TEXT_BYTES)
        self._write(ToolEvent(id=self._name(call_id), name=self._name(name), input=value, **self._stamp()))

    def tool_answer(self, call_id: str, output: str, *, is_error: bool = False) -> None:
        """What the tool answered."""
        self.pull_request_url = find_pull_request(output) or self.pull_request_url
        text = truncate(self.clean(output), TEXT_BYTES)
        self._write(ToolEvent(id=self._name(call_id), output=text, is_error=is_error, **self._stamp()))

    def begin_provider(self) -> None:
        """A provider begins: what it will say it has consumed comes on top of what was consumed before."""
        self._earlier_usage, self.provider_usage = self.usage, Usage()

    def report_usage(self, usage: Usage) -> None:
        """What the provider has consumed so far, in all."""
        self.provider_usage = usage
        self.usage = self._earlier_usage + usage
        self._write(UsageEvent(usage=self.usage, **self._stamp()))

    def report_outputs(self, outputs: Outputs) -> None:
        """What the attempt has made so far, in all."""
        self.outputs = outputs
        self._write(OutputEvent(outputs=outputs, **self._stamp()))

    def report_session(self, session: AgentSession) -> None:
        """The agent's program works in this session. Said once of each."""
        if session != self.session:
            self.session = session
            self._write(SessionEvent(session=session, **self._stamp()))

    def result(self, value: Any) -> None:
        """The terminal event of success. Raises GiveUp, with the code `output_limit`, where it is too large."""
        value = self._redactor.redact_value(value)
        file = None
        content = _encode(value)
        if len(content) > MOST_RESULT_BYTES:
            mebibytes = MOST_RESULT_BYTES // 2**20
            raise GiveUp(
                FailedCode.OUTPUT_LIMIT, f"the result is larger than {mebibytes} MiB; have it written to a file"
            )
        if len(content) > _RESULT_BYTES:
            self._put_aside(RESULT_FILE, content)
            value, file = None, RESULT_FILE
        self._write(
            ResultEvent(result=value, file=file, usage=self.usage, outputs=self.outputs, **self._stamp()),
        )

    def patch(self, patch: bytes) -> None:
        """What changed in the workspace, as git prints it."""
        text = self._redactor.redact(patch.decode("utf-8", "surrogateescape"))
        self._put_aside(PATCH_FILE, text.encode("utf-8", "surrogateescape"))

    def error(self, code: FailedCode, message: str, retry_after_seconds: float | None = None) -> None:
        """The terminal event of failure."""
        self._write(
            ErrorEvent(
                code=code,
                message=self._sentence(message),
                retry_after_seconds=retry_after_seconds,
                usage=self.usage,
                outputs=self.outputs,
                **self._stamp(),
            )
        )

    def safe_length(self, text: str) -> int:
        """Return how much of a line that is coming in can be cut between words; see Redactor."""
        return self._redactor.safe_length(text)

    def clean(self, text: str) -> str:
        """`text` redacted, and without lone surrogates, which are no UTF-8."""
        return self._redactor.redact(text).encode("utf-8", "replace").decode()

    def _stamp(self) -> dict[str, Any]:
        self._seq += 1
        return {"seq": self._seq, "at": datetime.now(UTC)}

    def _name(self, text: str) -> str:
        return truncate(self.clean(text), _NAME_BYTES)

    def _sentence(self, text: str) -> str:
        return truncate(self.clean(text), _SENTENCE_BYTES)

    def _write(self, event: AnyEvent) -> None:
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
                # Work goes on once there is room again. Until then nothing can be said, so nothing should be done.
                time.sleep(_DISK_FULL_PAUSE_SECONDS)

    def _has_room_for(self, size: int) -> bool:
        """Count a line against the bound. Raises GiveUp, once, when that is reached."""
        if self._bytes_left < 0:
            return False
        self._bytes_left -= size
        if self._bytes_left < 0:
            self._seq -= 1
            mebibytes = self._output_bytes / 2**20
            message = f"the attempt has written more than {mebibytes:g} MiB of log and events ({_OUTPUT_ADVICE})"
            raise GiveUp(FailedCode.OUTPUT_LIMIT, message)
        self._pace.spend(size)
        return True

    def _put_aside(self, file: str, content: bytes) -> None:
        """Leave a file, which is not empty, in the folder; or its parts in the output, where there is none."""
        if self._folder is None:
            for offset in range(0, len(content), PART_BYTES):
                end = offset + PART_BYTES
                part = PartEvent(file=file, offset=offset, data=content[offset:end], **self._stamp())
                self._write(replace(part, is_last=end >= len(content)))
            return
        unfinished = self._folder / f"{file}.part"
        unfinished.write_bytes(content)
        unfinished.replace(self._folder / file)


class RateLimiter:
    """Holds a writer to so many bytes a second, of which it may write a second's worth at once."""

    def __init__(
        self,
        bytes_per_second: int,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._now, self._sleep = bytes_per_second, now, sleep
        self._left, self._at = float(bytes_per_second), now()

    def spend(self, size: int) -> None:
        """Count what is written, and wait where it is too much by now: the whole process does."""
        self._left -= size
        if self._left >= 0:
            return
        now = self._now()
        self._left = min(float(self._rate), self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 0:
            self._sleep(-self._left / self._rate)


def split_text(text: str, limit: int) -> Iterator[str]:
    """`text` in pieces of at most `limit` bytes of UTF-8, cut between characters. An empty text is one empty piece."""
    if _CONTROL_CHARACTER.search(text):
        limit //= 2  # each takes six bytes in JSON: half as much text still fits a line
    data = text.encode()
    start = 0
    while len(data) - start > limit:
        end = _character_start(data, start + limit)
        yield data[start:end].decode()
        start = end
    yield data[start:].decode()


def truncate(text: str, limit: int) -> str:
    """The head of `text`, with a note of what is missing, where it is longer than `limit` bytes."""
    head = next(split_text(text, limit))
    return head if len(head) == len(text) else f"{head} [… cut, {len(text.encode())} bytes in all]"


def shorten_value(value: Any, limit: int) -> Any:
    """A JSON value that encodes to at most about `limit` bytes: its long strings cut, or else the head of its JSON."""
    if len(_encode(value)) <= limit:
        return value
    if isinstance(value, dict):
        briefer = {
            key: truncate(item, _LONG_STRING_BYTES) if isinstance(item, str) else item for key, item in value.items()
        }
        if len(_encode(briefer)) <= limit:
            return briefer
    return truncate(_encode(value).decode(), limit)


def _character_start(data: bytes, position: int) -> int:
    """The nearest start of a UTF-8 character at or before `position`."""
    while data[position] & 0xC0 == 0x80:
        position -= 1
    return position
