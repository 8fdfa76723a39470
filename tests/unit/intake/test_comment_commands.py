"""The commands that a comment has, and those it does not have."""

import pytest

from labrats.intake.comment_commands import Command, command_in
from labrats.model.thread_requests import ThreadAction


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/labrats cancel", Command(ThreadAction.CANCEL)),
        ("/labrats Cancel ai-developer", Command(ThreadAction.CANCEL, agent="ai-developer")),
        ("Please\r\n/labrats retry  model=opus\r\nThanks", Command(ThreadAction.RETRY, model="opus")),
        ("/labrats run ai-reviewer model=a/b=c", Command(ThreadAction.RUN, agent="ai-reviewer", model="a/b=c")),
        ("/labrats", Command(ThreadAction.HELP)),
        ("~~~\n/labrats retry\n~~~\n/labrats cancel", Command(ThreadAction.CANCEL)),
        ("````\n```\n/labrats retry\n```\n````\n/labrats cancel", Command(ThreadAction.CANCEL)),
        ("```make``` fails\n/labrats retry", Command(ThreadAction.RETRY)),
    ],
)
def test_a_line_with_the_word_is_a_command(text: str, command: Command) -> None:
    assert command_in(text) == command


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I wrote /labrats cancel",
        " /labrats cancel",
        "> /labrats cancel",
        "/labratsx cancel",
        "```sh\n/labrats cancel\n```",
        "```\n/labrats cancel",
        "````\n```\n/labrats cancel\n```\n````",
        "```\n```sh\n/labrats cancel\n```",
        "```\n    ```\n/labrats cancel\n```",
        "> please look\u2028/labrats cancel",
        "> please look\u2029/labrats cancel",
        "> please look\r/labrats cancel",
        "<!-- \n/labrats cancel\n-->",
    ],
)
def test_other_text_has_no_command(text: str) -> None:
    assert command_in(text) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("/labrats dance", "`dance` is no command."),
        ("/labrats run", "`/labrats run` needs the name of an agent."),
        ("/labrats run a b", "`/labrats run` takes one agent at most, and one model."),
        ("/labrats retry model=", "`model=` is no option: there is only `model=MODEL`."),
        ("/labrats cancel model=a", "`/labrats cancel` takes no model."),
        (f"/labrats run {'a' * 201}", "`/labrats run` takes one agent at most, and one model."),
        ("/labrats da`nce", "`dance` is no command."),
    ],
)
def test_a_wrong_command_says_what_is_wrong(text: str, problem: str) -> None:
    command = command_in(text)
    assert command
    assert command.problem == problem
