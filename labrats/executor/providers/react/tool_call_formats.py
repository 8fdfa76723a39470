"""How calls are written: natively, where server and model can; else as JSON in the text, which small models hold too.

A manner shows a talk to the model, and reads what it answers. A talk can be shown in any, so it can change midway.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from labrats.executor.providers.chat_client import Completion, Message
from labrats.executor.providers.react.arguments import ARGUMENT_TYPES, Finish, describe_arguments, schema_of
from labrats.executor.providers.react.observations import Observation
from labrats.executor.providers.react.transcript import Call, Transcript, Turn
from labrats.model.nesting import is_too_deep

_TASK: Final = (
    "You work in a folder, the workspace, by calling tools. Do what the user asks, one step after another: look before "
    "you change something, and check what you did. When it is done, or cannot be done, call finish with your answer."
)
_FORMAT: Final = (
    "Answer with one JSON object and nothing else: a call of one of these tools. You are then told what it answered. "
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
"""Whole talks, which the smallest models follow better than a description: a task, a call, its answer, the end."""

_OBJECTS_LOOKED_AT: Final = 20
_NAME_KEYS: Final = ("tool", "name", "function")
_ARGUMENT_KEYS: Final = ("arguments", "parameters", "input", "args")


class ToolCallFormat(Protocol):
    """A way to write calls."""

    @property
    def name(self) -> str:
        """What calls are then, for people."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """What a request has besides its messages."""

    @property
    def streams_text(self) -> bool:
        """Whether a text in an answer is for people."""

    def messages(self, transcript: Transcript) -> list[Message]:
        """The talk as the model is shown it."""

    def calls_in(self, reply: Completion) -> Sequence[Call]:
        """The calls in an answer; none where it is a text."""


@dataclass(frozen=True)
class NativeFormat:
    """The API's own tool calls."""

    name: str = "calls of the API"
    streams_text: bool = True

    @property
    def fields(self) -> Mapping[str, Any]:
        return {"tools": [_as_function(kind.tool, str(kind.__doc__), schema_of(kind)) for kind in ARGUMENT_TYPES]}

    def messages(self, transcript: Transcript) -> list[Message]:
        messages: list[Message] = _opening(_TASK, transcript)
        for each in transcript.shown:
            messages.append(_native_answer(each.text, each.calls))
            messages += [
                {"role": "tool", "tool_call_id": call.id, "content": observed.text}
                for call, observed in zip(each.calls, each.observed, strict=True)
            ]
            messages += _remark(each.remark)
        return messages

    def calls_in(self, reply: Completion) -> Sequence[Call]:
        return [Call(made.id, made.name, _json_or_text(made.arguments or "{}")) for made in reply.calls]


@dataclass(frozen=True)
class TextFormat:
    """One JSON object in the text. constrained: the server is asked to let the model write nothing else."""

    constrained: bool
    name: str
    streams_text: bool = False

    @property
    def fields(self) -> Mapping[str, Any]:
        if not self.constrained:
            return {}
        schema = {"name": "call", "strict": True, "schema": {"anyOf": [_call_schema(kind) for kind in ARGUMENT_TYPES]}}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def messages(self, transcript: Transcript) -> list[Message]:
        tools = "\n".join(
            f"- {kind.tool}, arguments {describe_arguments(kind)}: {kind.__doc__}" for kind in ARGUMENT_TYPES
        )
        system, prompt = _opening(f"{_TASK}\n\n{_FORMAT}\n\n{tools}", transcript)
        if not self.constrained:
            system = {**system, "role": "user"}  # what refuses a schema may refuse this role too
        said = (message for each in transcript.shown for message in _in_text(each))
        return _alternating([system, *_examples(), prompt, *said])

    def calls_in(self, reply: Completion) -> Sequence[Call]:
        for found in _objects_in(reply.text):
            name = next((found[key] for key in _NAME_KEYS if isinstance(found.get(key), str)), None)
            if name is not None:
                return [Call("call_0", name, _arguments_in(found))]
        return []


NATIVE: Final = NativeFormat()
CONSTRAINED: Final = TextFormat(constrained=True, name="JSON by a schema")
FREE: Final = TextFormat(constrained=False, name="JSON in a text")
FALLBACK_FORMATS: Final[Mapping[ToolCallFormat, ToolCallFormat]] = {NATIVE: CONSTRAINED, CONSTRAINED: FREE}
"""What is tried where a server or a model does not master a manner."""


def _opening(system: str, transcript: Transcript) -> list[Message]:
    instructions = f"{system}\n\n{transcript.instructions}" if transcript.instructions else system
    return [{"role": "system", "content": instructions}, {"role": "user", "content": transcript.prompt}]


def _alternating(messages: Iterable[Message]) -> list[Message]:
    """The same, those that follow one of their own role joined with it: some models know of nothing else."""
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


def _native_answer(text: str, calls: Sequence[Call]) -> Message:
    written = [
        # Arguments that are no object would break the templates by which servers show them to the model.
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
    return {"role": "assistant", "content": text} | ({"tool_calls": written} if written else {})


def _call_schema(kind: Any) -> dict[str, Any]:
    """A call of one tool as a JSON object."""
    return {
        "type": "object",
        "properties": {"tool": {"const": kind.tool}, "arguments": schema_of(kind)},
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }


def _examples() -> Iterator[Message]:
    for task, tool, arguments, answered, end in _EXAMPLES:
        call = Call("", tool, arguments)
        yield {"role": "user", "content": task}
        yield from _in_text(Turn(calls=[call], observed=[Observation(answered)]))
        yield {"role": "assistant", "content": _written(Finish.tool, {"answer": end})}


def _in_text(each: Turn) -> Iterator[Message]:
    for call, observed in zip(each.calls, each.observed, strict=True):
        yield {"role": "assistant", "content": _written(call.name, call.arguments)}
        yield {"role": "user", "content": _told(call, observed)}
    if not each.calls:
        yield {"role": "assistant", "content": each.text}
    yield from _remark(each.remark)


def _written(tool: str, arguments: Any) -> str:
    return json.dumps({"tool": tool, "arguments": arguments}, ensure_ascii=False)


def _told(call: Call, observed: Observation) -> str:
    verb = "failed" if observed.is_error else "answered"
    return f"{call.name} {verb}:\n{observed.text}\n\nGo on: call the next tool, or {Finish.tool}."


def _objects_in(text: str) -> Iterator[dict[str, Any]]:
    """Each JSON object in `text`, whatever is around it."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    for _ in range(_OBJECTS_LOOKED_AT):
        if start < 0:
            return
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if isinstance(value, dict) and not _is_too_deep(text[start:end]):
                yield value
        start = text.find("{", end)


def _arguments_in(found: Mapping[str, Any]) -> Any:
    """Its arguments; beside the name where they are not in an object of their own."""
    given = next((found[key] for key in _ARGUMENT_KEYS if key in found), None)
    if isinstance(given, str):
        return _json_or_text(given)
    if given is None:
        return {key: value for key, value in found.items() if key not in _NAME_KEYS}
    return given


def _json_or_text(text: str) -> Any:
    try:
        return text if _is_too_deep(text) else json.loads(text)
    except ValueError:
        return text


def _is_too_deep(text: str) -> bool:
    return is_too_deep(text.encode("utf-8", "replace"))
