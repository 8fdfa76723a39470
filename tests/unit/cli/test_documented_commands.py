"""The documentation: every `labrats` command in it parses."""

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
    "docs/jobs.md",
    "docs/kubernetes.md",
    "docs/operate.md",
    "docs/providers.md",
    "docs/sandbox.md",
    "docs/start-kubernetes.md",
    "docs/start-laptop.md",
    "docs/start-team.md",
)


def shell_lines(page: str) -> Iterator[list[str]]:
    """Yield the words of each command in the shell blocks of `page`. A command may span lines."""
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        text = ""
        for line in block.replace("\\\n", " ").splitlines(keepends=True):
            text += line
            try:
                words = shlex.split(text, comments=True)
            except ValueError:  # a quotation continues
                continue
            yield words
            text = ""


def labrats_commands() -> Iterator[list[str]]:
    """Yield the arguments of each `labrats` command, without redirections and pipes."""
    for page in PAGES:
        for words in shell_lines(page):
            words = list(dropwhile(lambda word: "=" in word, words))  # variables set for the command
            if words and words[0].rpartition("/")[2] == "labrats":
                rest = words[1:]
                yield rest[: next((at for at, word in enumerate(rest) if word in {"|", "<", ">"}), None)]


@pytest.mark.parametrize("arguments", list(labrats_commands()), ids=" ".join)
def test_documented_command_parses(own_engine: OwnEngine, arguments: list[str]) -> None:
    build_app(own_engine).parse_args(arguments)


def test_documentation_has_more_than_20_commands() -> None:
    assert len(list(labrats_commands())) > 20
