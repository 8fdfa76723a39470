"""Write an attempt's events: redacted, and shortened to fit into lines."""

from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from labrats.executor.event_lines import EventLines
from labrats.executor.event_text import one_line, short_field, shorten_value, split_text, truncate
from labrats.executor.git_outputs import find_pull_request
from labrats.executor.login_file import LoginFile
from labrats.executor.usage_totals import UsageTotals
from labrats.model.errors import GiveUp
from labrats.model.job import AgentSession, FailedCode, Outputs, Usage
from labrats.model.protocol import (
    BUNDLE_FILE,
    LINE_BYTES,
    MAX_VALUES_BYTES,
    PATCH_FILE,
    PUBLICATION_FILE,
    RESULT_FILE,
    SESSION_FILE,
    TEXT_BYTES,
    ErrorEvent,
    LogEvent,
    LogOrigin,
    ModelRequest,
    OutputEvent,
    RefusedHost,
    RefusedHostEvent,
    RequestEvent,
    ResultEvent,
    SessionEvent,
    StatusEvent,
    ToolEvent,
    UsageEvent,
)
from labrats.model.redaction import Redactor

MOST_RESULT_BYTES: Final = 64 * 1024 * 1024
"""Largest result, as JSON."""

_RESULT_BYTES: Final = LINE_BYTES // 2
"""Largest result that fits into a line with the rest of its event."""

_RESULT_BYTES_BESIDE_DATA: Final = LINE_BYTES // 8
"""Largest result that fits into a line with a checked value, too."""

_NAME_BYTES: Final = 256
_SENTENCE_BYTES: Final = 4 * 1024

_encode = msgspec.json.Encoder().encode


class EventWriter:
    """The only writer of an attempt's output. Each event is written when the call returns.

    lines:            the output, with its limits.
    totals, outputs:  the attempt's usage and outputs so far; the terminal event repeats them.
    session:          the session in which the agent's program works, if it has reported one.
    has_work:         whether a patch, commits or a publication are stored.
    pull_request_url: the latest URL of a pull request at the end of a tool's result, in any repository.
    """

    def __init__(self, lines: EventLines, redactor: Redactor | None = None) -> None:
        self.totals = UsageTotals()
        self.outputs = Outputs()
        self.has_work = False
        self._written_usage = Usage()
        self.pull_request_url: str | None = None
        self.session: AgentSession | None = None
        self.lines = lines
        self._redactor = redactor or Redactor()
        self._logins: list[LoginFile] = []

    def log(self, text: str, origin: LogOrigin = "engine") -> None:
        """Log a text for people: an event per line, or several for a very long line.

        A note of the engine is always one event, whatever it quotes: an agent can write to the output of its program,
        and must not add notes. Pass each quoted text through `field`.

        Like every event except the last, it raises GiveUp when the output reaches its limit; see `EventLines.write`.
        """
        if origin == "engine":
            self.lines.write(LogEvent(text=self._sentence(text), origin=origin, **self.lines.stamp()))
            return
        for line in self.clean(text).rstrip().split("\n"):
            for piece in split_text(line.removesuffix("\r"), TEXT_BYTES):
                self.lines.write(LogEvent(text=piece, origin=origin, **self.lines.stamp()))

    def status(self, state: str, message: str | None = None) -> None:
        """Report the current step of the executor."""
        self.lines.write(StatusEvent(state=state, message=message and self._sentence(message), **self.lines.stamp()))

    def tool_call(self, call_id: str, name: str, tool_input: Any) -> None:
        """Report a call of a tool by the agent."""
        value = shorten_value(self._current_redactor().redact_value(tool_input), TEXT_BYTES)
        self.lines.write(ToolEvent(id=self._name(call_id), name=self._name(name), input=value, **self.lines.stamp()))

    def tool_result(self, call_id: str, output: str, *, is_error: bool = False) -> None:
        """Report the result of a tool call."""
        self.pull_request_url = find_pull_request(output) or self.pull_request_url
        text = truncate(self.clean(output), TEXT_BYTES)
        self.lines.write(ToolEvent(id=self._name(call_id), output=text, is_error=is_error, **self.lines.stamp()))

    def model_request(self, request: ModelRequest) -> None:
        """Report a request of the agent to its model's server."""
        cleaned = replace(
            request,
            method=self._name(request.method),
            path=self._name(request.path),
            model=request.model and self._name(request.model),
            refusal=request.refusal and self._sentence(request.refusal),
            removed_fields=(),
            error="",
        )
        self.lines.write(RequestEvent(request=cleaned, **self.lines.stamp()))

    def refused_host(self, refused: RefusedHost) -> None:
        """Report a host that the job's network rule has refused."""
        cleaned = replace(refused, host=self._name(refused.host), reason=self._sentence(refused.reason))
        self.lines.write(RefusedHostEvent(refused_host=cleaned, **self.lines.stamp()))

    def redact_also(self, *secrets: str) -> None:
        """Redact these secrets, too, in all events from now on."""
        self._redactor = self._redactor.including(*secrets)

    def redact_login(self, file: Path) -> None:
        """Redact the tokens in the file of a login, too, and those that a program writes to it later."""
        self._logins.append(LoginFile(file))
        self.read_logins()

    def read_logins(self) -> None:
        """Read the new tokens of the logins. Each event does so; call this before a file is removed."""
        for login in self._logins:
            if tokens := login.new_tokens():
                self.redact_also(*tokens)

    def _current_redactor(self) -> Redactor:
        self.read_logins()
        return self._redactor

    def report_usage(self, usage: Usage) -> None:
        """Report the total usage of the current run of a provider."""
        self.totals.set_provider(usage)
        self._write_usage()

    def report_measured_usage(self, usage: Usage) -> None:
        """Report the usage of all requests to the model's server. See UsageTotals."""
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
            self.lines.write(UsageEvent(usage=self._written_usage, **self.lines.stamp()))

    def report_outputs(self, outputs: Outputs) -> None:
        """Report all outputs of the attempt so far. A name that contains a secret is left out."""
        self.outputs = replace(
            outputs,
            base_commit=self._unless_secret(outputs.base_commit),
            branch=self._unless_secret(outputs.branch),
            commit=self._unless_secret(outputs.commit),
            pull_request_url=self._unless_secret(outputs.pull_request_url),
            answered_by=self._unless_secret(outputs.answered_by),
        )
        self.lines.write(OutputEvent(outputs=self.outputs, **self.lines.stamp()))

    def report_session(self, session: AgentSession) -> None:
        """Report the session in which the agent's program works, unless it was the last one reported.

        A session whose id contains a secret is not reported, and so not resumed.
        """
        if session != self.session and self._unless_secret(session.id):
            self.session = session
            self.lines.write(SessionEvent(session=session, **self.lines.stamp()))

    def result(self, value: Any, data: Any = None) -> None:
        """Write the terminal event of success. Raises GiveUp with the code `output_limit` if the value is too large.

        data: the checked value, of at most DATA_BYTES.
        """
        value, data = self._current_redactor().redact_value(value), self._current_redactor().redact_value(data)
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
            self.lines.store_file(RESULT_FILE, content)
            value, file = None, RESULT_FILE
        self.lines.write(
            ResultEvent(
                result=value,
                data=data,
                file=file,
                usage=self.totals.usage,
                outputs=self.outputs,
                **self.lines.stamp(),
            ),
        )

    def patch(self, patch: bytes) -> None:
        """Store the changes in the workspace, as a patch in git's format."""
        self.lines.store_file(PATCH_FILE, self.redact_bytes(patch))
        self.has_work = True

    def bundle(self, bundle: bytes) -> None:
        """Store the new commits, as a git bundle. Unlike other files it cannot be redacted."""
        self.lines.store_file(BUNDLE_FILE, bundle)
        self.has_work = True

    def publication(self, content: bytes) -> None:
        """Store the agent's publication, which is redacted already."""
        self.lines.store_file(PUBLICATION_FILE, content)
        self.has_work = True

    def session_files(self, content: bytes) -> None:
        """Store the files of the agent's session, which are redacted already."""
        self.lines.store_file(SESSION_FILE, content)

    def contains_secret(self, content: bytes) -> bool:
        """Return whether redaction would change `content`."""
        return self.redact_bytes(content) != content

    def redact_bytes(self, content: bytes) -> bytes:
        """Redact a text in UTF-8. Other bytes in it are retained."""
        text = content.decode("utf-8", "surrogateescape")
        return self._current_redactor().redact(text).encode("utf-8", "surrogateescape")

    def redact_value(self, value: Any) -> Any:
        """Redact every string in a JSON value."""
        return self._current_redactor().redact_value(value)

    def redact_host(self, host: str) -> str:
        """Redact the name of a host, or a sentence that contains it: its case does not matter."""
        return self._current_redactor().redact_host(host)

    def error(self, code: FailedCode, message: str, retry_after_seconds: float | None = None) -> None:
        """Write the terminal event of failure."""
        self.lines.write(
            ErrorEvent(
                code=code,
                message=self._sentence(message),
                retry_after_seconds=retry_after_seconds,
                usage=self.totals.usage,
                outputs=self.outputs,
                **self.lines.stamp(),
            )
        )

    def safe_length(self, text: str) -> int:
        """Return the length of the prefix of an incomplete line that can be split without splitting a secret."""
        return self._current_redactor().safe_length(text)

    def clean(self, text: str) -> str:
        """Return `text` redacted, with lone surrogates replaced, since UTF-8 cannot encode them."""
        return self._current_redactor().redact(text).encode("utf-8", "replace").decode()

    def field(self, text: str) -> str:
        """Return a text of a program for a note of the engine: redacted, in one line, and at most 100 characters."""
        return short_field(self.clean(text))

    def _unless_secret(self, name: str | None) -> str | None:
        return None if name is None or self.contains_secret(name.encode()) else name

    def _name(self, text: str) -> str:
        return truncate(self.clean(text), _NAME_BYTES)

    def _sentence(self, text: str) -> str:
        return truncate(one_line(self.clean(text)), _SENTENCE_BYTES)
