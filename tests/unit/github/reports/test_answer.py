"""The answer to a command has no active part, whatever the command was."""

from labrats.github.reports.answer import answer_body


def test_words_of_a_command_stay_inactive_in_its_answer() -> None:
    body = answer_body("comment-1", "No job of `x`@octo![x](https://evil.example/a)` here.")
    assert body.startswith("<!-- labrats:answer comment-1 -->\n\n<!-- labrats:agent -->\n")
    assert body.endswith("No job of `x`@\u200bocto![x](https\u200b:/\u200b/evil.example/a)` here.")
