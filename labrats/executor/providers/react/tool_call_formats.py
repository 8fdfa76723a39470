"""The formats of tool calls: the API's own calls, or JSON in the text if the model or server does not support them.

A format renders the conversation for the model and parses the calls in its answer. Every conversation can be rendered
in every format, so that the loop can change the format at any time.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from labrats.executor.providers.chat_stream import Completion, Message
from labrats.executor.providers.react.arguments import ARGUMENT_TYPES, Finish, describe_arguments, schema_of
from labrats.executor.providers.react.observations import Observation
from labrats.executor.providers.react.transcript import ToolCall, Transcript, Turn
from labrats.model.nesting import is_too_deep

_TASK: Final = (
    "You work in a folder, the workspace, by calling tools. Do what the user asks, one step after another: look before "
    "you change something, and check what you did. When it is done, or cannot be done, call finish with your answer."
)
_FORMAT: Final = (
    "Answer with one JSON object and nothing else: a call of one of these tools. You then get its result. "
    "The first tasks you see are examples, and so are their files."
)
_EXAMPLES: Final = (
    (
        "Create hello.txt with the text hi.",
        "write_file",
        {"path": "hello.txt", "content": "hi\n"},
        "It was written.",
        "Done.",
    ),
    ("What does todo.txt say?", "read_file", {"path": "todo.txt"}, "Buy milk.", "todo.txt says: Buy milk."),
    ("Run the tests.", "run_command", {"command": "make test"}, "12 passed", "All 12 tests pass."),
)
"""Example conversations: task, tool, arguments, result, answer. The smallest models follow them better than rules."""

_MAX_OBJECTS: Final = 20
_NAME_KEYS: Final = ("tool", "name", "function")
_ARGUMENT_KEYS: Final = ("arguments", "parameters", "input", "args")


class ToolCallFormat(Protocol):
    """A format of tool calls."""

    @property
    def name(self) -> str:
        """The format's name in the log."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """Further fields of a request, besides its messages."""

    @property
    def streams_text(self) -> bool:
        """True if the text of an answer is for people, and is logged."""

    def messages(self, transcript: Transcript) -> list[Message]:
        """Render the conversation for the model."""

    def calls_in(self, completion: Completion) -> Sequence[ToolCall]:
        """Return the calls in an answer; none if it contains only text."""


@dataclass(frozen=True)
class NativeFormat:
    """The API's own tool calls."""

    name: str = "API tool calls"
    streams_text: bool = True

    @property
    def fields(self) -> Mapping[str, Any]:
        return {"tools": [_as_function(each.tool, str(each.__doc__), schema_of(each)) for each in ARGUMENT_TYPES]}

    def messages(self, transcript: Transcript) -> list[Message]:
        messages: list[Message] = _opening(_TASK, transcript)
        for turn in transcript.shown:
            messages.append(_native_answer(turn.text, turn.calls))
            messages += [
                {"role": "tool", "tool_call_id": call.id, "content": observation.text}
                for call, observation in zip(turn.calls, turn.observations, strict=True)
            ]
            messages += _remark(turn.remark)
        return messages

    def calls_in(self, completion: Completion) -> Sequence[ToolCall]:
        return [ToolCall(each.id, each.name, _json_or_text(each.arguments or "{}")) for each in completion.calls]


@dataclass(frozen=True)
class TextFormat:
    """A call as a JSON object in the text. constrained: True to send a schema that allows nothing else."""

    constrained: bool
    name: str
    streams_text: bool = False

    @property
    def fields(self) -> Mapping[str, Any]:
        if not self.constrained:
            return {}
        schema = {"name": "call", "strict": True, "schema": {"anyOf": [_call_schema(each) for each in ARGUMENT_TYPES]}}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def messages(self, transcript: Transcript) -> list[Message]:
        tools = "\n".join(
            f"- {each.tool}, arguments {describe_arguments(each)}: {each.__doc__}" for each in ARGUMENT_TYPES
        )
        system, prompt = _opening(f"{_TASK}\n\n{_FORMAT}\n\n{tools}", transcript)
        if not self.constrained:
            system = {**system, "role": "user"}  # a server that rejects a schema may reject this role too
        turns = (message for turn in transcript.shown for message in _text_messages(turn))
        return _alternating([system, *_examples(), prompt, *turns])

    def calls_in(self, completion: Completion) -> Sequence[ToolCall]:
        for found in _objects_in(completion.text):
            name = next((found[key] for key in _NAME_KEYS if isinstance(found.get(key), str)), None)
            if name is not None:
                return [ToolCall("call_0", name, _arguments_in(found))]
        return []


NATIVE: Final = NativeFormat()
CONSTRAINED: Final = TextFormat(constrained=True, name="JSON with a schema")
FREE: Final = TextFormat(constrained=False, name="JSON in plain text")
FALLBACK_FORMATS: Final[Mapping[ToolCallFormat, ToolCallFormat]] = {NATIVE: CONSTRAINED, CONSTRAINED: FREE}
"""The next format to try when a server or a model does not support a format."""


def _opening(system: str, transcript: Transcript) -> list[Message]:
    instructions = f"{system}\n\n{transcript.instructions}" if transcript.instructions else system
    return [{"role": "system", "content": instructions}, {"role": "user", "content": transcript.prompt}]


def _alternating(messages: Iterable[Message]) -> list[Message]:
    """Join consecutive messages of the same role, since some models require alternating roles."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = {**message, "content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined


def _remark(text: str) -> list[Message]:
    return [{"role": "user", "content": text}] if text else []


def _as_function(name: str, description: str, parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _native_answer(text: str, calls: Sequence[ToolCall]) -> Message:
    tool_calls = [
        # Arguments other than an object would break the chat templates of servers.
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(call.arguments if isinstance(call.arguments, dict) else {}),
            },
        }
        for call in calls
    ]
    return {"role": "assistant", "content": text} | ({"tool_calls": tool_calls} if tool_calls else {})


def _call_schema(arguments_type: Any) -> dict[str, Any]:
    """Return the JSON schema of a call of one tool."""
    return {
        "type": "object",
        "properties": {"tool": {"const": arguments_type.tool}, "arguments": schema_of(arguments_type)},
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }


def _examples() -> Iterator[Message]:
    for task, tool, arguments, result, answer in _EXAMPLES:
        call = ToolCall("", tool, arguments)
        yield {"role": "user", "content": task}
        yield from _text_messages(Turn(calls=[call], observations=[Observation(result)]))
        yield {"role": "assistant", "content": _call_text(Finish.tool, {"answer": answer})}


def _text_messages(turn: Turn) -> Iterator[Message]:
    for call, observation in zip(turn.calls, turn.observations, strict=True):
        yield {"role": "assistant", "content": _call_text(call.name, call.arguments)}
        yield {"role": "user", "content": _result_text(call, observation)}
    if not turn.calls:
        yield {"role": "assistant", "content": turn.text}
    yield from _remark(turn.remark)


def _call_text(tool: str, arguments: Any) -> str:
    return json.dumps({"tool": tool, "arguments": arguments}, ensure_ascii=False)


def _result_text(call: ToolCall, observation: Observation) -> str:
    verb = "failed" if observation.is_error else "returned"
    return f"{call.name} {verb}:\n{observation.text}\n\nContinue: call the next tool, or {Finish.tool}."


def _objects_in(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text, which may contain anything around them."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    for _ in range(_MAX_OBJECTS):
        if start < 0:
            return
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if isinstance(value, dict) and not _is_too_deep(text[start:end]):
                yield _without_half_pairs(value, text[start:end])
        start = text.find("{", end)


def _arguments_in(found: Mapping[str, Any]) -> Any:
    """Return the arguments of a call: an object of their own, or the fields beside the name."""
    arguments = next((found[key] for key in _ARGUMENT_KEYS if key in found), None)
    if isinstance(arguments, str):
        return _json_or_text(arguments)
    if arguments is None:
        return {key: value for key, value in found.items() if key not in _NAME_KEYS}
    return arguments


def _json_or_text(text: str) -> Any:
    try:
        return text if _is_too_deep(text) else _without_half_pairs(json.loads(text), text)
    except ValueError:
        return text


def _without_half_pairs(value: Any, text: str) -> Any:
    """Return a parsed value without halves of surrogate pairs, which no file name, command or request can contain.

    text: the JSON of the value.
    """
    if "\\u" not in text:
        return value
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _is_too_deep(text: str) -> bool:
    return is_too_deep(text.encode("utf-8", "replace"))
