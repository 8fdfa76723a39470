"""The arguments of each tool: the types to which calls are parsed, and their schemas for the model."""

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

_Path = Annotated[str, Meta(description="Relative to the workspace.")]


class ToolArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of the arguments of a tool. The docstring of each subclass is the tool's description for the model."""

    tool: ClassVar[str]


class ReadFile(ToolArguments, frozen=True):
    """Read a text file, or a part of it when it is long."""

    tool: ClassVar[str] = "read_file"
    path: _Path
    offset: Annotated[int, Meta(ge=1, description="The first line to read. The file starts with line 1.")] = 1
    limit: Annotated[int, Meta(ge=1, description="The maximum number of lines to read.")] = 2000


class WriteFile(ToolArguments, frozen=True):
    """Write a text file. An existing file is replaced, and missing folders are created."""

    tool: ClassVar[str] = "write_file"
    path: _Path
    content: str


class EditFile(ToolArguments, frozen=True):
    """Replace a piece of a text file. The piece must occur in it exactly once."""

    tool: ClassVar[str] = "edit_file"
    path: _Path
    old: Annotated[str, Meta(min_length=1, description="The piece as it is, with its spaces and line breaks.")]
    new: Annotated[str, Meta(description="The text that replaces the piece.")]


class ListFiles(ToolArguments, frozen=True):
    """List a folder."""

    tool: ClassVar[str] = "list_files"
    path: _Path = "."


class Search(ToolArguments, frozen=True):
    """Find the lines that match an extended regular expression, in all text files of a folder."""

    tool: ClassVar[str] = "search"
    pattern: Annotated[str, Meta(min_length=1)]
    path: _Path = "."


class RunCommand(ToolArguments, frozen=True):
    """Run a shell command in the workspace. Processes that it leaves running are killed."""

    tool: ClassVar[str] = "run_command"
    command: Annotated[str, Meta(min_length=1)]
    timeout_seconds: Annotated[int, Meta(ge=1, le=3600)] = 120


class Finish(ToolArguments, frozen=True):
    """End the work, once it is done or cannot be done."""

    tool: ClassVar[str] = "finish"
    answer: Annotated[str, Meta(description="The answer to the user: what was found or done.")]


ARGUMENT_TYPES: Final[tuple[type[ToolArguments], ...]] = (
    *(ReadFile, WriteFile, EditFile, ListFiles, Search, RunCommand, Finish),
)
_BY_NAME: Final = {each.tool: each for each in ARGUMENT_TYPES}


class InvalidToolCall(Exception):
    """A call that no tool accepts. The message tells the model the valid form."""


def parse_tool_call(name: str, arguments: Any) -> ToolArguments:
    """Parse the arguments of a call. Raises InvalidToolCall."""
    if (arguments_type := _BY_NAME.get(name)) is None:
        raise InvalidToolCall(f"There is no tool {name!r}. The tools are: {', '.join(_BY_NAME)}.")
    usage = f"It takes {describe_arguments(arguments_type)}."
    if not isinstance(arguments, dict):
        raise InvalidToolCall(f"The arguments of {name} are not a JSON object. {usage}")
    given = {key: value for key, value in arguments.items() if value is not None}  # models write null for "none"
    try:
        return msgspec.convert(given, arguments_type, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidToolCall(f"Invalid arguments of {name}: {error}. {usage}") from error


def schema_of(arguments_type: type[ToolArguments]) -> dict[str, Any]:
    """Return the JSON schema of a tool's arguments."""
    _, components = msgspec.json.schema_components([arguments_type])
    schema = components[arguments_type.__name__]
    return {key: schema[key] for key in ("type", "properties", "required", "additionalProperties")}


def describe_arguments(arguments_type: type[ToolArguments]) -> str:
    """Return a tool's arguments in one line, such as `{"path": string, "offset"?: integer}`."""
    schema = schema_of(arguments_type)
    fields = (
        f'"{name}"{"" if name in schema["required"] else "?"}: {field["type"]}'
        for name, field in schema["properties"].items()
    )
    return "{" + ", ".join(fields) + "}"
