"""Following a log across broken connections and restarts."""

import socket

import pytest

from labrats.cli.client import Client
from labrats.cli.credentials import ClientCredential
from labrats.cli.errors import CommandError, EngineUnreachable
from labrats.cli.follow import RETRY_PAUSES_SECONDS, follow_log
from tests.unit.cli.engines import Answer, ScriptedEngine, frame, stream

LOGS = "GET /api/jobs/ir-1/logs"
DONE = {"done": True, "status": "completed"}


def lines_of(engine: ScriptedEngine, pauses: list[float]) -> list[dict[str, object]]:
    with Client(engine.url, ClientCredential("lr_test", "the test")) as client:
        return list(follow_log(client, "ir-1", pause=pauses.append))


def test_broken_connection_resumes_after_the_last_received_event(engine: ScriptedEngine) -> None:
    broken = stream(frame("1-1", {"log": "a"}), frame("1-2", {"log": "b"}), b'id: 1-3\ndata: {"log"', cut=True)
    engine.script(LOGS, broken, stream(frame("1-3", {"log": "c"}), frame(None, DONE)))
    pauses: list[float] = []
    assert lines_of(engine, pauses) == [{"log": "a"}, {"log": "b"}, {"log": "c"}, DONE]
    assert [request.headers.get("Last-Event-ID") for request in engine.requests] == [None, "1-2"]
    assert pauses == [RETRY_PAUSES_SECONDS[0]]


def test_stream_that_ends_early_is_resumed(engine: ScriptedEngine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.script(LOGS, stream(frame("1-1", {"log": "a"})), stream(frame(None, DONE)))
    assert lines_of(engine, []) == [{"log": "a"}, DONE]
    assert "closed the connection\nretrying" in capsys.readouterr().err


def test_pings_and_unknown_fields_are_ignored(engine: ScriptedEngine) -> None:
    engine.script(
        LOGS, stream(b": ping\n\n", b"retry: 10\nfuture: x\n\n", frame("1-1", {"log": "a"}), frame(None, DONE))
    )
    assert lines_of(engine, []) == [{"log": "a"}, DONE]


def test_event_without_an_id_keeps_the_position(engine: ScriptedEngine) -> None:
    unnumbered = frame(None, {"log": "b"})
    engine.script(LOGS, stream(frame("1-1", {"log": "a"})), stream(unnumbered), stream(frame(None, DONE)))
    lines_of(engine, [])
    assert [request.headers.get("Last-Event-ID") for request in engine.requests] == [None, "1-1", "1-1"]


def test_restarting_engine_is_retried(engine: ScriptedEngine) -> None:
    starting = Answer(b'{"error": "still starting", "code": "unavailable"}', status=503)
    engine.script(LOGS, stream(frame("1-1", {"log": "a"}), cut=True), starting, starting, stream(frame(None, DONE)))
    pauses: list[float] = []
    assert lines_of(engine, pauses) == [{"log": "a"}, DONE]
    assert pauses == list(RETRY_PAUSES_SECONDS[:3])


def test_every_event_resets_the_retries(engine: ScriptedEngine) -> None:
    cuts = [stream(frame(f"1-{n}", {"log": "x"}), cut=True) for n in range(1, 4)]
    engine.script(LOGS, *cuts, stream(frame(None, DONE)))
    pauses: list[float] = []
    lines_of(engine, pauses)
    assert pauses == [RETRY_PAUSES_SECONDS[0]] * 3


def test_retries_end_after_two_minutes(engine: ScriptedEngine) -> None:
    engine.script(LOGS, stream(cut=True))
    pauses: list[float] = []
    with pytest.raises(EngineUnreachable, match="broke"):
        lines_of(engine, pauses)
    assert pauses == list(RETRY_PAUSES_SECONDS)
    assert 100 < sum(pauses) < 140


def test_first_connection_is_not_retried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pauses: list[float] = []
    with Client(f"http://127.0.0.1:{port}", ClientCredential(None, "none")) as client, pytest.raises(EngineUnreachable):
        list(follow_log(client, "ir-1", pause=pauses.append))
    assert pauses == []


def test_deleted_job_ends_the_retries(engine: ScriptedEngine) -> None:
    gone = Answer(b'{"error": "there is no job ir-1", "code": "not_found"}', status=404)
    engine.script(LOGS, stream(cut=True), gone)
    with pytest.raises(CommandError, match="there is no job ir-1"):
        lines_of(engine, [])
