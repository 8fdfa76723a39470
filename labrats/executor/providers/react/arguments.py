"""What each tool takes: the types that calls are read into, and the schemas that models are shown."""

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

_Path = Annotated[str, Meta(description="Relative to the workspace.")]


class ToolArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a call. The docstring of each kind is what the model is told of the tool."""

    tool: ClassVar[str]


class ReadFile(ToolArguments, frozen=True):
    """Read a text file, or a part of it when it is long."""

    tool: ClassVar[str] = "read_file"
    path: _Path
    offset: Annotated[int, Meta(ge=1, description="The first line to read; 1 is the first of the file.")] = 1
    limit: Annotated[int, Meta(ge=1, description="How many lines to read at most.")] = 2000


class WriteFile(ToolArguments, frozen=True):
    """Write a text file, in place of one that is there. Folders are made."""

    tool: ClassVar[str] = "write_file"
    path: _Path
    content: str


class EditFile(ToolArguments, frozen=True):
    """Replace a piece of a text file. The piece must occur in it exactly once."""

    tool: ClassVar[str] = "edit_file"
    path: _Path
    old: Annotated[str, Meta(min_length=1, description="The piece as it is, with its spaces and line breaks.")]
    new: Annotated[str, Meta(description="What to put in its place.")]


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
    """Run a shell command in the workspace. What it leaves running is ended with it."""

    tool: ClassVar[str] = "run_command"
    command: Annotated[str, Meta(min_length=1)]
    timeout_seconds: Annotated[int, Meta(ge=1, le=3600)] = 120


class Finish(ToolArguments, frozen=True):
    """End the work, once it is done or cannot be done."""

    tool: ClassVar[str] = "finish"
    answer: Annotated[str, Meta(description="The answer to the user: what was found or done.")]


ARGUMENT_TYPES: Final[tuple[type[ToolArguments], ...]] = (
    ReadFile,
    WriteFile,
    EditFile,
    ListFiles,
    Search,
    RunCommand,
    Finish,
)
_BY_NAME: Final = {kind.tool: kind for kind in ARGUMENT_TYPES}


class InvalidToolCall(Exception):
    """A call that no tool understands. Its text tells the model what would be right."""


def parse_tool_call(name: str, arguments: Any) -> ToolArguments:
    """The call as its tool takes it. Raises InvalidToolCall."""
    if (kind := _BY_NAME.get(name)) is None:
        raise InvalidToolCall(f"There is no tool {name!r}. The tools are: {', '.join(_BY_NAME)}.")
    if not isinstance(arguments, dict):
        raise InvalidToolCall(f"The arguments of {name} are not a JSON object. It takes {describe_arguments(kind)}.")
    given = {key: value for key, value in arguments.items() if value is not None}  # models fill in null for "none"
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidToolCall(f"{name} was called wrongly: {error}. It takes {describe_arguments(kind)}.") from error


def schema_of(kind: type[ToolArguments]) -> dict[str, Any]:
    """The JSON schema of its arguments."""
    _, components = msgspec.json.schema_components([kind])
    schema = components[kind.__name__]
    return {key: schema[key] for key in ("type", "properties", "required", "additionalProperties")}


def describe_arguments(kind: type[ToolArguments]) -> str:
    """Its arguments in a line, such as `{"path": string, "offset"?: integer}`."""
    schema = schema_of(kind)
    fields = (
        f'"{name}"{"" if name in schema["required"] else "?"}: {field["type"]}'
        for name, field in schema["properties"].items()
    )
    return "{" + ", ".join(fields) + "}"
