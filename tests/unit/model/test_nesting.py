import json
import sys

import pytest

from labrats.model.nesting import DEEPEST, cut_off_below, is_too_deep
from labrats.model.protocol import decode_event


@pytest.mark.parametrize(
    ("text", "deepest", "expected"),
    [
        ("1", 0, False),
        ("[]", 0, True),
        ('{"a": [1]}', 2, False),
        ('{"a": [1]}', 1, True),
        ('["[[[[", "}{}{\\"[[["]', 1, False),
        ("[[], [], [], [], [[]]]", 2, True),
        ("[" * 50_000 + "]" * 50_000, 100, True),
        ("[" + "[]," * 50_000 + "[]]", 2, False),
        ('{"a": [' * 3 + '"]]]}}}", "\\\\"' + "]}" * 3, 5, True),
        ('{"a": [' * 3 + '"]]]}}}", "\\\\"' + "]}" * 3, 6, False),
        ('["' + "[" * 50, 2, False),
        ("]" * 9 + "[" * 9, 2, False),
    ],
)
def test_depth_is_counted_outside_of_strings(text: str, deepest: int, expected: bool) -> None:
    assert is_too_deep(text.encode(), deepest) is expected


def test_only_values_nested_too_deeply_are_cut_off() -> None:
    value = {"keep": [1, "]}"], "cut": [[{"a": [2, "[\\"]}], 3], "last": {}}
    cut = {"keep": [1, "]}"], "cut": [None, 3], "last": {}}
    assert json.loads(cut_off_below(json.dumps(value).encode(), 2)) == cut


def test_shallow_json_is_unchanged() -> None:
    assert cut_off_below(b'{"a": [1, 2]}', 2) == b'{"a": [1, 2]}'


def test_json_that_is_too_deep_for_a_decoder_is_decodable_once_cut() -> None:
    deep = b'{"metadata": {"name": "deep"}, "spec": ' + b'{"a":' * 9000 + b"1" + b"}" * 9000 + b"}"
    assert json.loads(cut_off_below(deep, 50))["metadata"] == {"name": "deep"}


@pytest.mark.parametrize("levels", [DEEPEST, 30_000])
def test_an_event_nested_too_deeply_is_skipped(levels: int) -> None:
    line = b'{"seq":1,"at":"2030-01-01T12:00:00Z","kind":"result","result":' + b"[" * levels + b"]" * levels + b"}"
    assert decode_event(line) is None


def test_a_line_of_brackets_is_measured_without_a_step_of_python_for_each() -> None:
    """The leader measures each line of all executors."""
    line = b"[" + b"[]," * 21_000 + b"[]]"
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        assert not is_too_deep(line)
    finally:
        sys.setprofile(None)
    assert steps < 100
