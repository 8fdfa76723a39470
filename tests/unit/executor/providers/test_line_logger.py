"""Tests of logging a text while it arrives."""

import os
from pathlib import Path

import pytest

from labrats.executor.event_lines import EventLines
from labrats.executor.event_writer import EventWriter
from labrats.executor.providers.line_logger import LineLogger
from labrats.model.redaction import Redactor
from tests.unit.executor.attempts import events_in, logs_of

SECRET = "correct horse battery staple"


def log_of(tmp_path: Path, text: str, step: int, *, complete: bool = True) -> list[str]:
    """Return the log of a text that arrives in pieces of `step` characters."""
    output = tmp_path / "output.jsonl"
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
    try:
        lines = LineLogger(EventWriter(EventLines(descriptor, None), Redactor([SECRET])), "> ")
        for start in range(0, len(text), step):
            lines.add(text[start : start + step])
        if complete:
            lines.end()
    finally:
        os.close(descriptor)
    return logs_of(events_in(output))


def test_each_line_is_logged_when_it_ends_and_the_rest_at_the_end(tmp_path: Path) -> None:
    assert log_of(tmp_path, "one\n\ntwo\nthr", 3) == ["> one", ">", "> two", "> thr"]


def test_long_line_is_logged_in_parts_of_whole_words(tmp_path: Path) -> None:
    text = "".join(f"word{number} " for number in range(200))

    parts = log_of(tmp_path, text, 11, complete=False)

    assert len(parts) > 4
    words = " ".join(part.removeprefix("> ") for part in parts).split()
    assert words == text.split()[: len(words)]


def test_long_line_without_spaces_is_split_after_punctuation(tmp_path: Path) -> None:
    parts = log_of(tmp_path, "我们在这里，你们在那里。" * 60, 5)

    assert len(parts) > 2
    assert all(part[-1] in "，。" for part in parts)


@pytest.mark.parametrize("before", range(170, 230, 7))
@pytest.mark.parametrize("step", [1, 13])
def test_line_is_not_split_inside_a_secret_with_spaces(tmp_path: Path, before: int, step: int) -> None:
    text = ("x " * 150)[:before] + " " + SECRET + " and so on" * 30

    shown = " ".join(log_of(tmp_path, text, step))

    assert not any(word in shown for word in SECRET.split())
    assert "[redacted]" in shown
