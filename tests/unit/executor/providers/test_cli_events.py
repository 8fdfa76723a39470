"""Tests of reading the lines that an agent's program prints."""

import msgspec
import pytest

from labrats.executor.providers import cli_events
from labrats.executor.providers.cli_events import decode_line


@pytest.mark.parametrize("part", [b"[],", b"1,"], ids=["arrays", "numbers"])
def test_line_that_takes_many_times_its_size_in_memory_is_no_event(part: bytes) -> None:
    decoder = msgspec.json.Decoder(dict[str, list[object]])
    assert decode_line(decoder, b'{"a":[' + part * 400_000 + b"1]}") is not None
    assert decode_line(decoder, b'{"a":[' + part * 600_000 + b"1]}") is None


def test_line_of_quotes_keeps_no_other_thread_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """To measure its nesting would take seconds."""
    monkeypatch.setattr(cli_events, "is_too_deep", lambda _: pytest.fail("measured"))
    decoder = msgspec.json.Decoder(list[object])
    assert decode_line(decoder, b"[" * 101 + b'"' * 57_000_000) is None


@pytest.mark.parametrize(("letters", "is_read"), [(4_000_000, True), (5_000_000, False)])
def test_cut_character_is_repaired_unless_the_line_is_very_long(letters: int, is_read: bool) -> None:
    decoder = msgspec.json.Decoder(list[str])
    found = decode_line(decoder, b'["' + b"x" * letters + b'\xc3"]')
    assert (found == ["x" * letters + "\ufffd"]) is is_read
