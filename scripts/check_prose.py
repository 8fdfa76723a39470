"""Check the openings of docstrings, the names of tests and the subjects of commits: `make lint` runs it.

It finds patterns; a reader has to judge the meaning (see "Style" in docs/develop.md). Arguments are files or folders to
check instead of all.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("labrats", "tests", "benchmarks", "scripts")
OPENING = re.compile(r"(What|Whether|Who|Whom|Whose|How|Where|That|Those|Of|For how)\b")
TEST_NAME = re.compile(r"test_(what|it|who|how|where)_")
SUBJECT_LENGTH = 72
OLDER_COMMITS = "a5e7ee2"
"""The last commit before the rule on subjects."""


def main(paths: list[str]) -> int:
    """Print each finding as `file:line: message`. Return 1 when there is one."""
    files = [file for path in paths or FOLDERS for file in python_files(Path(path))]
    findings = [finding for file in files for finding in findings_in(file)]
    if not paths:
        findings += long_subjects()
    print(*findings, sep="\n", end="\n" if findings else "")
    print(f"Checked {len(files)} files: {len(findings)} findings.")
    return 1 if findings else 0


def python_files(path: Path) -> list[Path]:
    """List the Python files below a folder, or the file itself."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*.py") if "node_modules" not in file.parts)


def findings_in(file: Path) -> Iterator[str]:
    """Yield a message for each docstring and test name that opens with a refused word."""
    tree = ast.parse(file.read_text())
    for line, text in docstrings(tree):
        if found := OPENING.match(text.lstrip()):
            yield f"{file}:{line}: a docstring opens with {found[0]!r}; start with a verb or a noun phrase"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and TEST_NAME.match(node.name):
            yield f"{file}:{node.lineno}: {node.name} names no subject; state subject and expectation"


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every string that stands as a statement: of modules, classes, functions, names."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def long_subjects() -> Iterator[str]:
    """Yield a message for each commit whose subject is too long; nothing without the history."""
    command = ["git", "log", "--no-merges", "--format=%h %s", f"{OLDER_COMMITS}..HEAD"]
    log = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in log.splitlines():
        commit, _, subject = line.partition(" ")
        if len(subject) > SUBJECT_LENGTH:
            yield f"{commit}: the subject has {len(subject)} characters; at most {SUBJECT_LENGTH} are allowed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
