"""Printed text and tables. Untrusted text must not control the terminal."""

import sys
from collections.abc import Callable

import pytest

from labrats.cli.output import Styled, one_line, paint, print_stderr, print_table, print_text, terminal_safe


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that makes stdout a terminal with 60 columns."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm-256color")
    return lambda: monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("Zoë 🧀 👩\u200d🔬", "Zoë 🧀 👩\u200d🔬"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]8;;http://example.com\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;c2VjcmV0\x07", ""),
        ("\x9b31mred", "red"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("\x1b]0;never ended", "0;never ended"),
        ("over\rwrite\x08\x7f", "overwrite"),
        ("admin\u202etxt.exe", "admintxt.exe"),
        ("\ud800", ""),
    ],
)
def test_terminal_safe_removes_control_sequences_only(text: str, safe: str) -> None:
    assert terminal_safe(text) == safe


@pytest.mark.parametrize("start", ["\x9d", "\x9b", "\x1b]", "\x1b[", "\x1b[0;", "\x1b "])
def test_terminal_safe_takes_linear_time(start: str) -> None:
    """With quadratic time, this would take many minutes."""
    assert "\x1b" not in terminal_safe(start * 500_000)


def test_text_in_a_pipe_is_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("\x1b[31mred\x1b[0m")
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m\n"


def test_text_on_a_terminal_is_made_safe(on_terminal: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    on_terminal()
    print_text("\x1b[31mred\x1b[0m")
    assert capsys.readouterr().out == "red\n"


def test_print_stderr_writes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_stderr("by the way")
    assert capsys.readouterr() == ("", "by the way\n")


def test_one_line_joins_lines() -> None:
    assert one_line("a\n  b\t\x1b[1mc") == "a b c"


def test_table_in_a_pipe_is_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        ["ID", "STATUS", "REASON"], [["ir-1", Styled("failed", "red"), "a\nb " + "c" * 200], ["ir-22", "x", ""]]
    )
    assert capsys.readouterr().out == f"ID     STATUS  REASON\nir-1   failed  a b {'c' * 200}\nir-22  x\n"


def test_empty_table_shows_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["ID", "STATUS"], [])
    assert capsys.readouterr().out == "ID  STATUS\n"


def test_table_on_a_terminal_is_coloured_and_fits_the_width(
    on_terminal: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal()
    print_table(["ID", "STATUS", "REASON"], [["ir-3ab1c2d4", Styled("failed", "red"), "[bold]no markup " + "c" * 200]])
    _, row = capsys.readouterr().out.splitlines()
    assert "\x1b[31mfailed" in row
    assert "ir-3ab1c2d4" in row
    assert "[bold]no markup" in row
    assert len(terminal_safe(row)) == 60
    assert terminal_safe(row).endswith("…")


def test_first_column_is_never_cut(on_terminal: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    on_terminal()
    print_table(["ID", "A", "B", "C"], [["ir-3ab1c2d4", "a" * 20, "b" * 50, "c" * 50]])
    assert capsys.readouterr().out.splitlines()[1] == f"ir-3ab1c2d4  {'a' * 20}  {'b' * 14}…  ccccccc…"


def test_paint_colours_on_a_terminal(on_terminal: Callable[[], None]) -> None:
    on_terminal()
    assert paint("failed", "red") == "\x1b[31mfailed\x1b[0m"


def test_paint_leaves_text_unchanged_in_a_pipe() -> None:
    assert paint("failed", "red") == "failed"


def test_paint_respects_no_color(on_terminal: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("failed", "red") == "failed"
