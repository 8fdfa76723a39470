"""Translate the updates of a program that speaks the Agent Client Protocol to events of the attempt."""

from typing import Any, Final

import msgspec

from labrats.executor.context import RunContext
from labrats.executor.providers.acp_messages import ToolContent, Update
from labrats.executor.providers.cli_events import report_tool_call, report_tool_result
from labrats.executor.providers.line_logger import REASONING_PREFIX, LineLogger

_ENDED: Final = frozenset({"completed", "failed"})
_NAMES: Final = {"execute": "Shell", "edit": "Edit", "read": "Read", "search": "Search", "fetch": "WebFetch"}
"""Names of tools, by the kinds of the protocol. A tool of another kind has its title."""


class _ToolCall:
    """A call as far as it is known. is_reported: whether an event has announced it."""

    def __init__(self) -> None:
        self.title, self.kind = "", ""
        self.input: Any = None
        self.output: Any = None
        self.parts: list[ToolContent] = []
        self.is_reported = False

    def add(self, update: Update) -> None:
        self.title = update.title or self.title
        self.kind = update.kind or self.kind
        self.input = update.raw_input or self.input
        self.output = update.raw_output or self.output
        self.parts = update.parts or self.parts

    @property
    def name(self) -> str:
        return _NAMES.get(self.kind) or self.title or "tool"

    @property
    def full_input(self) -> Any:
        """The input, or the changes of files that stand for it."""
        return self.input or {"changes": [change for part in self.parts if (change := part.change)]}

    @property
    def description(self) -> str:
        command = self.input.get("command") if isinstance(self.input, dict) else None
        if isinstance(command, list):
            command = " ".join(map(str, command))
        return str(command or self.title)

    @property
    def text(self) -> str:
        """The output: that of a command as such, if the program says so, else what it shows."""
        output = self.output.get("output") if isinstance(self.output, dict) else self.output
        if isinstance(output, str):
            return output
        if shown := "\n".join(part.text for part in self.parts if part.text):
            return shown
        return "" if self.output is None else msgspec.json.encode(self.output).decode()


class AcpEventTranslator:
    """Translates updates as they arrive. last_text: the last message of the agent."""

    def __init__(self, context: RunContext) -> None:
        self.last_text = ""
        self._context = context
        self._text: LineLogger | None = None
        self._thought: LineLogger | None = None
        self._calls = dict[str, _ToolCall]()
        self._message_id: str | None = None

    @property
    def waits_for_model(self) -> bool:
        """True while no tool is running, so that the model is expected to send something."""
        return not any(call.is_reported for call in self._calls.values())

    def handle(self, update: Update) -> None:
        """Translate an update."""
        match update.session_update:
            case "agent_message_chunk" if update.text:
                self._add_text(update)
            case "agent_thought_chunk" if update.text:
                self._add_thought(update.text)
            case "tool_call" | "tool_call_update":
                self.end_text()
                self._handle_call(update)

    def end_text(self) -> None:
        """Log the rest of a message. A text that follows is another message."""
        for logger in filter(None, (self._text, self._thought)):
            logger.end()
        self._text = self._thought = None

    def _add_text(self, update: Update) -> None:
        if self._text is None or update.message_id != self._message_id:
            self.end_text()
            self._text, self.last_text = LineLogger(self._context.events), ""
            self._message_id = update.message_id
        self.last_text += update.text
        self._text.add(update.text)

    def _add_thought(self, piece: str) -> None:
        if self._thought is None:
            self.end_text()
            self._thought = LineLogger(self._context.events, REASONING_PREFIX)
        self._thought.add(piece)

    def _handle_call(self, update: Update) -> None:
        """Report a call once its input is known, and its result."""
        call = self._calls.setdefault(update.tool_call_id, _ToolCall())
        call.add(update)
        has_ended, events = update.status in _ENDED, self._context.events
        if not call.is_reported and (has_ended or update.status == "in_progress"):
            call.is_reported = True
            report_tool_call(events, update.tool_call_id, call.name, call.full_input, call.description)
        if has_ended:
            del self._calls[update.tool_call_id]
            report_tool_result(events, update.tool_call_id, call.text, is_error=update.status == "failed")
