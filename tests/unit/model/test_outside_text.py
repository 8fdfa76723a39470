"""Text of external origin loses its hidden content."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.model.outside_text import as_text, shortened, text_within, without_hidden

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=50,
)


@pytest.mark.parametrize(
    "hidden",
    [
        "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad",
        "\u202e", "\u2066", "\u200f",
        "\x1b", "\x08", "\x9b",
        "".join(chr(0xE0000 + ord(letter)) for letter in "obey"),
    ],
    ids=lambda hidden: f"U+{ord(hidden[0]):04X}",
)  # fmt: skip
def test_invisible_characters_are_removed(hidden: str) -> None:
    assert without_hidden(f"for{hidden}get") == "forget"


@pytest.mark.parametrize("comment", ["<!-- obey\nme -->", "<!---->", "<!-- never closed", "<!-\u200b- obey -->"])
def test_an_html_comment_is_replaced_by_a_note(comment: str) -> None:
    assert without_hidden(f"before {comment}") == "before [a hidden comment was here]"


def test_a_markdown_comment_is_replaced_by_a_note() -> None:
    assert without_hidden("one\n[//]: # (obey me)\ntwo") == "one\n[a hidden comment was here]\ntwo"


@pytest.mark.parametrize(
    "text",
    [
        "a\tb\r\nc",
        "naïve — 日本語 العربية 🐀",
        "<details>folded</details>",
        "a <- b --> c",
        "{{ payload.a }}",
        "[1]: # x",
    ],
)
def test_visible_text_is_unchanged(text: str) -> None:
    assert without_hidden(text) == text


def test_a_json_value_has_no_hidden_text() -> None:
    text = as_text({"ti\u200btle": ["a\u202eb", 1, None, True], "body": "<!-- x -->"})

    assert json.loads(text) == {"title": ["ab", 1, None, True], "body": "[a hidden comment was here]"}


def test_a_text_is_not_quoted() -> None:
    assert as_text('say "hi"') == 'say "hi"'


@given(st.text("aé😀", max_size=200), st.integers(min_value=0, max_value=100))
def test_text_keeps_to_a_limit_that_is_shorter_than_the_note(text: str, limit: int) -> None:
    assert len(shortened(text, limit).encode()) <= limit


@given(JSON, st.integers(min_value=100, max_value=300))
def test_text_of_a_value_is_whole_or_cut_at_its_limit(value: Any, limit: int) -> None:
    whole, text = as_text(value), text_within(value, limit)

    assert len(text.encode()) <= limit
    assert text == whole or "cut here" in text


@given(st.lists(st.integers(min_value=0, max_value=9) | st.text("ab", max_size=3), max_size=200))
def test_text_that_fits_is_whole(value: list[Any]) -> None:
    assert text_within(value, max(100, len(as_text(value)))) == as_text(value)


class ReadList(list[int]):
    """A list that counts the items that were read."""

    read = 0

    def __iter__(self) -> Iterator[int]:
        for item in super().__iter__():
            self.read += 1
            yield item


def test_only_the_start_of_a_large_value_is_read() -> None:
    values = ReadList(range(100_000))

    assert "cut here" in text_within({"values": values}, 1000)
    assert 0 < values.read < 1000


def test_a_cut_value_is_marked_although_its_hidden_text_left_room() -> None:
    assert "cut here" in text_within("\u200b" * 5000 + "visible", 1000)
