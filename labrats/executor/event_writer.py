"""Write an attempt's events: numbered, time-stamped, redacted and limited in size."""

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
from labrats.executor.usage_totals import UsageTotals
from labrats.model.errors import GiveUp
from labrats.model.job import AgentSession, FailedCode, Outputs, Usage
from labrats.model.protocol import (
    BUNDLE_FILE,
    LINE_BYTES,
    MAX_VALUES_BYTES,
    OUTPUT_BYTES,
    PATCH_FILE,
    PUBLICATION_FILE,
    RESULT_FILE,
    SESSION_FILE,
    TEXT_BYTES,
    AnyEvent,
    ErrorEvent,
    LogEvent,
    LogOrigin,
    ModelRequest,
    OutputEvent,
    PartEvent,
    RequestEvent,
    ResultEvent,
    SessionEvent,
    StatusEvent,
    ToolEvent,
    UsageEvent,
)
from labrats.model.redaction import Redactor

STDOUT: Final = 1
BYTES_PER_SECOND: Final = 16 * 1024 * 1024
"""Sustained rate at which an attempt may write, and the size of a burst. Beyond it, writers wait."""

PART_BYTES: Final = 32 * 1024
"""Size of a file's part in one line, where base64 adds a third."""

MOST_RESULT_BYTES: Final = 64 * 1024 * 1024
"""Largest result, as JSON."""

_RESULT_BYTES: Final = LINE_BYTES // 2
"""Largest result that fits into a line with the rest of its event."""

_RESULT_BYTES_BESIDE_DATA: Final = LINE_BYTES // 8
"""Largest result that fits into a line with a checked value, too."""

_OUTPUT_ADVICE: Final = "have the agent print less, or raise LABRATS_MAX_OUTPUT_MIB"

_NAME_BYTES: Final = 256
_SENTENCE_BYTES: Final = 4 * 1024
_LONG_STRING_BYTES: Final = 1024
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK_FULL_PAUSE_SECONDS: Final = 0.2
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f]")

_encode = msgspec.json.Encoder().encode


class EventWriter:
    """The only writer of an attempt's output. Each event is one line, and is written when the call returns.

    totals, outputs:  the attempt's usage and outputs so far; the terminal event repeats them.
    session:          the session in which the agent's program works, if it has reported one.
    pull_request_url: the latest URL of a pull request at the end of a tool's result, in any repository.
    """

    def __init__(
        self,
        output: int,
        folder: Path | None,
        redactor: Redactor | None = None,
        *,
        output_bytes: int = OUTPUT_BYTES,
        rate_limiter: "RateLimiter | None" = None,
        first_seq: int = 1,
    ) -> None:
        """Create a writer.

        output:       a file descriptor.
        folder:       the folder for a result that is too large for a line; None to write it to the output in parts.
        output_bytes: the limit on the size of all lines except the last.
        """
        self.totals = UsageTotals()
        self.outputs = Outputs()
        self._written_usage: Usage | None = None
        self.pull_request_url: str | None = None
        self.session: AgentSession | None = None
        self._output = output
        self._folder = folder
        self._redactor = redactor or Redactor()
        self._output_bytes = output_bytes
        self._bytes_left = output_bytes
        self._rate_limiter = rate_limiter or RateLimiter(BYTES_PER_SECOND)
        self._seq = first_seq - 1

    @property
    def next_seq(self) -> int:
        """The number of the next event."""
        return self._seq + 1

    def limit_output(self, output_bytes: int) -> None:
        """Limit the size of all lines except the last. Lines that are already written count."""
        self._bytes_left += output_bytes - self._output_bytes
        self._output_bytes = output_bytes

    def log(self, text: str, origin: LogOrigin = "engine") -> None:
        """Log a text for people: an event per line, or several for a very long line.

        Like every event except the last, it raises GiveUp with the code `output_limit` when the output reaches its
        limit. From then on only the last event is written.
        """
        for line in self.clean(text).rstrip().split("\n"):
            for piece in split_text(line.removesuffix("\r"), TEXT_BYTES):
                self._write(LogEvent(text=piece, origin=origin, **self._stamp()))

    def status(self, state: str, message: str | None = None) -> None:
        """Report the current step of the executor."""
        self._write(StatusEvent(state=state, message=message and self._sentence(message), **self._stamp()))

    def tool_call(self, call_id: str, name: str, tool_input: Any) -> None:
        """Report a call of a tool by the agent."""
        value = shorten_value(self._redactor.redact_value(tool_input), TEXT_BYTES)
        self._write(ToolEvent(id=self._name(call_id), name=self._name(name), input=value, **self._stamp()))

    def tool_result(self, call_id: str, output: str, *, is_error: bool = False) -> None:
        """Report the result of a tool call."""
        self.pull_request_url = find_pull_request(output) or self.pull_request_url
        text = truncate(self.clean(output), TEXT_BYTES)
        self._write(ToolEvent(id=self._name(call_id), output=text, is_error=is_error, **self._stamp()))

    def model_request(self, request: ModelRequest) -> None:
        """Report a request of the agent to its model's server."""
        cleaned = replace(
            request,
            method=self._name(request.method),
            path=self._name(request.path),
            model=request.model and self._name(request.model),
            refusal=request.refusal and self._sentence(request.refusal),
        )
        self._write(RequestEvent(request=cleaned, **self._stamp()))

    def redact_also(self, secret: str) -> None:
        """Redact `secret`, too, in all events from now on."""
        self._redactor = self._redactor.including(secret)

    def report_usage(self, usage: Usage) -> None:
        """Report the total usage of the current run of a provider."""
        self.totals.set_provider(usage)
        self._write_usage()

    def report_measured_usage(self, usage: Usage) -> None:
        """Report the usage of all requests to the model's server. It is a lower bound of the attempt's usage."""
        self.totals.set_measured(usage)
        self._write_usage()

    def report_estimated_usage(self) -> None:
        """Add what the model has consumed besides, at most, to the usage of an attempt that ends with a pause.

        The attempts after the pause get what is left of the limits.
        """
        self.totals.add_estimated()
        self._write_usage()

    def _write_usage(self) -> None:
        if self.totals.usage != self._written_usage:
            self._written_usage = self.totals.usage
            self._write(UsageEvent(usage=self._written_usage, **self._stamp()))

    def report_outputs(self, outputs: Outputs) -> None:
        """Report all outputs of the attempt so far. A name that contains a secret is left out."""
        self.outputs = replace(
            outputs,
            base_commit=self._unless_secret(outputs.base_commit),
            branch=self._unless_secret(outputs.branch),
            commit=self._unless_secret(outputs.commit),
            pull_request_url=self._unless_secret(outputs.pull_request_url),
        )
        self._write(OutputEvent(outputs=self.outputs, **self._stamp()))

    def report_session(self, session: AgentSession) -> None:
        """Report the session in which the agent's program works, unless it was the last one reported.

        A session whose id contains a secret is not reported, and so not resumed.
        """
        if session != self.session and self._unless_secret(session.id):
            self.session = session
            self._write(SessionEvent(session=session, **self._stamp()))

    def result(self, value: Any, data: Any = None) -> None:
        """Write the terminal event of success. Raises GiveUp with the code `output_limit` if the value is too large.

        data: the checked value, of at most DATA_BYTES.
        """
        value, data = self._redactor.redact_value(value), self._redactor.redact_value(data)
        file = None
        content = _encode(value)
        if len(content) > MOST_RESULT_BYTES:
            mebibytes = MOST_RESULT_BYTES // 2**20
            raise GiveUp(
                FailedCode.OUTPUT_LIMIT, f"the result is larger than {mebibytes} MiB; have the agent write it to a file"
            )
        if len(content) > MAX_VALUES_BYTES and not isinstance(value, str):
            mebibytes = MAX_VALUES_BYTES // 2**20
            reason = f"the result is no text, and larger than {mebibytes} MiB; have the agent write it to a file"
            raise GiveUp(FailedCode.OUTPUT_LIMIT, reason)
        if len(content) > (_RESULT_BYTES if data is None else _RESULT_BYTES_BESIDE_DATA):
            self._store_file(RESULT_FILE, content)
            value, file = None, RESULT_FILE
        self._write(
            ResultEvent(
                result=value, data=data, file=file, usage=self.totals.usage, outputs=self.outputs, **self._stamp()
            ),
        )

    def patch(self, patch: bytes) -> None:
        """Store the changes in the workspace, as a patch in git's format."""
        self._store_file(PATCH_FILE, self.redact_bytes(patch))

    def bundle(self, bundle: bytes) -> None:
        """Store the new commits, as a git bundle. Unlike other files it cannot be redacted."""
        self._store_file(BUNDLE_FILE, bundle)

    def publication(self, content: bytes) -> None:
        """Store the agent's publication, which is redacted already."""
        self._store_file(PUBLICATION_FILE, content)

    def session_files(self, content: bytes) -> None:
        """Store the files of the agent's session, which are redacted already."""
        self._store_file(SESSION_FILE, content)

    def contains_secret(self, content: bytes) -> bool:
        """Return whether redaction would change `content`."""
        return self.redact_bytes(content) != content

    def redact_bytes(self, content: bytes) -> bytes:
        """Redact a text in UTF-8. Other bytes in it are retained."""
        text = content.decode("utf-8", "surrogateescape")
        return self._redactor.redact(text).encode("utf-8", "surrogateescape")

    def redact_value(self, value: Any) -> Any:
        """Redact every string in a JSON value."""
        return self._redactor.redact_value(value)

    def redact_host(self, host: str) -> str:
        """Redact the name of a host, whose case does not matter."""
        return self._redactor.redact_host(host)

    def error(self, code: FailedCode, message: str, retry_after_seconds: float | None = None) -> None:
        """Write the terminal event of failure."""
        self._write(
            ErrorEvent(
                code=code,
                message=self._sentence(message),
                retry_after_seconds=retry_after_seconds,
                usage=self.totals.usage,
                outputs=self.outputs,
                **self._stamp(),
            )
        )

    def safe_length(self, text: str) -> int:
        """Return the length of the prefix of an incomplete line that can be split without splitting a secret."""
        return self._redactor.safe_length(text)

    def clean(self, text: str) -> str:
        """Return `text` redacted, with lone surrogates replaced, since UTF-8 cannot encode them."""
        return self._redactor.redact(text).encode("utf-8", "replace").decode()

    def _unless_secret(self, name: str | None) -> str | None:
        return None if name is None or self.contains_secret(name.encode()) else name

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
                # Block the attempt until there is space again: without events, nobody could follow its work.
                time.sleep(_DISK_FULL_PAUSE_SECONDS)

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

    def _store_file(self, file: str, content: bytes) -> None:
        """Write a file, which is not empty, to the folder, or in parts to the output if there is no folder."""
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


def split_text(text: str, limit: int) -> Iterator[str]:
    """Split `text` between characters into pieces of at most `limit` bytes of UTF-8. An empty text is one piece."""
    if _CONTROL_CHARACTER.search(text):
        limit //= 2  # each takes six bytes in JSON; half as much text still fits a line
    data = text.encode()
    start = 0
    while len(data) - start > limit:
        end = _character_start(data, start + limit)
        yield data[start:end].decode()
        start = end
    yield data[start:].decode()


def truncate(text: str, limit: int) -> str:
    """Return `text`, or its head and a note with the full size if it is longer than `limit` bytes."""
    head = next(split_text(text, limit))
    return head if len(head) == len(text) else f"{head} [… cut, {len(text.encode())} bytes in total]"


def shorten_value(value: Any, limit: int) -> Any:
    """Return a JSON value that encodes to about `limit` bytes or less.

    A larger object has its long strings truncated; if that is not enough, the head of its JSON is returned as a string.
    """
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
    """Return the position of the UTF-8 character that contains the byte at `position`."""
    while data[position] & 0xC0 == 0x80:
        position -= 1
    return position
