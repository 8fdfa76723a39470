"""Text of external origin loses its hidden content."""

import json

import pytest

from labrats.model.outside_text import as_text, without_hidden


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
