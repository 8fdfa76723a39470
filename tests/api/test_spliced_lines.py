"""Lines of output whose text is copied without decoding."""

import json

import pytest

from labrats.api.routes.event_views import event_json
from labrats.api.routes.jobs import log_line
from labrats.model.protocol import StoredLine, stored_lines
from labrats.model.record import encode
from tests.support.builders import a_log, a_result


def the_line(line: bytes) -> StoredLine:
    [(stored, _)] = stored_lines(line)
    return stored


@pytest.mark.parametrize("text", ["", "tick", 'a "quoted" \\ word', "Grüße\u2028\x85", "\x00\x1b[31m", "😀" * 100])
def test_the_text_of_a_log_event_is_copied_unchanged(text: str) -> None:
    line = encode(a_log(7, text))
    stored = the_line(line)
    log, event = log_line(1, stored, line), event_json(2, stored, line)
    assert log
    assert event
    assert json.loads(log) == {"log": text}
    head = {"id": "2-7", "attempt": 2, "at": "", "kind": "log"}
    assert json.loads(event) | {"at": ""} == head | {"text": text, "origin": None}


@pytest.mark.parametrize(("origin", "shown"), [(b'"agent"', "agent"), (b'"evil"', None), (b'{"a":1}', None)])
def test_only_known_origins_are_copied(origin: bytes, shown: str | None) -> None:
    line = b'{"kind":"log","seq":1,"at":"2030-01-01T12:00:00Z","text":"x","origin":%s}' % origin
    event = event_json(1, the_line(line), line)
    assert event
    assert json.loads(event)["origin"] == shown


def test_other_events_are_not_in_the_log() -> None:
    line = encode(a_result(seq=3))
    assert log_line(1, the_line(line), line) is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"log","seq":1,"at":"x","text":{"evil":1}}',
        b'{"kind":"log","seq":1,"at":{"evil":1},"text":"x"}',
        b'{"kind":"log","seq":1,"at":"x","text":"\xff"}',
        b'{"kind":"log","seq":1,"at":"x"}',
    ],
)
def test_a_forged_line_is_not_copied(line: bytes) -> None:
    for stored, line_bytes in stored_lines(line):
        assert log_line(1, stored, line_bytes) is None
        assert event_json(1, stored, line_bytes) is None


@pytest.mark.parametrize("line", [b"", b"not json", b"{}", b'{"kind":"log"}', b"\xff", b"[" * 10_000, b'{"seq":"1"}'])
def test_an_invalid_line_is_skipped(line: bytes) -> None:
    assert list(stored_lines(line + b"\n")) == []
