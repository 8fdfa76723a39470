"""Tests of reading the lines that an agent's program prints."""

import msgspec
import pytest

from labrats.executor.providers.cli_events import decode_line


@pytest.mark.parametrize("part", [b"[],", b"1,"], ids=["arrays", "numbers"])
def test_line_that_takes_many_times_its_size_in_memory_is_no_event(part: bytes) -> None:
    decoder = msgspec.json.Decoder(dict[str, list[object]])
    assert decode_line(decoder, b'{"a":[' + part * 400_000 + b"1]}") is not None
    assert decode_line(decoder, b'{"a":[' + part * 600_000 + b"1]}") is None
