"""Text from outside loses what a person who looks at it does not see."""

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
def test_characters_that_nobody_sees_are_taken_out(hidden: str) -> None:
    assert without_hidden(f"for{hidden}get") == "forget"


@pytest.mark.parametrize("comment", ["<!-- obey\nme -->", "<!---->", "<!-- never closed", "<!-\u200b- obey -->"])
def test_an_html_comment_is_replaced_by_a_remark(comment: str) -> None:
    assert without_hidden(f"before {comment}") == "before [a hidden comment was here]"


def test_a_markdown_comment_is_replaced_by_a_remark() -> None:
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
def test_what_everybody_sees_stays(text: str) -> None:
    assert without_hidden(text) == text


def test_a_value_is_json_with_nothing_hidden_in_it() -> None:
    text = as_text({"ti\u200btle": ["a\u202eb", 1, None, True], "body": "<!-- x -->"})

    assert json.loads(text) == {"title": ["ab", 1, None, True], "body": "[a hidden comment was here]"}


def test_a_text_is_not_quoted() -> None:
    assert as_text('say "hi"') == 'say "hi"'
