"""A job's events: the typed output of its attempts, in pages or as a stream."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS, Engine, SentEvent, User
from tests.chart.engine import InstalledEngine

STEPS = [
    {"log": "line {n}", "times": 3},
    {"usage": {"inputTokens": 7, "turns": 1}},
    {"onAttempt": 1, "steps": [{"fail": "not yet"}]},
    {"result": {"done": True}},
]
NO_OUTPUTS: dict[str, Any] = {
    "branch": None,
    "commit": None,
    "pullRequestUrl": None,
    "commits": [],
    "filesChanged": None,
    "bundleBytes": None,
}
USED = {
    "inputTokens": 7,
    "outputTokens": 0,
    "cacheReadTokens": 0,
    "cacheWriteTokens": 0,
    "reasoningTokens": 0,
    "costKind": "billed",
    "costUsd": 0.0,
    "turns": 1,
    "seconds": 0.0,
}
TOTALS = {"usage": USED, "outputs": NO_OUTPUTS}


async def pages(user: User, job_id: str, limit: int) -> list[dict[str, Any]]:
    """Read all events, page by page."""
    events: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        answer = await user.get(f"/api/jobs/{job_id}/events", limit=limit, **after)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert set(page) == {"events", "next"}
        assert len(page["events"]) <= limit
        events += page["events"]
        if page["next"] is None:
            return events
        after = {"after": page["next"]}


async def test_events_of_all_attempts_are_typed(user: User) -> None:
    job_id = (await user.run(*STEPS, config={"maxAttempts": 2}))["id"]

    events = await pages(user, job_id, 1000)

    kinds = [(event["attempt"], event["kind"]) for event in events if event["kind"] != "status"]
    assert kinds == [
        (1, "log"), (1, "log"), (1, "log"), (1, "usage"), (1, "error"),
        (2, "log"), (2, "log"), (2, "log"), (2, "usage"), (2, "result"),
    ]  # fmt: skip
    by_kind = {event["kind"]: event for event in events}
    head = {"id", "attempt", "at", "kind"}
    assert {kind: {k: v for k, v in event.items() if k not in head} for kind, event in by_kind.items()} == {
        "status": {"state": "running", "message": None},
        "log": {"text": "line 3", "origin": "agent"},
        "usage": {"usage": USED},
        "error": {"code": "agent_error", "message": "not yet", "retryAfterSeconds": None} | TOTALS,
        "result": {"result": {"done": True}} | TOTALS,
    }


@pytest.mark.parametrize("status", ["cancelled", "failed"])
async def test_last_event_of_a_stopped_attempt_does_not_contradict_the_job(
    engine: Engine, user: User, status: str
) -> None:
    timeout_ms = 20_000 if isinstance(engine, InstalledEngine) else 1_000  # the start of a pod counts
    config = {"timeoutMs": timeout_ms} if status == "failed" else {}
    job_id = await user.submit({"log": "here"}, {"hang": True}, config=config)

    await check_stopped(user, job_id, status)


@pytest.mark.parametrize("status", ["cancelled", "failed"])
async def test_last_event_of_a_stopped_agent_program_does_not_contradict_the_job(
    start_program: EngineFactory, tmp_path: Path, status: str
) -> None:
    program = tmp_path / "agent"
    program.write_text(f"#!/bin/sh\necho '{json.dumps({'type': 'system', 'subtype': 'init'})}'\nexec sleep 300\n")
    program.chmod(0o755)
    environment = {"LABRATS_CLAUDE_PATH": str(program), "ANTHROPIC_API_KEY": "test-key-of-a-model"}
    engine = start_program(**environment, LABRATS_STOP_GRACE_SECONDS="10")
    config = {"provider": "claude", "model": "any"} | ({"timeoutMs": 4_000} if status == "failed" else {})
    async with engine.user() as user:
        await check_stopped(user, await user.submit(prompt="Wait.", config=config), status)


async def check_stopped(user: User, job_id: str, status: str) -> None:
    """Cancel the job once it runs unless it is to time out, and check its last event."""
    if status == "cancelled":
        async with asyncio.timeout(PATIENCE_SECONDS):
            while '"running"' not in (await user.get(f"/api/jobs/{job_id}/events", kind="status")).text:
                await asyncio.sleep(0.05)
        await user.cancel(job_id)
    job = await user.wait(job_id)
    attempt = (await user.get(f"/api/jobs/{job_id}/attempts")).json()["attempts"][-1]
    last = (await pages(user, job_id, 1000))[-1]

    assert (job["status"], job["failedCode"]) == (status, "timeout" if status == "failed" else None)
    assert (attempt["status"], attempt["failedCode"]) == (job["status"], job["failedCode"])
    assert (last["kind"], last.get("code"), last.get("message")) == ("error", None, "stopped on request")


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
async def test_pages_of_any_size_contain_the_same_events(user: User, limit: int) -> None:
    job_id = (await user.run(*STEPS, config={"maxAttempts": 2}))["id"]

    events = await pages(user, job_id, limit)

    assert events == await pages(user, job_id, 1000)
    assert len({event["id"] for event in events}) == len(events)


@pytest.mark.parametrize(("limit", "expected"), [(-5, 1), (0, 1), (3, 3), (1001, 1000), (10**9, 1000)])
async def test_limit_of_a_page_is_clamped_to_1_to_1000(user: User, limit: int, expected: int) -> None:
    job_id = (await user.run({"log": "line {n}", "times": 1100}))["id"]

    page = (await user.get(f"/api/jobs/{job_id}/events", limit=limit)).json()

    assert len(page["events"]) == expected


async def test_last_page_of_a_running_job_names_the_next_one(user: User) -> None:
    job_id = await user.submit({"log": "on"}, {"hang": True})
    async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as lines:
        await anext(lines)

    page = (await user.get(f"/api/jobs/{job_id}/events")).json()
    assert page["next"] == page["events"][-1]["id"]
    again = (await user.get(f"/api/jobs/{job_id}/events", after=page["next"])).json()
    assert again == {"events": [], "next": page["next"]}

    await user.cancel(job_id)
    await user.wait(job_id)
    rest = (await user.get(f"/api/jobs/{job_id}/events", after=page["next"])).json()
    assert [event["kind"] for event in rest["events"]] == ["error"]
    assert rest["next"] is None


async def test_waiting_job_has_no_events(user: User, admin: User, model: str) -> None:
    await admin.post("/api/ai-models", {"name": "no-events", "provider": "mock", "model": model, "slots": 0})
    job_id = await user.submit(config={"model": model})

    assert (await user.get(f"/api/jobs/{job_id}/events")).json() == {"events": [], "next": "1-0"}


async def test_event_stream_equals_the_pages_and_can_be_resumed(user: User) -> None:
    job_id = await user.submit(*STEPS, config={"maxAttempts": 2})

    async def live(last_event_id: str | None = None) -> list[SentEvent]:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            user.stream(f"/api/jobs/{job_id}/events", last_event_id) as events,
        ):
            return [event async for event in events]

    *streamed, done = await live()

    assert [event.data for event in streamed] == await pages(user, job_id, 1000)
    assert [event.id for event in streamed] == [event.data["id"] for event in streamed]
    assert done == SentEvent("", {"done": True, "status": "completed"})
    for number, event in enumerate(streamed, start=1):
        assert await live(event.id) == [*streamed[number:], done]


async def test_result_too_large_for_an_event_is_in_the_job_detail(user: User) -> None:
    large = ["x" * 1000] * 60

    detail = await user.run({"result": large})

    assert detail["returnvalue"] == large
    events = await pages(user, detail["id"], 1000)
    assert events[-1]["kind"] == "result"
    assert {event["kind"] for event in events} == {"status", "result"}


SEARCHED = [
    {"log": "line {n}", "times": 1200},
    {"log": 'a "quoted" Needle, Größe, ÄRGER'},
    {"onAttempt": 1, "steps": [{"fail": "the needle broke"}]},
    {"log": "end"},
]


async def searched_job(user: User) -> str:
    """Run a job of two attempts with some 1,200 events each."""
    job_id: str = (await user.run(*SEARCHED, config={"maxAttempts": 2}))["id"]
    return job_id


async def test_search_finds_all_matches_and_counts_them(user: User) -> None:
    job_id = await searched_job(user)

    async def search(q: str, **query: Any) -> Any:
        answer = await user.get(f"/api/jobs/{job_id}/events", q=q, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    found = await search("NEEDLE")
    assert [(each["attempt"], each["kind"]) for each in found["events"]] == [(1, "log"), (1, "error"), (2, "log")]
    assert (found["total"], found["next"]) == (3, None)
    first = await search("line 1", limit=2)
    rest = await search("line 1", limit=1000, after=first["next"])
    assert first["total"] == rest["total"] == 2 * 312  # 1, 10-19, 100-199, 1000-1199 and the 1 in each hundred
    assert len(first["events"]) + len(rest["events"]) == first["total"]
    assert (await search('"quoted"'))["total"] == 2
    assert (await search("Größe"))["total"] == 2
    assert (await search("Ärger"))["total"] == 2
    assert (await search("needle", kind="error"))["total"] == 1
    assert await search("origin") == {"events": [], "next": None, "total": 0}, "names of fields are no text"


async def test_pages_backwards_lead_from_the_end_to_the_beginning(user: User) -> None:
    job_id = await searched_job(user)
    all_events = await pages(user, job_id, 1000)

    page = (await user.get(f"/api/jobs/{job_id}/events", tail="true", limit=700)).json()
    assert (page["firstId"], page["lastId"], page["next"]) == (all_events[0]["id"], all_events[-1]["id"], None)
    events = page["events"]
    while len(page["events"]) == 700:
        page = (await user.get(f"/api/jobs/{job_id}/events", before=events[0]["id"], limit=700)).json()
        events = page["events"] + events

    assert events == all_events


async def test_events_of_one_attempt_are_listed_and_its_matches_counted(user: User) -> None:
    job_id = await searched_job(user)
    every = await pages(user, job_id, 1000)
    own = {number: [each for each in every if each["attempt"] == number] for number in (1, 2, 3)}

    async def read(attempt: int, **query: Any) -> Any:
        answer = await user.get(f"/api/jobs/{job_id}/events", attempt=attempt, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    for number, events in own.items():
        first = await read(number, limit=1000)
        rest = await read(number, limit=1000, **({"after": first["next"]} if first["next"] else {}))
        assert (first["events"] + rest["events"])[: len(events)] == events
        assert number == 3 or (first["next"], rest["next"]) == (events[999]["id"], None)
        tail = await read(number, limit=5, tail="true")
        ends = (events[0]["id"], events[-1]["id"]) if events else (None, None)
        assert (tail["events"], tail["firstId"], tail["lastId"]) == (events[-5:], *ends)
    assert (await read(2, before=own[2][3]["id"]))["events"] == own[2][:3]
    found = [await read(number, q="needle", limit=1) for number in (1, 2, 3)]
    assert [(each["total"], each["attemptTotal"]) for each in found] == [(3, 2), (3, 1), (3, 0)]
    assert [[each["attempt"] for each in page["events"]] for page in found] == [[1], [2], []]
    assert found[0]["next"] == found[0]["events"][0]["id"]
    assert (await user.get(f"/api/jobs/{job_id}/events", attempt=0)).status_code == 422


async def test_events_of_some_kinds_are_listed(user: User) -> None:
    job_id = (await user.run(*STEPS, config={"maxAttempts": 2}))["id"]

    answer = await user.get(f"/api/jobs/{job_id}/events", kind=["usage", "error"])

    assert [event["kind"] for event in answer.json()["events"]] == ["usage", "error", "usage"]


async def test_contradictory_places_are_refused(user: User) -> None:
    job_id = (await user.run())["id"]

    answers = [
        await user.get(f"/api/jobs/{job_id}/events", **query)
        for query in ({"after": "1-1", "before": "1-2"}, {"tail": "true", "before": "1-2"}, {"kind": "logs"})
    ]

    assert [answer.status_code for answer in answers] == [422, 422, 422]
