"""Following a log through cuts and restarts."""

import socket

import pytest

from labrats.cli.client import Client
from labrats.cli.credentials import ClientCredential
from labrats.cli.exits import CommandError, EngineUnreachable
from labrats.cli.follow import PAUSES_SECONDS, follow_log
from tests.unit.cli.engines import Answer, ScriptedEngine, frame, stream

LOGS = "GET /api/jobs/ir-1/logs"
DONE = {"done": True, "status": "completed"}


def lines_of(engine: ScriptedEngine, pauses: list[float]) -> list[dict[str, object]]:
    with Client(engine.url, ClientCredential("lr_test", "the test")) as client:
        return list(follow_log(client, "ir-1", pause=pauses.append))


def test_a_cut_connection_is_resumed_after_the_last_event_that_came(engine: ScriptedEngine) -> None:
    cut_short = stream(frame("1-1", {"log": "a"}), frame("1-2", {"log": "b"}), b'id: 1-3\ndata: {"log"', cut=True)
    engine.script(LOGS, cut_short, stream(frame("1-3", {"log": "c"}), frame(None, DONE)))
    pauses: list[float] = []
    assert lines_of(engine, pauses) == [{"log": "a"}, {"log": "b"}, {"log": "c"}, DONE]
    assert [request.headers.get("Last-Event-ID") for request in engine.requests] == [None, "1-2"]
    assert pauses == [PAUSES_SECONDS[0]]


def test_a_stream_that_ends_early_but_properly_is_resumed_too(
    engine: ScriptedEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.script(LOGS, stream(frame("1-1", {"log": "a"})), stream(frame(None, DONE)))
    assert lines_of(engine, []) == [{"log": "a"}, DONE]
    assert "closed the connection\ntrying again" in capsys.readouterr().err


def test_pings_and_unknown_fields_are_no_events(engine: ScriptedEngine) -> None:
    engine.script(
        LOGS, stream(b": ping\n\n", b"retry: 10\nfuture: x\n\n", frame("1-1", {"log": "a"}), frame(None, DONE))
    )
    assert lines_of(engine, []) == [{"log": "a"}, DONE]


def test_an_event_without_an_id_does_not_lose_the_place(engine: ScriptedEngine) -> None:
    unnumbered = frame(None, {"log": "b"})
    engine.script(LOGS, stream(frame("1-1", {"log": "a"})), stream(unnumbered), stream(frame(None, DONE)))
    lines_of(engine, [])
    assert [request.headers.get("Last-Event-ID") for request in engine.requests] == [None, "1-1", "1-1"]


def test_an_engine_that_starts_again_is_waited_for(engine: ScriptedEngine) -> None:
    starting = Answer(b'{"error": "still starting", "code": "unavailable"}', status=503)
    engine.script(LOGS, stream(frame("1-1", {"log": "a"}), cut=True), starting, starting, stream(frame(None, DONE)))
    pauses: list[float] = []
    assert lines_of(engine, pauses) == [{"log": "a"}, DONE]
    assert pauses == list(PAUSES_SECONDS[:3])


def test_patience_starts_anew_with_every_event(engine: ScriptedEngine) -> None:
    cuts = [stream(frame(f"1-{n}", {"log": "x"}), cut=True) for n in range(1, 4)]
    engine.script(LOGS, *cuts, stream(frame(None, DONE)))
    pauses: list[float] = []
    lines_of(engine, pauses)
    assert pauses == [PAUSES_SECONDS[0]] * 3


def test_patience_ends(engine: ScriptedEngine) -> None:
    engine.script(LOGS, stream(cut=True))
    pauses: list[float] = []
    with pytest.raises(EngineUnreachable, match="broke"):
        lines_of(engine, pauses)
    assert pauses == list(PAUSES_SECONDS)
    assert 100 < sum(pauses) < 140


def test_an_engine_that_was_never_there_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pauses: list[float] = []
    with Client(f"http://127.0.0.1:{port}", ClientCredential(None, "none")) as client, pytest.raises(EngineUnreachable):
        list(follow_log(client, "ir-1", pause=pauses.append))
    assert pauses == []


def test_a_job_that_is_gone_when_the_engine_is_back_ends_the_wait(engine: ScriptedEngine) -> None:
    gone = Answer(b'{"error": "there is no job ir-1", "code": "not_found"}', status=404)
    engine.script(LOGS, stream(cut=True), gone)
    with pytest.raises(CommandError, match="there is no job ir-1"):
        lines_of(engine, [])
