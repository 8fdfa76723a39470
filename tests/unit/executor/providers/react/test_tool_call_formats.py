"""Tests of rendering conversations and parsing calls."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.executor.providers.chat_stream import Completion, RawToolCall
from labrats.executor.providers.react.arguments import ARGUMENT_TYPES, InvalidToolCall, parse_tool_call
from labrats.executor.providers.react.observations import Observation
from labrats.executor.providers.react.tool_call_formats import CONSTRAINED, FREE, NATIVE, ToolCallFormat
from labrats.executor.providers.react.transcript import ToolCall, Transcript, Turn

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    "text",
    [
        '{"tool": "read_file", "arguments": {"path": "a"}}',
        'I read it.\n```json\n{"tool": "read_file", "arguments": {"path": "a"}}\n```\nThen I go on.',
        '{"name": "read_file", "parameters": {"path": "a"}}',
        '<tool_call>{"name": "read_file", "arguments": "{\\"path\\": \\"a\\"}"}</tool_call>',
        '{"tool": "read_file", "path": "a"}',
        'With {braces} and {"no": "call"}: {"tool": "read_file", "arguments": {"path": "a"}}',
    ],
)
def test_call_is_found_in_any_surrounding_text(text: str) -> None:
    [call] = FREE.calls_in(Completion(text))
    assert (call.name, call.arguments) == ("read_file", {"path": "a"})


@pytest.mark.parametrize("text", ["", "No call.", '{"tool": 3}', "{" * 100_000, '["tool"]', '{"path": "a"}'])
def test_text_without_a_call_has_no_calls(text: str) -> None:
    assert FREE.calls_in(Completion(text)) == []


@given(before=st.text(), arguments=st.dictionaries(st.text(), JSON_VALUES), after=st.text())
def test_any_call_is_parsed_as_written(before: str, arguments: dict[str, Any], after: str) -> None:
    written = json.dumps({"tool": "x", "arguments": arguments})
    [call] = FREE.calls_in(Completion(before.replace("{", "") + written + after))
    assert (call.name, call.arguments) == ("x", arguments)


@given(name=st.text() | st.sampled_from([kind.tool for kind in ARGUMENT_TYPES]), arguments=JSON_VALUES)
def test_call_is_parsed_or_answered_with_the_valid_form(name: str, arguments: Any) -> None:
    message = error_of(name, arguments)
    assert message is None or "There is no tool" in message or "It takes" in message


def error_of(name: str, arguments: Any) -> str | None:
    """Return the error message of a call; None for a valid call."""
    try:
        parse_tool_call(name, arguments)
    except InvalidToolCall as error:
        return str(error)
    return None


def test_invalid_arguments_are_retained_but_not_rendered() -> None:
    [call] = NATIVE.calls_in(Completion(calls=[RawToolCall("1", "read_file", '{"path": "a')]))
    assert call.arguments == '{"path": "a'
    transcript = Transcript("", "p", (Turn("", [call], [Observation("no", is_error=True)]),))
    assert NATIVE.messages(transcript)[2]["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize("tool_call_format", [NATIVE, CONSTRAINED, FREE])
def test_conversation_can_be_rendered_in_every_format(tool_call_format: ToolCallFormat) -> None:
    calls = [ToolCall("1", "read_file", {"path": "a"}), ToolCall("2", "list_files", {})]
    turns = (Turn("Look.", calls, [Observation("A"), Observation("B", is_error=True)]), Turn("Hm.", remark="Go on."))
    messages = tool_call_format.messages(Transcript("Be brief.", "Do it.", turns))

    assert "Be brief." in messages[0]["content"]
    prompt = messages.index({"role": "user", "content": "Do it."})
    contents = [message["content"] for message in messages[prompt + 1 :]]
    assert any("A" in text for text in contents)
    assert any("B" in text for text in contents)
    assert contents[-2:] == ["Hm.", "Go on."]


@pytest.mark.parametrize("tool_call_format", [CONSTRAINED, FREE])
def test_text_formats_alternate_roles_and_plain_text_has_no_system_role(tool_call_format: ToolCallFormat) -> None:
    truncated = Turn("", [ToolCall("1", "list_files", {})], [Observation("A")], remark="Write less.")
    messages = tool_call_format.messages(Transcript("", "Do it.", (truncated, Turn("Hm.", remark="Go on."))))

    roles = [message["role"] for message in messages if message["role"] != "system"]
    assert all(one != next_one for one, next_one in pairwise(roles))
    assert (messages[0]["role"] == "system") is (tool_call_format is CONSTRAINED)
    assert "Write less." in messages[-3]["content"]


@pytest.mark.parametrize("depth", [90, 5000, 100_000])
def test_too_deeply_nested_arguments_are_rejected(depth: int) -> None:
    nested = "[" * depth + "]" * depth
    [native] = NATIVE.calls_in(Completion(calls=[RawToolCall("1", "x", f'{{"a": {nested}}}')]))
    assert isinstance(native.arguments, dict) is (depth < 100)
    in_text = FREE.calls_in(Completion(f'{{"tool": "x", "arguments": {{"a": {nested}}}}}'))
    assert len(in_text) == (depth < 97)


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    arguments = '{"path": "a \\ud83d.txt", "content": "\\ud83d\\ude00"}'
    calls = [
        *NATIVE.calls_in(Completion(calls=[RawToolCall("1", "write_file", arguments)])),
        *FREE.calls_in(Completion(f'{{"tool": "write_file", "arguments": {arguments}}}')),
        *FREE.calls_in(Completion(f'{{"tool": "write_file", "arguments": {json.dumps(arguments)}}}')),
    ]
    assert [call.arguments for call in calls] == [{"path": "a ?.txt", "content": "😀"}] * 3


def test_every_tool_has_a_schema_and_a_description() -> None:
    offered = {tool["function"]["name"]: tool["function"] for tool in NATIVE.fields["tools"]}
    assert list(offered) == [
        *("read_file", "write_file", "edit_file", "list_files", "search", "run_command", "finish"),
    ]
    assert offered["edit_file"]["parameters"]["required"] == ["path", "old", "new"]
    assert all(tool["description"] for tool in offered.values())
