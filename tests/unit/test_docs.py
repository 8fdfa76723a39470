"""The documentation agrees with the code where that can be checked."""

import ast
import re
from pathlib import Path

from labrats.model.phases import MOVES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAMED_TEST = re.compile(r"\btests/[\w/-]+\.py(?:::\w+)*")
PROMISE = re.compile(r"^\| [A-Z]\d+ \|")
DEFINITIONS = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def test_the_diagram_of_a_job_shows_the_table_of_moves() -> None:
    drawn = {
        line.strip()
        for line in (DOCS / "architecture.md").read_text().splitlines()
        if "-->" in line and ": " in line and "[" not in line
    }
    assert drawn == {f"{before} --> {after}: {event}" for (before, event), after in MOVES.items()}


def test_every_test_that_a_page_names_exists() -> None:
    named = {
        (page.name, name)
        for page in (ROOT / "README.md", *DOCS.glob("*.md"))
        for name in NAMED_TEST.findall(page.read_text())
    }
    assert len(named) > 100
    assert sorted((page, name) for page, name in named if not exists(name)) == []


def test_every_promise_names_a_test_or_says_that_there_is_none() -> None:
    rows = [line for line in (DOCS / "reliability.md").read_text().splitlines() if PROMISE.match(line)]
    assert len(rows) > 70
    tests = [row.split(" | ")[2] for row in rows]
    assert [each for each in tests if each != "no test" and not NAMED_TEST.search(each)] == []


def exists(name: str) -> bool:
    """Return whether the file exists, and the class and function in it, as in `tests/a/test_b.py::TestC::test_d`."""
    path, *names = name.split("::")
    if not (ROOT / path).is_file():
        return False
    body = ast.parse((ROOT / path).read_text()).body
    for each in names:
        found = [node for node in body if isinstance(node, DEFINITIONS) and node.name == each]
        if not found:
            return False
        body = found[0].body
    return True
