"""A job's log as server-sent events: live, ordered, resumable, and independent of slow readers."""

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, Engine, SentEvent, User, lines_of

ATTEMPT_TWICE = [
    {"log": "always {n}", "times": 2},
    {"onAttempt": 1, "steps": [{"log": "first {n}", "times": 3}, {"fail": "not yet"}]},
    {"onAttempt": 2, "steps": [{"log": "second {n}", "times": 3}]},
]
BOTH_ATTEMPTS = [
    "always 1", "always 2", "first 1", "first 2", "first 3",
    "always 1", "always 2", "second 1", "second 2", "second 3",
]  # fmt: skip


def position(event: SentEvent) -> tuple[int, int]:
    attempt, seq = event.id.split("-")
    return int(attempt), int(seq)


async def test_log_lines_arrive_while_the_job_runs(user: User) -> None:
    job_id = await user.submit({"log": "begun"}, {"hang": True})

    async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as events:
        assert (await anext(events)).data == {"log": "begun"}
        assert (await user.job(job_id))["status"] == "active"


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ([{"result": 1}], "completed"),
        ([{"fail": "no"}], "failed"),
        ([{"signal": 9}], "failed"),
        ([{"exit": 0}], "failed"),
    ],
)
async def test_stream_ends_with_the_jobs_status(user: User, steps: list[object], status: str) -> None:
    job_id = await user.submit({"log": "line"}, *steps)

    *lines, done = await user.full_log(job_id)

    assert lines_of(lines) == ["line"]
    assert done == SentEvent("", {"done": True, "status": status})


async def test_stream_of_a_cancelled_job_ends_with_cancelled(user: User) -> None:
    job_id = await user.submit({"log": "line"}, {"hang": True})

    async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as events:
        assert (await anext(events)).data == {"log": "line"}
        await user.cancel(job_id)
        assert [event.data async for event in events] == [{"done": True, "status": "cancelled"}]


async def test_event_ids_consist_of_attempt_and_number_and_increase(user: User) -> None:
    job_id = await user.submit(*ATTEMPT_TWICE, config={"maxAttempts": 2})

    *lines, done = await user.full_log(job_id)

    assert lines_of(lines) == BOTH_ATTEMPTS
    positions = [position(event) for event in lines]
    assert positions == sorted(set(positions))
    assert {attempt for attempt, _ in positions} == {1, 2}
    assert done.data == {"done": True, "status": "completed"}


async def test_stream_of_a_waiting_job_opens_at_once_and_begins_when_the_job_starts(
    user: User, admin: User, name: str, model: str
) -> None:
    await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": 0})
    job_id = await user.submit({"log": "at last"}, config={"model": model})

    async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as events:
        assert (await user.job(job_id))["status"] == "waiting"
        await admin.http.patch(f"/api/ai-models/{name}", json={"slots": 1})
        assert (await anext(events)).data == {"log": "at last"}


async def test_cancel_of_a_waiting_job_ends_its_stream(user: User, admin: User, name: str, model: str) -> None:
    await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": 0})
    job_id = await user.submit(config={"model": model})

    async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as events:
        await user.cancel(job_id)
        assert [event.data async for event in events] == [{"done": True, "status": "cancelled"}]


async def test_reader_resumes_after_any_event_without_gap_or_repetition(user: User) -> None:
    job_id = await user.submit(*ATTEMPT_TWICE, config={"maxAttempts": 2})
    *lines, _ = await user.full_log(job_id)

    for number, event in enumerate(lines, start=1):
        *rest, done = await user.full_log(job_id, last_event_id=event.id)
        assert rest == lines[number:]
        assert done.data == {"done": True, "status": "completed"}


async def test_disconnected_reader_of_a_running_job_resumes_without_gap(user: User) -> None:
    job_id = await user.submit({"log": "line {n}", "times": 300, "everyMs": 2})
    seen: list[SentEvent] = []

    async with asyncio.timeout(PATIENCE_SECONDS):
        while not seen or "done" not in seen[-1].data:
            async with user.log_stream(job_id, seen[-1].id if seen else None) as events:
                for _ in range(70):
                    if (event := await anext(events, None)) is None:
                        break
                    seen.append(event)

    assert lines_of(seen) == [f"line {n}" for n in range(1, 301)]


async def test_resumed_stream_continues_into_a_later_attempt(user: User) -> None:
    job_id = await user.submit(*ATTEMPT_TWICE)
    *lines, done = await user.full_log(job_id)
    assert done.data == {"done": True, "status": "failed"}

    await user.post(f"/api/jobs/{job_id}/retry")

    rest = await user.full_log(job_id, last_event_id=lines[2].id)
    assert lines_of(rest) == BOTH_ATTEMPTS[3:]


async def test_invalid_last_event_id_starts_at_the_beginning(user: User) -> None:
    job_id = await user.submit({"log": "line"})
    await user.wait(job_id)

    for invalid in ("", "0", "0-5", "x-y", "1", "-1-5", "1-5-5", "9" * 40 + "-1", "1-" + "9" * 40):
        assert lines_of(await user.full_log(job_id, invalid)) == ["line"], invalid


async def test_last_event_id_beyond_the_end_yields_only_the_final_event(user: User) -> None:
    job_id = await user.submit({"log": "line"})
    await user.wait(job_id)

    for beyond in ("1-999999", "7-1"):
        assert [event.data for event in await user.full_log(job_id, beyond)] == [{"done": True, "status": "completed"}]


async def test_log_lines_may_contain_any_text(user: User) -> None:
    texts = [
        "",
        "  two  spaces",
        "quotes \" ' \\ and {n: 1}",
        "ümlaut 📄 \u202e bidi",
        "data: x",
        "tab\tand escape \x1b[31m",
    ]

    job_id = await user.submit(*({"log": text} for text in texts))

    assert await user.log_lines(job_id) == texts


async def test_text_of_several_lines_cannot_forge_an_event(user: User) -> None:
    job_id = await user.submit({"log": "one\ntwo\r\nthree\n\ndata: {}\n\nid: 9-9"}, {"log": "last"})

    events = await user.full_log(job_id)

    assert "".join(lines_of(events)).replace("\r", "").replace("\n", "") == "onetwothreedata: {}id: 9-9last"
    assert [event.id[:2] for event in events[:-1]] == ["1-"] * (len(events) - 1)


async def test_log_line_with_unusual_line_breaks_cannot_forge_an_event(user: User) -> None:
    breaks = [2 * each for each in ("\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c")]
    texts = [f'{each}data: {{"done": true, "status": "completed"}}{each}end' for each in breaks]

    assert await user.log_lines(await user.submit(*({"log": text} for text in texts))) == texts


async def test_fifty_readers_receive_the_same_log(user: User) -> None:
    job_id = await user.submit({"log": "line {n}", "times": 100, "everyMs": 5})

    logs = await asyncio.gather(*(user.log_lines(job_id) for _ in range(50)))

    assert logs == [[f"line {n}" for n in range(1, 101)]] * 50


async def test_stalled_readers_do_not_slow_other_readers(engine: Engine, user: User) -> None:
    """Readers that do not read fill the kernel's buffers, after which the engine must not wait for them."""
    job_id = await user.submit({"log": "x" * 10_000, "times": 1500}, {"hang": True})
    host, port = engine.url.removeprefix("http://").split(":")
    request = f"GET /api/jobs/{job_id}/logs HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {user.key}\r\n\r\n"

    async with AsyncExitStack() as stack:
        for _ in range(20):
            stalled = stack.enter_context(socket.create_connection((host, int(port))))
            stalled.sendall(request.encode())
        async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as events:
            for _ in range(1500):
                assert len((await anext(events)).data["log"]) == 10_000
        assert (await user.run({"log": "meanwhile"}))["status"] == "completed"


async def test_log_stream_of_an_unknown_job_is_answered_with_404(user: User) -> None:
    answer = await user.get("/api/jobs/ir-00000000/logs")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
