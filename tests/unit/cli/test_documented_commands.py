"""Every command in the documentation is one that the command line understands."""

import re
import shlex
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path

import pytest

from labrats.cli.app import build_app
from tests.unit.cli.engines import OwnEngine

ROOT = Path(__file__).parents[3]
PAGES = (
    "README.md",
    "docs/agents.md",
    "docs/callbacks.md",
    "docs/develop.md",
    "docs/kubernetes.md",
    "docs/operate.md",
)


def shell_lines(page: str) -> Iterator[list[str]]:
    """The words of each command in the shell blocks of `page`, those that span lines included."""
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        text = ""
        for line in block.splitlines(keepends=True):
            text += line
            try:
                words = shlex.split(text, comments=True)
            except ValueError:  # a quotation, or an escaped line end, goes on
                continue
            yield words
            text = ""


def labrats_commands() -> Iterator[list[str]]:
    """The arguments of each `labrats` in the documentation, up to where its output goes elsewhere."""
    for page in PAGES:
        for words in shell_lines(page):
            words = list(dropwhile(lambda word: "=" in word, words))  # what is set for the command
            if words and words[0].rpartition("/")[2] == "labrats":
                rest = words[1:]
                yield rest[: next((at for at, word in enumerate(rest) if word in {"|", "<", ">"}), None)]


@pytest.mark.parametrize("arguments", list(labrats_commands()), ids=" ".join)
def test_a_documented_command_is_understood(own_engine: OwnEngine, arguments: list[str]) -> None:
    build_app(own_engine).parse_args(arguments)


def test_the_documentation_shows_commands() -> None:
    assert len(list(labrats_commands())) > 20
