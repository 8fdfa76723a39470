"""Parse the output and session files of Codex, one JSON object per line, and translate them to events of the attempt.

Only the fields that are used are declared. Newer versions add kinds of events and items; unknown ones are skipped.
"""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from labrats.executor.context import RunContext
from labrats.executor.failure_advice import add_advice
from labrats.executor.providers.agent_cli import warn_of_old_program
from labrats.executor.providers.cli_events import (
    decode_line,
    is_session_id,
    report_tool_call,
    report_tool_result,
    text_of,
)
from labrats.executor.providers.session_lines import complete_lines, open_in_home
from labrats.files.trees import is_plain_folder
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage


class TokenCounts(msgspec.Struct, frozen=True):
    """Tokens as the Responses API counts them. Input includes cached tokens, output includes reasoning."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0

    def __sub__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(
            self.input_tokens - other.input_tokens,
            self.cached_input_tokens - other.cached_input_tokens,
            self.cache_write_input_tokens - other.cache_write_input_tokens,
            self.output_tokens - other.output_tokens,
            self.reasoning_output_tokens - other.reasoning_output_tokens,
        )

    def as_usage(self, turns: int) -> Usage:
        return Usage(
            input_tokens=self.input_tokens - self.cached_input_tokens,
            output_tokens=self.output_tokens,
            cache_read_tokens=self.cached_input_tokens,
            cache_write_tokens=self.cache_write_input_tokens,
            reasoning_tokens=self.reasoning_output_tokens,
            turns=turns,
        )


class FileChange(msgspec.Struct, frozen=True):
    """A file that was added, updated or deleted."""

    path: str
    kind: str


class ThreadItem(msgspec.Struct, frozen=True):
    """A text, a command, a change of files, or another item. Fields of other types of items are absent."""

    id: str
    type: str
    text: str = ""
    message: str = ""
    command: str = ""
    aggregated_output: str = ""
    exit_code: int | None = None
    status: str = ""
    changes: list[FileChange] = []
    query: str = ""
    server: str = ""
    tool: str = ""
    arguments: Any = None
    result: Any = None
    error: Any = None

    @property
    def call(self) -> tuple[str, Any, str] | None:
        """The name, input and description of a tool call; None for another item."""
        match self.type:
            case "command_execution":
                command = _shell_command(self.command)
                return "Shell", {"command": command}, command
            case "file_change":
                changes = [{"path": change.path, "kind": change.kind} for change in self.changes]
                return (
                    "Edit",
                    {"changes": changes},
                    ", ".join(f"{change.kind} {change.path}" for change in self.changes),
                )
            case "mcp_tool_call":
                return f"{self.server}.{self.tool}", self.arguments, _json(self.arguments)
            case "web_search":
                return "WebSearch", {"query": self.query}, self.query
        return None

    @property
    def output(self) -> str:
        """The output of the tool."""
        if self.type == "mcp_tool_call":
            if isinstance(self.result, dict) and "content" in self.result:
                return text_of(self.result["content"])
            return _json(self.error or self.result)
        return self.aggregated_output or self.status

    @property
    def has_failed(self) -> bool:
        return self.status == "failed" or self.exit_code not in (None, 0)


class ThreadStarted(msgspec.Struct, frozen=True, tag_field="type", tag="thread.started"):
    """The first event. Codex has already read the credentials."""

    thread_id: str


class ItemStarted(msgspec.Struct, frozen=True, tag_field="type", tag="item.started"):
    """The start of an item that takes time."""

    item: ThreadItem


class ItemCompleted(msgspec.Struct, frozen=True, tag_field="type", tag="item.completed"):
    """The completion of an item. Not every item has a start event."""

    item: ThreadItem


class TurnCompleted(msgspec.Struct, frozen=True, tag_field="type", tag="turn.completed"):
    """The success of a run. usage: of all turns of the thread, including earlier runs."""

    usage: TokenCounts = TokenCounts()


class ThreadError(msgspec.Struct, frozen=True):
    """The message of a failure."""

    message: str = ""


class TurnFailed(msgspec.Struct, frozen=True, tag_field="type", tag="turn.failed"):
    """The failure of a run."""

    error: ThreadError = ThreadError()


class ThreadErrorEvent(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A problem after which Codex may retry."""

    message: str = ""


CodexEvent = ThreadStarted | ItemStarted | ItemCompleted | TurnCompleted | TurnFailed | ThreadErrorEvent

_DECODER: Final[msgspec.json.Decoder[CodexEvent]] = msgspec.json.Decoder(CodexEvent)


def read_event(line: bytes) -> CodexEvent | None:
    """Return the event in `line`, or None if it is not an event of a known kind."""
    return decode_line(_DECODER, line)


class CodexEventTranslator:
    """Translates events as they arrive, counts their usage, and stores the outcome.

    has_started: True once Codex has started or resumed its session.
    last_text:   the last message of the agent.
    completed:   the event of success, if any. failure: the message of the failure, if any.
    """

    def __init__(self, context: RunContext, home: Path) -> None:
        """Create a translator. home: the agent's home, in which Codex stores its sessions."""
        self.has_started = False
        self.last_text = ""
        self.completed: TurnCompleted | None = None
        self.failure: str | None = None
        self._context = context
        self._session_usage = SessionUsageReader(home, context.session_id)
        self._open_calls: set[str] = set()
        self._has_checked_version = False

    @property
    def waits_for_model(self) -> bool:
        """True while no tool is running, so that the model is expected to send something."""
        return not self._open_calls

    def handle(self, event: CodexEvent) -> None:
        """Translate an event. Raises GiveUp if the usage exceeds a limit."""
        match event:
            case ThreadStarted():
                self.has_started = True
                if is_session_id(event.thread_id):
                    self._session_usage.thread_id = event.thread_id
                    self._context.report_session(event.thread_id)
            case ItemStarted():
                self._report_call(event.item)
            case ItemCompleted():
                self._handle_completed(event.item)
            case TurnCompleted():
                self.completed = event
            case TurnFailed():
                self.failure = event.error.message
            case ThreadErrorEvent():
                self._context.events.log(f"[{event.message}]", "agent")
        if self._session_usage.read():
            self._context.set_usage(self._session_usage.usage, self._session_usage.model)
            self._check_turns()
        if self._session_usage.version and not self._has_checked_version:
            self._has_checked_version = True
            warn_of_old_program(self._context, "codex", self._session_usage.version)

    def report_final_usage(self) -> None:
        """Report the total usage after the program has exited. Limits are not checked."""
        if self._session_usage.read():
            self._context.set_final_usage(self._session_usage.usage, self._session_usage.model)
        elif self.completed and not self._session_usage.usage.turns and not self._context.session_id:
            self._context.set_final_usage(self.completed.usage.as_usage(turns=1))
        self._session_usage.close()

    def _report_call(self, item: ThreadItem) -> None:
        if call := item.call:
            self._open_calls.add(item.id)
            report_tool_call(self._context.events, item.id, *call)

    def _handle_completed(self, item: ThreadItem) -> None:
        match item.type:
            case "agent_message":
                self.last_text = item.text
                self._context.events.log(item.text, "agent")
            case "error":  # used for warnings
                self._context.events.log(f"[{item.message}]", "agent")
        if item.call:
            if item.id not in self._open_calls:
                self._report_call(item)
            self._open_calls.discard(item.id)
            report_tool_result(self._context.events, item.id, item.output, is_error=item.has_failed)

    def _check_turns(self) -> None:
        most, turns = self._context.task.config.max_turns, self._session_usage.usage.turns
        if most is not None and turns > most:
            sentence = f"Codex took more than {most} turns"
            raise GiveUp(FailedCode.MAX_TURNS, add_advice(FailedCode.MAX_TURNS, sentence, self._context.task))


class _SessionEntry(msgspec.Struct, frozen=True):
    payload: "_SessionPayload"
    type: str = ""


class _SessionPayload(msgspec.Struct, frozen=True):
    """The payload of an entry.

    `session_meta` has a version, `turn_context` a model, `token_usage_record` a usage, `token_count` an info.

    Codex writes the record of an answer at once, but its token_count only after the tools that it calls have returned.
    Older versions write no records.
    """

    cli_version: str = ""
    model: str | None = None
    response_id: str = ""
    usage: TokenCounts | None = None
    info: "_TokenInfo | None" = None


class _TokenInfo(msgspec.Struct, frozen=True):
    """Token counts: total of the session, including earlier runs, and those of the last answer."""

    total_token_usage: TokenCounts
    last_token_usage: TokenCounts


class SessionUsageReader:
    """Reads the usage of a run after each answer. The events of Codex only contain it when the run succeeds.

    It is read from the session's file, which is opened when the session starts and stays open, so that an agent cannot
    replace it. model: the model in use, once it is known. version: of the Codex that has started the session.
    """

    def __init__(self, home: Path, session_id: str | None = None) -> None:
        """Create a reader.

        home:       the agent's home, in which Codex stores its sessions.
        session_id: the session to resume, if any. Usage that it has already recorded does not count.
        """
        self.thread_id = session_id or ""
        self.usage = Usage()
        self.model: str | None = None
        self.version = ""
        self._home = home
        self._file: BinaryIO | None = None
        self._before: TokenCounts | None = None
        self._total = TokenCounts()
        self._latest_answer = ""
        if session_id and self.read():
            self._before, self.usage = self._total, Usage()

    def read(self) -> bool:
        """Read new entries. Return whether the usage has changed."""
        before = self.usage
        for line in self._new_lines():
            if not any(kind in line for kind in _KINDS_READ) or not (entry := decode_line(_SESSION_DECODER, line)):
                continue
            if entry.type == "session_meta":
                self.version = entry.payload.cli_version
            elif entry.type == "turn_context":
                self.model = entry.payload.model
            elif usage := entry.payload.usage:
                self._count_answer(entry.payload.response_id, usage)
            elif entry.payload.info and not self._latest_answer:
                self._count(entry.payload.info)
        return self.usage != before

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _count_answer(self, response_id: str, usage: TokenCounts) -> None:
        if response_id != self._latest_answer:
            self._latest_answer = response_id
            self.usage += usage.as_usage(turns=1)

    def _count(self, info: _TokenInfo) -> None:
        if self._before is None:
            self._before = info.total_token_usage - info.last_token_usage
        if info.total_token_usage != self._total:  # an entry may repeat the counts of the last one
            self._total = info.total_token_usage
            self.usage = (self._total - self._before).as_usage(self.usage.turns + 1)

    def _new_lines(self) -> Iterator[bytes]:
        if self._file is None:
            self._file = self._open_file()
        if self._file:
            yield from complete_lines(self._file)

    def _open_file(self) -> BinaryIO | None:
        if not self.thread_id:
            return None
        with suppress(OSError):  # the agent of an earlier attempt has replaced it, or taken its permissions away
            sessions = self._home / ".codex" / "sessions"
            # By year, month and day. The agent can fill the folder, or replace it by a link.
            found = sessions.glob("*/*/*/rollout-*.jsonl") if is_plain_folder(sessions) else ()
            for path in islice(found, _MOST_FILES):
                if path.stem.endswith(self.thread_id):
                    return open_in_home(self._home, path)
        return None


_SESSION_DECODER: Final = msgspec.json.Decoder(_SessionEntry)
_MOST_FILES: Final = 1000
_KINDS_READ: Final = (b'"session_meta"', b'"turn_context"', b'"token_count"', b'"token_usage_record"')


_LONG_COMMAND: Final = 16 * 1024


def _shell_command(command: str) -> str:
    """Return the command inside `/bin/bash -lc 'command'`."""
    if len(command) > _LONG_COMMAND:  # splitting takes a time that grows with the square of the length
        return command
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    return words[2] if len(words) == 3 and words[1] in ("-c", "-lc") else command


def _json(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
