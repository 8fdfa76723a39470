"""List the tests of a revision beside those of the working tree: `scripts/compare_tests.py BASE`.

Prints `old -> new` for each test that was moved or renamed, and `- old` for each that is gone, then the counts. Exits
with 1 when a test is gone. Tests are paired by name and by the words of their bodies, so edits of a body are tolerated.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

FOLDER = "tests"
SIMILAR = 0.3
"""Least share of common words at which two bodies are taken for the same test."""


@dataclass(frozen=True)
class Test:
    """A test function. body: its source without its name and docstring."""

    file: str
    name: str
    body: str

    @property
    def id(self) -> str:
        return f"{self.file}::{self.name}"

    @cached_property
    def words(self) -> Counter[str]:
        return Counter(re.findall(r"\w+", self.body))

    def similarity(self, other: "Test") -> float:
        """Return the share of words that both bodies contain, from 0 to 1."""
        common, total = (self.words & other.words).total(), (self.words | other.words).total()
        return common / total if total else 1.0


def main(base: str) -> int:
    """Print the pairs and the counts. Return 1 when a test of `base` has no counterpart."""
    old = [test for file, text in files_at(base).items() for test in tests_in(file, text)]
    new = [test for file, text in files_here().items() for test in tests_in(file, text)]
    pairs = pair(old, new)
    for test in old:
        if test not in pairs:
            print(f"- {test.id}")
        elif pairs[test].id != test.id:
            print(f"{test.id} -> {pairs[test].id}")
    gone = len(old) - len(pairs)
    print(f"{len(old)} tests before, {len(new)} now: {len(pairs)} paired, {gone} gone, {len(new) - len(pairs)} added")
    return 1 if gone else 0


def pair(old: list[Test], new: list[Test]) -> dict[Test, Test]:
    """Map old tests to new ones: first by id, then by a name that is unique, then by body."""
    pairs: dict[Test, Test] = {}
    free = set(new)
    keys: tuple[Callable[[Test], str], ...] = (lambda test: test.id, lambda test: test.name)
    for key in keys:
        left = [test for test in old if test not in pairs]
        before, after = Counter(map(key, left)), Counter(map(key, free))
        by_key = {key(test): test for test in free}
        for test in left:
            if before[key(test)] == after[key(test)] == 1 and test.similarity(by_key[key(test)]) >= SIMILAR:
                pairs[test] = by_key[key(test)]
                free.discard(pairs[test])
    homes = {test.file: other.file for test, other in pairs.items()}
    unpaired = [test for test in old if test not in pairs]
    ranked = sorted(
        ((similarity + nearness(test, other, homes), index, test, other) for index, test in enumerate(unpaired)
         for other in free if (similarity := test.similarity(other)) >= SIMILAR),
        key=lambda entry: (-entry[0], entry[1], entry[3].id),
    )  # fmt: skip
    for _, _, test, other in ranked:
        if test not in pairs and other in free:
            pairs[test] = other
            free.discard(other)
    return pairs


def nearness(test: Test, other: Test, homes: Mapping[str, str]) -> float:
    """Prefer counterparts in the file to which other tests of the same file have moved, then in the same folder."""
    if other.file == homes.get(test.file, test.file):
        return 0.3
    return 0.001 if PurePath(test.file).parent == PurePath(other.file).parent else 0.0


def files_at(revision: str) -> Mapping[str, str]:
    """Read the test files of a revision: {path: text}."""
    listed = git("ls-tree", "-r", "--name-only", revision, FOLDER).splitlines()
    return {path: git("show", f"{revision}:{path}") for path in listed if is_test_file(path)}


def files_here() -> Mapping[str, str]:
    """Read the test files of the working tree: {path: text}."""
    paths = (str(path) for path in sorted(Path(FOLDER).rglob("test_*.py")))
    return {path: Path(path).read_text() for path in paths if is_test_file(path)}


def is_test_file(path: str) -> bool:
    """Return whether pytest collects tests from the file."""
    return re.search(r"(^|/)test_\w+\.py$", path) is not None and "node_modules" not in path


def tests_in(file: str, text: str) -> Iterator[Test]:
    """Yield the test functions of a file, in order."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            statements = node.body[1:] if ast.get_docstring(node) else node.body
            parts = [node.args, *node.decorator_list, *statements]
            yield Test(file, node.name, "\n".join(map(ast.unparse, parts)))


def git(*arguments: str) -> str:
    """Return what a git command prints."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
