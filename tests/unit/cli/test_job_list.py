"""`labrats jobs --watch`."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from labrats.cli.output import terminal_safe
from tests.unit.cli.engines import Answer, Labrats, ScriptedEngine, a_job, frame, stream

FEED = "GET /api/changes"
LIST = "GET /api/jobs"
REVOKED = Answer(b'{"error": "the key was revoked", "code": "unauthorized"}', status=401)
"""Ends the command: the feed itself has no end."""


def a_page(*jobs: Any) -> dict[str, Any]:
    return {"jobs": jobs, "total": len(jobs), "page": 1, "limit": 20}


def an_item(job_id: str = "ir-1", **fields: Any) -> dict[str, Any]:
    return (
        a_job(id=job_id, name="review", source="ci", repo="o/r", title="Look", status="waiting", activity=None) | fields
    )


def greeting(**fields: Any) -> bytes:
    return frame("f-0", {"counts": {}, **fields})


def a_change(*jobs: Any, gone: tuple[str, ...] = (), event_id: str = "f-1") -> bytes:
    return frame(event_id, {"jobs": jobs, "gone": gone, "kinds": [], "counts": {}})


def test_list_is_followed_by_each_change(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(LIST, a_page(an_item("ir-2"), an_item("ir-1")))
    changes = (a_change(an_item("ir-2", status="active"), an_item("ir-3")), a_change(gone=("ir-1", "ir-9")))
    engine.script(FEED, stream(greeting(), *changes), REVOKED)
    ended = labrats("jobs", "--watch")
    assert ended.out.splitlines() == [
        "ir-1  waiting    review  ci  o/r  Look",
        "ir-2  waiting    review  ci  o/r  Look",
        "ir-2  active     review  ci  o/r  Look",
        "ir-3  waiting    review  ci  o/r  Look",
        "ir-1  deleted",
    ]
    assert ended.code == 4


def test_json_prints_one_item_a_line(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(LIST, a_page(an_item()))
    engine.script(FEED, stream(greeting(), a_change(an_item(attempts=2), gone=("ir-9",)), a_change(gone=("ir-1",))))
    engine.scripts[FEED].append(REVOKED)
    lines = [json.loads(line) for line in labrats("jobs", "-w", "--json").out.splitlines()]
    assert lines == [an_item(), an_item(attempts=2), {"id": "ir-1", "deleted": True}]


@pytest.mark.parametrize(
    ("option", "other"),
    [
        (("--status", "waiting"), {"status": "active"}),
        (("--type", "review"), {"name": "other"}),
        (("--agent", "rat"), {"agentRole": None}),
        (("--chain", "c"), {"chainId": "d"}),
        (("-q", "LOOK"), {"title": "Other"}),
        (("-q", "o/r"), {"repo": None}),
    ],
)
def test_changes_of_jobs_that_do_not_match_are_left_out(
    labrats: Labrats, engine: ScriptedEngine, option: tuple[str, ...], other: dict[str, Any]
) -> None:
    matching = an_item("ir-2", agentRole="rat", chainId="c")
    engine.answers(LIST, a_page())
    engine.script(FEED, stream(greeting(), a_change(an_item("ir-1", agentRole="rat", chainId="c") | other, matching)))
    engine.scripts[FEED].append(REVOKED)
    assert [line.split()[0] for line in labrats("jobs", "--watch", *option).out.splitlines()] == ["ir-2"]


def test_job_that_matches_again_is_printed_again(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(LIST, a_page(an_item()))
    changes = (a_change(an_item(status="active")), a_change(an_item()))
    engine.script(FEED, stream(greeting(), *changes), REVOKED)
    assert len(labrats("jobs", "--watch", "--status", "waiting").out.splitlines()) == 2


@pytest.mark.parametrize("change", [greeting(reset=True), frame("f-2", {"many": True, "kinds": [], "counts": {}})])
def test_list_is_read_again_after_changes_that_were_missed(
    labrats: Labrats, engine: ScriptedEngine, change: bytes
) -> None:
    engine.answers(LIST, a_page(an_item("ir-1")), a_page(an_item("ir-2"), an_item("ir-1")))
    engine.script(FEED, stream(greeting(), cut=True), stream(change), REVOKED)
    ended = labrats("jobs", "--watch")
    assert [line.split()[0] for line in ended.out.splitlines()] == ["ir-1", "ir-2"]
    assert "broke\nretrying for two minutes\n" in ended.err
    feeds = [request for request in engine.requests if request.path == "/api/changes"]
    assert [request.headers.get("Last-Event-ID") for request in feeds][:2] == [None, "f-0"]


def test_list_is_read_once_the_engine_answers(labrats: Labrats, engine: ScriptedEngine) -> None:
    starting = Answer(b'{"error": "still starting", "code": "unavailable"}', status=503)
    engine.script(LIST, starting, starting, Answer(json.dumps(a_page(an_item())).encode()))
    engine.script(FEED, stream(greeting()), REVOKED)
    assert labrats("jobs", "--watch").out.startswith("ir-1 ")


def test_watch_follows_only_the_first_page(labrats: Labrats, engine: ScriptedEngine) -> None:
    ended = labrats("jobs", "--watch", "--page", "2")
    assert (ended.code, ended.out, engine.requests) == (2, "", [])
    assert "leave out --page" in ended.err


def test_list_on_a_terminal_is_redrawn(
    labrats: Labrats, engine: ScriptedEngine, on_terminal: Callable[[], None]
) -> None:
    on_terminal()
    evil = an_item("ir-2", status="failed", failedReason="\x1b[2J\u202eevil [bold]x[/bold]")
    engine.answers(LIST, a_page(an_item()), a_page(evil, an_item()))
    engine.script(FEED, stream(greeting(), a_change(evil)), REVOKED)
    shown = labrats("jobs", "--watch", "--status", "failed").out
    last = terminal_safe(shown[shown.rindex("ID ") :]).splitlines()
    assert [line.split()[0] for line in last[1:3]] == ["ir-2", "ir-1"]
    assert "evil [bold]x[/bold]" in last[1]
    assert last[3] == "2 of 2 jobs · live"
    assert "\x1b[2J" not in shown
    lists = [request.path for request in engine.requests if request.path.startswith("/api/jobs")]
    assert set(lists) == {"/api/jobs?status=failed&page=1&limit=20&omit=result"}


def test_activities_of_running_jobs_are_redrawn(
    labrats: Labrats, engine: ScriptedEngine, on_terminal: Callable[[], None]
) -> None:
    on_terminal()
    engine.answers(LIST, a_page(an_item("ir-2", activity=None), an_item("ir-1", activity="thinking")))
    change = {"jobs": [], "gone": [], "kinds": [], "counts": {}, "activities": {"ir-1": "Bash: npm test", "ir-9": "x"}}
    engine.script(FEED, stream(greeting(), frame("f-1", change)), REVOKED)
    shown = labrats("jobs", "--watch").out
    first, second = terminal_safe(shown[shown.rindex("ID ") :]).splitlines()[1:3]
    assert "Bash: npm test" in second
    assert first.rstrip().endswith("1")
    assert len([request for request in engine.requests if request.path.startswith("/api/jobs")]) == 1


def test_terminal_does_not_read_the_list_when_no_job_has_changed(
    labrats: Labrats, engine: ScriptedEngine, on_terminal: Callable[[], None]
) -> None:
    on_terminal()
    engine.answers(LIST, a_page(an_item()))
    engine.script(FEED, stream(greeting(), a_change(), a_change()), REVOKED)
    labrats("jobs", "--watch")
    assert len([request for request in engine.requests if request.path.startswith("/api/jobs")]) == 1
