"""The documentation agrees with the code where that can be checked."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from labrats.api.schemas.report import ReportBody
from labrats.model.phases import MOVES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
BLOCK = re.compile(r"^ *```(json|yaml)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
CONFLICT = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
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
    named = {(page.name, name) for page in PAGES for name in NAMED_TEST.findall(page.read_text())}
    assert len(named) > 100
    assert sorted((page, name) for page, name in named if not exists(name)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_on_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = LINK.findall(FENCED.sub("", page.read_text()))
    assert [link for link in links if not leads_somewhere(page, *link)] == []


@pytest.mark.parametrize("page", sorted(DOCS.glob("start-*.md")), ids=lambda page: page.stem)
def test_start_page_fits_on_a_screen(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= 60


def test_first_hour_on_a_laptop_takes_few_commands() -> None:
    """FIRST-HOUR promises 5 commands to a job of the own agent, and 12 to a comment on GitHub."""
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / "start-laptop.md").read_text(), re.DOTALL)
    commands = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    assert commands.index("labrats connect claude") < 5
    assert commands.index("labrats connect github") < 12


def test_pages_have_links_with_anchors() -> None:
    assert sum(bool(anchor) for page in PAGES for _, anchor in LINK.findall(page.read_text())) > 100


def test_every_promise_names_a_test_or_says_that_there_is_none() -> None:
    rows = [line for line in (DOCS / "reliability.md").read_text().splitlines() if PROMISE.match(line)]
    assert len(rows) > 70
    tests = [row.split(" | ")[2] for row in rows]
    assert [each for each in tests if each != "no test" and not NAMED_TEST.search(each)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_on_a_page_can_be_read(page: Path) -> None:
    text = page.read_text()
    assert not CONFLICT.search(text)
    for document in documents(text):
        if isinstance(document, dict) and "report" in document:
            ReportBody.model_validate(document["report"])


def documents(text: str) -> Iterator[object]:
    """Yield the documents of each block of YAML or JSON. Those of JSON may follow one another."""
    for language, block in BLOCK.findall(text):
        if language == "yaml":
            yield from yaml.safe_load_all(block)
        else:
            rest = block.strip()
            while rest:
                document, end = json.JSONDecoder().raw_decode(rest)
                yield document
                rest = rest[end:].lstrip()


def leads_somewhere(page: Path, target: str, anchor: str) -> bool:
    """Return whether the file exists and, with an anchor, has the heading. target: relative to `page`; empty for it."""
    file = page.parent / target if target else page
    return file.is_file() and (not anchor or anchor in anchors(file))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page, which has no two equal headings."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    found = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(found) == len(set(found)), page
    return set(found)


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
