"""How commands print: tables and colours on a terminal, plain aligned text elsewhere.

Results go to stdout, remarks about them to stderr, so that a pipe carries only results. Much of what is printed comes
from jobs, so from outside: on a terminal it must not be able to move the cursor, recolour or forge what is there.
"""

import json
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

STATUS_STYLES: Final = {
    "waiting": "yellow",
    "active": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
}

_GAP: Final = "  "
_NARROWEST: Final = 8
"""No column of a table is made narrower than this, however narrow the terminal."""

_ESCAPE_SEQUENCE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor moves
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS …: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"
)
_HARMFUL_CATEGORIES: Final = {"Cc", "Cf", "Cs"}  # controls, invisible formatting such as bidi overrides, surrogates
_HARMLESS: Final = "\n\t\u200d"  # the joiner of emoji stays


@dataclass(frozen=True)
class Styled:
    """Text with a rich style, for a table's cell."""

    text: str
    style: str


Cell = str | Styled


def status_cell(status: str) -> Styled:
    return Styled(status, STATUS_STYLES.get(status, ""))


def terminal_safe(text: str) -> str:
    """`text` without escape sequences and control characters; line ends and tabs stay."""
    bare = _ESCAPE_SEQUENCE.sub("", text)
    return "".join(c for c in bare if c in _HARMLESS or unicodedata.category(c) not in _HARMFUL_CATEGORIES)


def print_text(text: str) -> None:
    """Print text from outside: as it is into a pipe, made safe on a terminal."""
    print(terminal_safe(text) if sys.stdout.isatty() else text, flush=True)


def remark(text: str) -> None:
    """Say something about what is going on, beside the result."""
    print(terminal_safe(text) if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def print_warnings(answer: Mapping[str, Any]) -> None:
    """Repeat what the engine's answer warns of."""
    for warning in answer.get("warnings", ()):
        remark(f"warning: {warning}")


def print_value(value: Any) -> None:
    """Print any JSON value for people: text as text, the rest as indented JSON."""
    print_text(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """One line a row, columns aligned; fitted to its width on a terminal, never cut elsewhere."""
    lines = [[Styled(one_line(_text(cell)), _style(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_fitted(headings, lines)
    else:
        _print_aligned(headings, lines)


def one_line(text: str) -> str:
    """`text` on a single line, safe anywhere."""
    return " ".join(terminal_safe(text).split())


def _text(cell: Cell) -> str:
    return cell.text if isinstance(cell, Styled) else cell


def _style(cell: Cell) -> str:
    return cell.style if isinstance(cell, Styled) else ""


def _print_aligned(headings: Sequence[str], rows: Sequence[Sequence[Styled]]) -> None:
    texts = [list(headings), *([cell.text for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print(_GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _print_fitted(headings: Sequence[str], rows: Sequence[Sequence[Styled]]) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    lines = [[Styled(heading, "bold") for heading in headings], *rows]
    widths = [max(cell_len(cell.text) for cell in column) for column in zip(*lines, strict=True)]
    _narrow(widths, console.width - len(_GAP) * (len(headings) - 1))
    for line in lines:
        cells = [Text(cell.text, style=cell.style) for cell in line]
        for cell, width in zip(cells, widths, strict=True):
            cell.truncate(width, overflow="ellipsis", pad=True)
        console.print(Text(_GAP).join(cells), no_wrap=True, crop=False, overflow="ignore")


def _narrow(widths: list[int], room: int) -> None:
    """Take from the last columns first what does not fit into `room`; the first, which people copy, is never cut."""
    for column in range(len(widths) - 1, 0, -1):
        excess = max(0, sum(widths) - room)
        widths[column] -= min(excess, max(0, widths[column] - _NARROWEST))


def paint(text: str, style: str) -> str:
    """`text` in a colour when stdout is a terminal that wants colours, else as it is."""
    if not sys.stdout.isatty():
        return text
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    with console.capture() as painted:
        console.print(Text(text, style=style), end="", soft_wrap=True)
    return painted.get()
