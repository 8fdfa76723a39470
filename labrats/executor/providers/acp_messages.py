"""The messages of the Agent Client Protocol, version 1: JSON-RPC 2.0, one object per line.

Only the fields that are used are declared. Newer programs add fields, kinds of updates and requests; unknown ones are
skipped. Source: https://agentclientprotocol.com/protocol/schema
"""

from typing import Any, Final

import msgspec

from labrats.executor.providers.cli_events import decode_line, text_of

PROTOCOL_VERSION: Final = 1
METHOD_NOT_FOUND: Final = -32601
AUTH_REQUIRED: Final = -32000
RESOURCE_NOT_FOUND: Final = -32002


class Message(msgspec.Struct, frozen=True):
    """A message of the program: a request (method and id), a notification (method) or an answer (id)."""

    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw = msgspec.Raw(b"{}")
    error: "RpcError | None" = None


class RpcError(msgspec.Struct, frozen=True):
    """Why the program cannot answer a request."""

    code: int = 0
    message: str = ""
    data: Any = None

    @property
    def text(self) -> str:
        """The message with its details."""
        details = self.data
        if isinstance(details, dict):
            details = details.get("details") or details.get("message") or msgspec.json.encode(details).decode()
        return f"{self.message}: {details}" if details and details != self.message else self.message


class AgentInfo(msgspec.Struct, frozen=True, rename="camel"):
    """The name and version of the program."""

    name: str = ""
    title: str | None = None
    version: str = ""


class PromptCapabilities(msgspec.Struct, frozen=True):
    """The content that a prompt may have besides text."""

    image: bool = False


class McpCapabilities(msgspec.Struct, frozen=True):
    """The kinds of MCP servers besides programs."""

    http: bool = False


class SessionCapabilities(msgspec.Struct, frozen=True):
    """The abilities of the program with sessions besides starting them. resume: an object if it resumes them."""

    resume: Any = None


class AgentCapabilities(msgspec.Struct, frozen=True, rename="camel"):
    """The abilities of the program."""

    load_session: bool = False
    prompt_capabilities: PromptCapabilities = PromptCapabilities()
    mcp_capabilities: McpCapabilities = McpCapabilities()
    session_capabilities: SessionCapabilities = SessionCapabilities()


class Initialized(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to `initialize`."""

    protocol_version: int = PROTOCOL_VERSION
    agent_info: AgentInfo | None = None
    agent_capabilities: AgentCapabilities = AgentCapabilities()


class NewSession(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to `session/new`."""

    session_id: str


class PromptEnd(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to `session/prompt`."""

    stop_reason: str


class PermissionOption(msgspec.Struct, frozen=True, rename="camel"):
    """A choice of a permission request. kind: `allow_once`, `allow_always`, `reject_once` or `reject_always`."""

    option_id: str
    kind: str = ""


class PermissionRequest(msgspec.Struct, frozen=True):
    """The parameters of `session/request_permission`."""

    options: list[PermissionOption] = []

    @property
    def allowing(self) -> str | None:
        """The id of the choice that allows most; None if none allows anything."""
        ids = {option.kind: option.option_id for option in reversed(self.options)}
        return ids.get("allow_always") or ids.get("allow_once")


class ToolContent(msgspec.Struct, frozen=True, rename="camel"):
    """A part of what a tool has produced: content, the change of a file, or a terminal."""

    type: str = ""
    content: Any = None
    path: str = ""
    old_text: str | None = None
    new_text: str = ""

    @property
    def text(self) -> str:
        """The content as text; empty for another part."""
        return text_of([self.content]) if self.type == "content" else ""

    @property
    def change(self) -> dict[str, str | None] | None:
        """The change of a file, for a tool's input; None for another part."""
        if self.type != "diff":
            return None
        return {"path": self.path, "oldText": self.old_text, "newText": self.new_text}


class Update(msgspec.Struct, frozen=True, rename="camel"):
    """A piece of text or thought, or a tool call as far as it is known. Other updates have none of the fields."""

    session_update: str = ""
    message_id: str | None = None
    content: Any = None
    tool_call_id: str = ""
    title: str | None = None
    kind: str | None = None
    status: str | None = None
    raw_input: Any = None
    raw_output: Any = None

    @property
    def text(self) -> str:
        """The piece of a text; empty for an update of another kind, or without a text."""
        return str(self.content.get("text") or "") if isinstance(self.content, dict) else ""

    @property
    def parts(self) -> list[ToolContent]:
        """The parts of the output so far."""
        if not isinstance(self.content, list):
            return []
        return [msgspec.convert(part, ToolContent) for part in self.content if isinstance(part, dict)]


class SessionUpdate(msgspec.Struct, frozen=True):
    """The parameters of `session/update`."""

    update: Update


_DECODER: Final = msgspec.json.Decoder(Message)


def read_message(line: bytes) -> Message | None:
    """Return the message in `line`, or None if it is none: programs also print other lines."""
    return decode_line(_DECODER, line)
