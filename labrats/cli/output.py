"""Printing: tables and colours on a terminal, plain aligned text elsewhere.

Results go to stdout and messages to stderr, so that a pipe carries only results. Much of the printed text comes from
jobs and is untrusted: on a terminal it must not move the cursor, change colours or forge other output.
"""

import json
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.text import Text

STATUS_STYLES: Final = {
    "waiting": "yellow",
    "active": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
}

_GAP: Final = "  "
_MIN_COLUMN_WIDTH: Final = 8
"""The minimum width to which a column is shrunk, even if the table then exceeds the terminal."""

_ESCAPE_SEQUENCE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]"  # CSI: colours, cursor moves
    # OSC, DCS …: titles, links, clipboard
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*+(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
_HARMFUL_CATEGORIES: Final = {"Cc", "Cf", "Cs"}  # control, invisible format such as bidi overrides, surrogate
_HARMLESS: Final = "\n\t\u200d"  # \u200d joins emoji


@dataclass(frozen=True)
class Styled:
    """The text of a table cell and its rich style."""

    text: str
    style: str


Cell = str | Styled


def status_cell(status: str) -> Styled:
    return Styled(status, STATUS_STYLES.get(status, ""))


def terminal_safe(text: str) -> str:
    """Return `text` without escape sequences and control characters. Line ends and tabs stay."""
    plain = _ESCAPE_SEQUENCE.sub("", text)
    return "".join(c for c in plain if c in _HARMLESS or unicodedata.category(c) not in _HARMFUL_CATEGORIES)


def print_text(text: str) -> None:
    """Print untrusted text: unchanged to a pipe, made safe on a terminal."""
    print(terminal_safe(text) if sys.stdout.isatty() else text, flush=True)


def print_stderr(text: str) -> None:
    """Print a message to stderr, made safe on a terminal."""
    print(terminal_safe(text) if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def print_warnings(answer: Mapping[str, Any]) -> None:
    """Print the warnings in an answer of the API to stderr."""
    for warning in answer.get("warnings", ()):
        print_stderr(f"warning: {warning}")


def print_value(value: Any) -> None:
    """Print a JSON value for people: a string as text, any other value as indented JSON."""
    print_text(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, wrap: bool = False) -> None:
    """Print one line per row with aligned columns. Only on a terminal are cells cut to fit the width.

    wrap: continue the last cell of a row on further lines instead.
    """
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        for line in fitted_lines(headings, rows, console.width, wrap=wrap):
            console.print(line, no_wrap=True, crop=False, overflow="ignore")
    else:
        _print_aligned(headings, [_printable(row) for row in rows])


def fitted_lines(
    headings: Sequence[str], rows: Sequence[Sequence[Cell]], width: int, *, wrap: bool = False
) -> "list[Text]":
    """Return the lines of a table, the headings first, with cells cut so that they fit into `width` columns.

    wrap: as in `print_table`.
    """
    from rich.cells import cell_len
    from rich.text import Text

    lines = [[Styled(heading, "bold") for heading in headings], *(_printable(row) for row in rows)]
    widths = [max(cell_len(cell.text) for cell in column) for column in zip(*lines, strict=True)]
    _shrink_columns(widths, width - len(_GAP) * (len(headings) - 1))
    if wrap:
        lines = [part for line in lines for part in _wrapped(line, max(widths[-1], _MIN_COLUMN_WIDTH))]
    fitted = []
    for line in lines:
        cells = [Text(cell.text, style=cell.style) for cell in line]
        for cell, cell_width in zip(cells, widths, strict=True):
            cell.truncate(cell_width, overflow="ellipsis", pad=True)
        fitted.append(Text(_GAP).join(cells))
    return fitted


def _wrapped(line: Sequence[Styled], width: int) -> Iterator[list[Styled]]:
    """Yield a line of a table, and further ones with the words of its last cell that do not fit into `width`."""
    *first, last = line
    for part in textwrap.wrap(last.text, width) or [""]:
        yield [*first, Styled(part, last.style)]
        first = [Styled("", "") for _ in first]


def one_line(text: str) -> str:
    """Return `text` on one line, safe for a terminal."""
    return " ".join(terminal_safe(text).split())


def _printable(row: Sequence[Cell]) -> list[Styled]:
    return [Styled(one_line(_text(cell)), _style(cell)) for cell in row]


def _text(cell: Cell) -> str:
    return cell.text if isinstance(cell, Styled) else cell


def _style(cell: Cell) -> str:
    return cell.style if isinstance(cell, Styled) else ""


def _print_aligned(headings: Sequence[str], rows: Sequence[Sequence[Styled]]) -> None:
    texts = [list(headings), *([cell.text for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print(_GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _shrink_columns(widths: list[int], room: int) -> None:
    """Shrink columns, the last first, until they fit into `room`. The first column is never cut: people copy it."""
    for column in range(len(widths) - 1, 0, -1):
        excess = max(0, sum(widths) - room)
        widths[column] -= min(excess, max(0, widths[column] - _MIN_COLUMN_WIDTH))


def paint(text: str, style: str) -> str:
    """Return `text` in a style if stdout is a terminal with colours; otherwise return it unchanged."""
    if not sys.stdout.isatty():
        return text
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(Text(text, style=style), end="", soft_wrap=True)
    return captured.get()
