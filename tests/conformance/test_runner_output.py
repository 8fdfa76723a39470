"""The contract of every Runner (labrats/ports.py): the output, result, patch and publication of attempts."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from labrats.model.errors import NotFound
from labrats.model.job import STATUS_LOG_BYTES, STATUS_LOG_LINES, Usage
from labrats.model.protocol import TEXT_BYTES, ResultEvent, events_in
from labrats.model.publication import (
    PUBLICATION_PATH,
    Finding,
    Publication,
    Rejected,
    parse_publication,
    stored_publication,
)
from labrats.ports import OutputTail, Runner
from tests.conformance.attempts import HANG, end_of, ends_of, events_of, logs_in, until_logged
from tests.support.builders import an_attempt

# Output


async def test_output_is_numbered_from_one_without_gaps(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 300}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    events = await events_of(runner, attempt)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert logs_in(events) == [f"tick {n}" for n in range(1, 301)]


async def test_output_can_be_read_from_any_number_on(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 50}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    events = await events_of(runner, attempt)
    for seq in range(len(events) + 3):
        assert await events_of(runner, attempt, after_seq=seq) == events[seq:]


async def test_a_long_output_can_be_read_from_any_number_on(runner: Runner) -> None:
    line = "x" * (TEXT_BYTES - 10)
    attempt = an_attempt([{"log": "short {n}", "times": 500}, {"log": line + "{n}", "times": 150}, {"log": "end"}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    events = await events_of(runner, attempt)
    for seq in range(0, len(events) + 1, 23):
        assert await events_of(runner, attempt, after_seq=seq) == events[seq:]


async def test_read_without_follow_does_not_wait_for_more_output(runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    assert await events_of(runner, attempt) == []
    await runner.start(attempt)
    await until_logged(runner, attempt, "here")
    assert logs_in(await events_of(runner, attempt)) == ["here"]


async def test_a_follower_gets_each_event_once_until_the_end(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 30, "everyMs": 3}, {"result": "done"}])
    async with asyncio.TaskGroup() as tasks:
        early = tasks.create_task(events_of(runner, attempt, follow=True))
        await asyncio.sleep(0)
        await runner.start(attempt)
        await until_logged(runner, attempt, "tick 5")
        late = tasks.create_task(events_of(runner, attempt, follow=True))
        resumed = tasks.create_task(events_of(runner, attempt, after_seq=4, follow=True))
    events = await events_of(runner, attempt)
    assert isinstance(events[-1], ResultEvent)
    assert early.result() == late.result() == events
    assert resumed.result() == events[4:]


async def test_activity_of_an_attempt_is_its_latest_line(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 30}, HANG])
    assert await runner.activity(attempt.name) is None
    await runner.start(attempt)
    await until_logged(runner, attempt, "tick 30")
    assert await runner.activity(attempt.name) == "tick 30"


@pytest.mark.parametrize("step", [{"exit": 3}, HANG], ids=["crashed", "killed"])
async def test_following_ends_without_an_outcome(runner: Runner, step: dict[str, object]) -> None:
    attempt = an_attempt([{"log": "here"}, step])
    await runner.start(attempt)
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(events_of(runner, attempt, follow=True))
        await until_logged(runner, attempt, "here")
        if step == HANG:
            await runner.kill(attempt.name)
    assert logs_in(follower.result()) == ["here"]


async def test_a_closed_reader_does_not_affect_the_attempt(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 20, "everyMs": 3}])
    await runner.start(attempt)
    async with aclosing(runner.read(attempt.name, follow=True)) as batches:
        async for _ in batches:
            break
    assert len(logs_in(await events_of(runner, attempt, follow=True))) == 20


# Tail


async def test_there_is_no_tail_before_the_start(runner: Runner) -> None:
    assert await runner.tail(an_attempt().name) == OutputTail()


async def test_the_tail_of_a_running_attempt_has_its_output_so_far(runner: Runner) -> None:
    attempt = an_attempt([{"usage": {"outputTokens": 3}}, {"log": "grüße"}, HANG])
    await runner.start(attempt)
    await until_logged(runner, attempt, "grüße")
    tail = await runner.tail(attempt.name)
    assert (tail.logs, tail.usage) == (("grüße",), Usage(output_tokens=3, cost_usd=0.0))
    batches = [lines async for lines in runner.read(attempt.name, follow=False)]
    assert tail.last_seq == max(event.seq for event in events_in(b"".join(batches)))


async def test_the_tail_is_bounded_in_lines(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 250}])
    await runner.start(attempt)
    expected = tuple(f"tick {n}" for n in range(251 - STATUS_LOG_LINES, 251))
    assert (await end_of(runner, attempt)).tail.logs == expected


async def test_the_tail_is_bounded_in_bytes(runner: Runner) -> None:
    lines = [letter * (4096 // len(letter.encode())) for letter in ("x", "ß", '"', "\x01")]
    for line, gone in zip(lines, await ends_of(runner, [[{"log": line, "times": 20}] for line in lines]), strict=True):
        assert gone.tail.logs == (line,) * (STATUS_LOG_BYTES // 4096)


async def test_the_usage_before_a_long_log_survives_a_crash(runner: Runner) -> None:
    attempt = an_attempt([{"usage": {"costUsd": 1.5}}, {"log": "x" * TEXT_BYTES, "times": 40}, {"exit": 3}])
    await runner.start(attempt)
    assert (await end_of(runner, attempt)).tail.usage == Usage(cost_usd=1.5)


# Result


async def test_a_result_is_returned_unchanged(runner: Runner) -> None:
    async def run(result: object) -> None:
        attempt = an_attempt([{"result": result}])
        await runner.start(attempt)
        await end_of(runner, attempt)
        assert await runner.result(attempt.name) == result

    await asyncio.gather(*map(run, (None, 0, "text", [1, 2], {"a": {"b": None}})))


async def test_a_large_result_is_stored_beside_the_output(runner: Runner) -> None:
    result = {"text": "grüße " * 30_000}
    attempt = an_attempt([{"result": result}])
    await runner.start(attempt)
    outcome = (await end_of(runner, attempt)).outcome
    assert isinstance(outcome, ResultEvent)
    assert outcome.file is not None
    assert outcome.result is None
    assert await runner.result(attempt.name) == result


async def test_result_raises_not_found_before_a_success_and_after_removal(runner: Runner) -> None:
    failed, succeeded = an_attempt([{"fail": "no"}]), an_attempt([{"result": 1}])
    for attempt in (failed, succeeded):
        with pytest.raises(NotFound):
            await runner.result(attempt.name)
        await runner.start(attempt)
    for attempt in (failed, succeeded):
        await end_of(runner, attempt)
    with pytest.raises(NotFound):
        await runner.result(failed.name)
    await runner.remove(succeeded.name)
    with pytest.raises(NotFound):
        await runner.result(succeeded.name)


# Patch


@pytest.mark.parametrize("end", [{"result": 1}, {"fail": "no"}], ids=["success", "failure"])
async def test_changes_of_the_workspace_are_stored_as_a_patch(runner: Runner, end: dict[str, Any]) -> None:
    attempt = an_attempt([{"write": {"path": "a/hello.txt", "text": "hello\n"}}, end])
    with pytest.raises(NotFound):
        await runner.patch(attempt.name)
    await runner.start(attempt)
    await end_of(runner, attempt)
    with await runner.patch(attempt.name) as file:
        patch = file.read()
    assert patch.startswith(b"diff --git a/a/hello.txt b/a/hello.txt\n")
    assert b"\n+hello\n" in patch
    await runner.remove(attempt.name)
    with pytest.raises(NotFound):
        await runner.patch(attempt.name)


async def test_an_unchanged_workspace_has_no_patch(runner: Runner) -> None:
    attempt = an_attempt([{"result": 1}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    with pytest.raises(NotFound):
        await runner.patch(attempt.name)


# Publication and bundle


@pytest.mark.parametrize("end", [{"result": 1}, {"fail": "no"}], ids=["success", "failure"])
async def test_publication_is_stored_until_its_attempt_is_removed(runner: Runner, end: dict[str, Any]) -> None:
    text = '{"title":"A title","findings":[{"path":"a.py","line":3}]}'
    attempt = an_attempt([{"write": {"path": PUBLICATION_PATH, "text": text}}, end])
    with pytest.raises(NotFound):
        await runner.publication(attempt.name)
    await runner.start(attempt)
    await end_of(runner, attempt)
    expected = Publication(title="A title", findings=(Finding(path="a.py", line=3),))
    assert parse_publication(await runner.publication(attempt.name)) == expected
    await runner.remove(attempt.name, keep_output=True)
    assert parse_publication(await runner.publication(attempt.name)) == expected
    await runner.remove(attempt.name)
    with pytest.raises(NotFound):
        await runner.publication(attempt.name)


async def test_the_reason_is_stored_in_place_of_an_invalid_publication(runner: Runner) -> None:
    attempt = an_attempt([{"write": {"path": PUBLICATION_PATH, "text": '{"titel":""}'}}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    with pytest.raises(Rejected, match="titel: there is no such field"):
        stored_publication(await runner.publication(attempt.name))


async def test_changes_without_a_repository_have_no_bundle(runner: Runner) -> None:
    attempt = an_attempt([{"write": {"path": "hello.txt", "text": "hello"}}])
    with pytest.raises(NotFound):
        await runner.bundle(attempt.name)
    await runner.start(attempt)
    await end_of(runner, attempt)
    with pytest.raises(NotFound):
        await runner.bundle(attempt.name)
