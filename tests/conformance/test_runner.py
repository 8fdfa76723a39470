"""What every Runner promises (labrats/ports.py), sentence by sentence."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.model.errors import GiveUp, NotFound, RetryLater
from labrats.model.job import STATUS_LOG_BYTES, STATUS_LOG_LINES, FailedCode, KeyReference, Usage
from labrats.model.protocol import TEXT_BYTES, AnyEvent, ErrorEvent, LogEvent, ResultEvent, events_in
from labrats.ports import Alive, Attempt, Gone, NotStarted, OutputTail, Runner
from tests.conformance.runner_backends import RunnerBackend
from tests.support.builders import a_session, a_spec, an_attempt
from tests.support.waiting import DEADLINE_SECONDS, eventually, poll_intervals

HANG = {"hang": True}
STUBBORN = {"ignoreSignals": True}
LEAVE_CHILD = {"fork": {"seconds": 600}}
LEAVE_DETACHED_CHILD = {"fork": {"seconds": 600, "detached": True}}


# Starting


async def test_a_started_attempt_runs_to_its_result(runner: Runner) -> None:
    attempt = an_attempt([{"log": "hello"}, {"result": {"answer": 42}}])
    await runner.start(attempt)
    gone = await end_of(runner, attempt)
    assert isinstance(gone.outcome, ResultEvent)
    assert gone.outcome.result == {"answer": 42}
    assert gone.tail.logs == ("hello",)


async def test_what_was_never_started_is_not_started(runner: Runner) -> None:
    assert await runner.find(an_attempt().name) == NotStarted()


async def test_starting_again_starts_nothing(runner: Runner) -> None:
    attempt = an_attempt([{"log": "once"}, HANG])
    await runner.start(attempt)
    await runner.start(attempt)
    await said(runner, attempt, "once")
    await runner.start(attempt)
    await runner.kill(attempt.name)
    await runner.start(attempt)
    assert logs_in(await events_of(runner, attempt)) == ["once"]
    assert isinstance(await runner.find(attempt.name), Gone)


async def test_an_ended_attempt_is_not_started_again(runner: Runner) -> None:
    attempt = an_attempt([{"log": "once"}])
    await runner.start(attempt)
    ended = await end_of(runner, attempt)
    await runner.start(attempt)
    assert await runner.find(attempt.name) == ended
    assert logs_in(await events_of(runner, attempt)) == ["once"]


async def test_of_many_who_start_an_attempt_at_once_one_does(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"log": "once"}, HANG])
    async with backend.open_runner() as other_engine:
        await asyncio.gather(*(each.start(attempt) for each in (runner, other_engine, runner, other_engine)))
        await said(runner, attempt, "once")
        await eventually_one_process(backend, attempt)
        assert isinstance(await runner.find(attempt.name), Alive)
        assert isinstance(await other_engine.find(attempt.name), Alive)
        await other_engine.kill(attempt.name)
        assert backend.living_processes(attempt.name) == 0
    assert logs_in(await events_of(runner, attempt)) == ["once"]


async def test_many_attempts_run_side_by_side(runner: Runner) -> None:
    attempts = [an_attempt([{"log": f"job {number}"}, {"result": number}]) for number in range(12)]
    await asyncio.gather(*(runner.start(attempt) for attempt in attempts))
    results = []
    for number, attempt in enumerate(attempts):
        gone = await end_of(runner, attempt)
        assert isinstance(gone.outcome, ResultEvent)
        assert gone.tail.logs == (f"job {number}",)
        results.append(gone.outcome.result)
    assert results == list(range(12))


async def test_the_attempts_of_a_job_are_apart(runner: Runner) -> None:
    steps = [{"onAttempt": 1, "steps": [{"fail": "not yet"}]}, {"result": "now"}]
    first = an_attempt(steps)
    second = Attempt(replace(first.job, status=replace(first.job.status, attempts=2)))
    await runner.start(first)
    assert isinstance((await end_of(runner, first)).outcome, ErrorEvent)
    assert await runner.find(second.name) == NotStarted()
    await runner.start(second)
    assert isinstance((await end_of(runner, second)).outcome, ResultEvent)


async def test_an_attempt_whose_session_has_no_workspace_any_more_begins_anew_and_says_so(runner: Runner) -> None:
    second = an_attempt([{"log": "here"}], number=2)
    second = Attempt(replace(second.job, status=replace(second.job.status, session=a_session(1))))
    await runner.start(second)
    gone = await end_of(runner, second)
    assert isinstance(gone.outcome, ResultEvent)
    assert gone.tail.logs == ("[starting over: attempt 1 had a session, but its workspace no longer exists]", "here")


async def test_an_attempt_that_can_never_start_says_so(runner: Runner) -> None:
    job = replace(an_attempt().job, spec=a_spec(prompt=None, prompt_ref=KeyReference(name="missing", key="prompt")))
    with pytest.raises(GiveUp, match="prompt") as refusal:
        await runner.start(Attempt(job))
    assert FailedCode(refusal.value.code) is FailedCode.INTERNAL
    assert await runner.find(job.attempt_name) == NotStarted()


# How it stands, and how it ended


async def test_a_running_attempt_is_alive(runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    await runner.start(attempt)
    assert isinstance(await runner.find(attempt.name), Alive)
    await said(runner, attempt, "here")
    assert isinstance(await runner.find(attempt.name), Alive)


async def test_a_failure_comes_with_its_code_and_reason(runner: Runner) -> None:
    attempt = an_attempt([{"fail": "the tests are red"}])
    await runner.start(attempt)
    outcome = (await end_of(runner, attempt)).outcome
    assert isinstance(outcome, ErrorEvent)
    assert (outcome.code, outcome.message) == (FailedCode.AGENT_ERROR, "the tests are red")


async def test_an_executor_that_dies_without_an_outcome_is_told_by_how_it_died(runner: Runner) -> None:
    deaths = {
        "exited with code 3": {"exit": 3},
        "exited with code 0": {"exit": 0},
        "killed by signal 9": {"signal": 9},
        "killed by signal 11": {"signal": 11},
    }
    begin: list[dict[str, Any]] = [{"log": "so far"}, {"usage": {"inputTokens": 7}}]
    for words, gone in zip(deaths, await ends_of(runner, [[*begin, step] for step in deaths.values()]), strict=True):
        assert (gone.outcome, gone.code) == (None, FailedCode.EXECUTOR_DIED)
        assert words in gone.reason
        assert gone.tail == OutputTail(("so far",), Usage(input_tokens=7, cost_usd=0.0))


async def test_an_executor_killed_from_outside_is_told_by_its_signal(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    await runner.start(attempt)
    await said(runner, attempt, "here")
    backend.crash(attempt.name)
    gone = await end_of(runner, attempt)
    assert (gone.outcome, gone.code) == (None, FailedCode.EXECUTOR_DIED)
    assert "signal 9" in gone.reason


async def test_an_executor_that_vanished_unseen_is_lost(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    await runner.start(attempt)
    await said(runner, attempt, "here")
    await backend.crash_unseen(attempt.name)
    gone = await end_of(runner, attempt)
    assert (gone.outcome, gone.code) == (None, FailedCode.LOST)
    assert gone.tail.logs == ("here",)


async def test_usage_adds_up_to_the_outcome(runner: Runner) -> None:
    attempt = an_attempt([{"usage": {"inputTokens": 10, "costUsd": 0.5}}, {"usage": {"inputTokens": 5, "turns": 1}}])
    await runner.start(attempt)
    gone = await end_of(runner, attempt)
    assert gone.outcome is not None
    assert gone.outcome.usage == gone.tail.usage == Usage(input_tokens=15, cost_usd=0.5, turns=1)


@pytest.mark.parametrize("steps", [[], [{"exit": 3}], [HANG]])
async def test_a_watcher_is_told_of_every_end(runner: Runner, steps: list[object]) -> None:
    attempt = an_attempt(steps)
    async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as tasks:
        told = tasks.create_task(first_end_told(runner, attempt))
        await asyncio.sleep(0)
        await runner.start(attempt)
        if steps == [HANG]:
            await runner.kill(attempt.name)
        assert isinstance(await told, Gone)


# Asking it to end


async def test_an_attempt_that_is_asked_to_end_says_so_last(runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    await runner.start(attempt)
    await said(runner, attempt, "here")
    await runner.stop(attempt.name)
    await runner.stop(attempt.name)
    gone = await end_of(runner, attempt)
    assert isinstance(gone.outcome, ErrorEvent)
    assert gone.outcome.message == "stopped on request"


async def test_an_engine_started_later_can_ask_too(backend: RunnerBackend) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    async with backend.open_runner() as first:
        await first.start(attempt)
        await said(first, attempt, "here")
    async with backend.open_runner() as second:
        await second.stop(attempt.name)
        assert isinstance((await end_of(second, attempt)).outcome, ErrorEvent)


async def test_asking_what_is_not_there_is_harmless(runner: Runner) -> None:
    never_started, ended = an_attempt(), an_attempt([{"result": 1}])
    await runner.stop(never_started.name)
    assert await runner.find(never_started.name) == NotStarted()
    await runner.start(ended)
    before = await end_of(runner, ended)
    await runner.stop(ended.name)
    assert await runner.find(ended.name) == before


async def test_an_attempt_may_refuse_to_end(runner: Runner) -> None:
    attempt = an_attempt([STUBBORN, {"log": "tick {n}", "times": 100_000, "everyMs": 2}])
    await runner.start(attempt)
    await said(runner, attempt, "tick 3")
    await runner.stop(attempt.name)
    ticks = len(await events_of(runner, attempt))
    await said(runner, attempt, f"tick {ticks + 5}")
    assert isinstance(await runner.find(attempt.name), Alive)
    await runner.kill(attempt.name)


# Ending it, and all it started


async def test_killing_ends_the_stubborn_and_all_they_started(backend: RunnerBackend, runner: Runner) -> None:
    left = [[], [LEAVE_CHILD], [LEAVE_DETACHED_CHILD], [LEAVE_CHILD, LEAVE_DETACHED_CHILD]]

    async def run_and_kill(leave: list[dict[str, Any]]) -> None:
        attempt = an_attempt([STUBBORN, *leave, {"log": "here"}, HANG])
        await runner.start(attempt)
        await said(runner, attempt, "here")
        assert backend.living_processes(attempt.name) == 1 + len(leave)
        await runner.kill(attempt.name)
        assert backend.living_processes(attempt.name) == 0
        gone = await runner.find(attempt.name)
        assert isinstance(gone, Gone)
        assert gone.outcome is None
        assert gone.tail.logs == ("here",)

    await asyncio.gather(*map(run_and_kill, left))


async def test_an_engine_that_has_not_seen_it_yet_can_kill_it(backend: RunnerBackend) -> None:
    attempt = an_attempt([STUBBORN, {"log": "here"}, HANG])
    async with backend.open_runner() as first:
        await first.start(attempt)
        await said(first, attempt, "here")
    async with backend.open_runner() as second, asyncio.timeout(DEADLINE_SECONDS):
        await second.kill(attempt.name)
        assert isinstance(await second.find(attempt.name), Gone)
    assert backend.living_processes(attempt.name) == 0


async def test_what_was_killed_before_it_started_never_starts(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"log": "must not be"}])
    await runner.kill(attempt.name)
    assert isinstance(await runner.find(attempt.name), Gone)
    await runner.start(attempt)
    async with backend.open_runner() as other_engine:
        await other_engine.start(attempt)
        assert isinstance(await other_engine.find(attempt.name), Gone)
    assert isinstance(await runner.find(attempt.name), Gone)
    assert await events_of(runner, attempt) == []


@pytest.mark.parametrize("head_start", range(8))
async def test_a_kill_beats_a_start_that_is_under_way(backend: RunnerBackend, runner: Runner, head_start: int) -> None:
    attempt = an_attempt([STUBBORN, HANG])
    start = asyncio.create_task(runner.start(attempt))
    for _ in range(head_start):
        await asyncio.sleep(0)
    await runner.kill(attempt.name)
    assert isinstance(await runner.find(attempt.name), Gone)
    await start
    assert isinstance(await runner.find(attempt.name), Gone)
    await eventually(lambda: backend.living_processes(attempt.name) == 0)


async def test_killing_again_or_too_late_changes_nothing(runner: Runner) -> None:
    attempt = an_attempt([{"result": "done"}])
    await runner.start(attempt)
    ended = await end_of(runner, attempt)
    await runner.kill(attempt.name)
    await runner.kill(attempt.name)
    assert await runner.find(attempt.name) == ended


async def test_when_it_is_gone_so_is_all_it_started(backend: RunnerBackend, runner: Runner) -> None:
    async def run(ending: dict[str, Any]) -> None:
        attempt = an_attempt([LEAVE_CHILD, LEAVE_DETACHED_CHILD, ending])
        await runner.start(attempt)
        await end_of(runner, attempt)
        assert backend.living_processes(attempt.name) == 0

    await asyncio.gather(*(run(ending) for ending in ({"result": 1}, {"fail": "no"}, {"exit": 3}, {"signal": 9})))


async def test_when_it_vanished_unseen_all_it_started_is_gone_too(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([LEAVE_CHILD, LEAVE_DETACHED_CHILD, {"log": "here"}, HANG])
    await runner.start(attempt)
    await said(runner, attempt, "here")
    await backend.crash_unseen(attempt.name)
    await end_of(runner, attempt)
    assert backend.living_processes(attempt.name) == 0


# The engine comes and goes


async def test_attempts_outlive_the_engine(backend: RunnerBackend) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 40, "everyMs": 10}, {"result": "done"}])
    async with backend.open_runner() as first:
        await first.start(attempt)
        await said(first, attempt, "tick 3")
    async with backend.open_runner() as second:
        assert isinstance(await second.find(attempt.name), Alive)
        events = await events_of(second, attempt, follow=True)
        gone = await second.find(attempt.name)
    assert logs_in(events) == [f"tick {n}" for n in range(1, 41)]
    assert isinstance(gone, Gone)
    assert isinstance(gone.outcome, ResultEvent)


@pytest.mark.parametrize(
    ("step", "code"), [({"result": 1}, None), ({"exit": 3}, FailedCode.EXECUTOR_DIED)], ids=["result", "exit"]
)
async def test_an_end_that_no_engine_saw_is_found(
    backend: RunnerBackend, step: dict[str, int], code: FailedCode | None
) -> None:
    attempt = an_attempt([{"log": "here"}, {"sleepMs": 100}, step])
    async with backend.open_runner() as first:
        await first.start(attempt)
        await said(first, attempt, "here")
    await eventually(lambda: backend.living_processes(attempt.name) == 0)
    async with backend.open_runner() as second:
        gone = await end_of(second, attempt)
    assert gone.code is code if code else isinstance(gone.outcome, ResultEvent)


async def test_attempts_outlive_the_helpers(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 40, "everyMs": 10}, {"result": "done"}])
    await runner.start(attempt)
    await said(runner, attempt, "tick 3")
    backend.kill_helpers()
    assert isinstance((await end_of(runner, attempt)).outcome, ResultEvent)
    next_attempt = an_attempt([{"result": "started"}])
    await start_now_or_later(runner, next_attempt)
    assert isinstance((await end_of(runner, next_attempt)).outcome, ResultEvent)


async def test_what_outlived_the_helpers_can_be_killed(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([STUBBORN, LEAVE_DETACHED_CHILD, {"log": "here"}, HANG])
    await runner.start(attempt)
    await said(runner, attempt, "here")
    backend.kill_helpers()
    await runner.kill(attempt.name)
    assert isinstance(await runner.find(attempt.name), Gone)
    assert backend.living_processes(attempt.name) == 0


# Its output


async def test_output_is_numbered_from_one_without_gaps(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 300}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    events = await events_of(runner, attempt)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert logs_in(events) == [f"tick {n}" for n in range(1, 301)]


async def test_output_can_be_read_on_from_any_number(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 50}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    events = await events_of(runner, attempt)
    for seq in range(len(events) + 3):
        assert await events_of(runner, attempt, after_seq=seq) == events[seq:]


async def test_a_long_output_can_be_read_on_from_any_number(runner: Runner) -> None:
    line = "x" * (TEXT_BYTES - 10)
    attempt = an_attempt([{"log": "short {n}", "times": 500}, {"log": line + "{n}", "times": 150}, {"log": "end"}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    events = await events_of(runner, attempt)
    for seq in range(0, len(events) + 1, 23):
        assert await events_of(runner, attempt, after_seq=seq) == events[seq:]


async def test_reading_does_not_wait_for_more(runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, HANG])
    assert await events_of(runner, attempt) == []
    await runner.start(attempt)
    await said(runner, attempt, "here")
    assert logs_in(await events_of(runner, attempt)) == ["here"]


async def test_a_follower_gets_each_event_once_until_the_end(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 30, "everyMs": 3}, {"result": "done"}])
    async with asyncio.TaskGroup() as tasks:
        early = tasks.create_task(events_of(runner, attempt, follow=True))
        await asyncio.sleep(0)
        await runner.start(attempt)
        await said(runner, attempt, "tick 5")
        late = tasks.create_task(events_of(runner, attempt, follow=True))
        resumed = tasks.create_task(events_of(runner, attempt, after_seq=4, follow=True))
    events = await events_of(runner, attempt)
    assert isinstance(events[-1], ResultEvent)
    assert early.result() == late.result() == events
    assert resumed.result() == events[4:]


@pytest.mark.parametrize("step", [{"exit": 3}, HANG], ids=["crashed", "killed"])
async def test_a_follower_is_let_go_when_there_is_no_outcome(runner: Runner, step: dict[str, object]) -> None:
    attempt = an_attempt([{"log": "here"}, step])
    await runner.start(attempt)
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(events_of(runner, attempt, follow=True))
        await said(runner, attempt, "here")
        if step == HANG:
            await runner.kill(attempt.name)
    assert logs_in(follower.result()) == ["here"]


async def test_a_reader_that_leaves_disturbs_nobody(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 20, "everyMs": 3}])
    await runner.start(attempt)
    async with aclosing(runner.read(attempt.name, follow=True)) as batches:
        async for _ in batches:
            break
    assert len(logs_in(await events_of(runner, attempt, follow=True))) == 20


# Its output's end


async def test_there_is_no_tail_before_the_start(runner: Runner) -> None:
    assert await runner.tail(an_attempt().name) == OutputTail()


async def test_the_tail_of_a_running_attempt_is_how_far_it_is(runner: Runner) -> None:
    attempt = an_attempt([{"usage": {"outputTokens": 3}}, {"log": "grüße"}, HANG])
    await runner.start(attempt)
    await said(runner, attempt, "grüße")
    assert await runner.tail(attempt.name) == OutputTail(("grüße",), Usage(output_tokens=3, cost_usd=0.0))


async def test_the_tail_is_bounded_in_lines(runner: Runner) -> None:
    attempt = an_attempt([{"log": "tick {n}", "times": 250}])
    await runner.start(attempt)
    expected = tuple(f"tick {n}" for n in range(251 - STATUS_LOG_LINES, 251))
    assert (await end_of(runner, attempt)).tail.logs == expected


async def test_the_tail_is_bounded_in_bytes(runner: Runner) -> None:
    lines = [letter * (4096 // len(letter.encode())) for letter in ("x", "ß", '"', "\x01")]
    for line, gone in zip(lines, await ends_of(runner, [[{"log": line, "times": 20}] for line in lines]), strict=True):
        assert gone.tail.logs == (line,) * (STATUS_LOG_BYTES // 4096)


async def test_a_crash_costs_no_usage_however_much_was_said_after_it(runner: Runner) -> None:
    attempt = an_attempt([{"usage": {"costUsd": 1.5}}, {"log": "x" * TEXT_BYTES, "times": 40}, {"exit": 3}])
    await runner.start(attempt)
    assert (await end_of(runner, attempt)).tail.usage == Usage(cost_usd=1.5)


# Its result


async def test_a_result_comes_back_as_it_was(runner: Runner) -> None:
    async def run(result: object) -> None:
        attempt = an_attempt([{"result": result}])
        await runner.start(attempt)
        await end_of(runner, attempt)
        assert await runner.result(attempt.name) == result

    await asyncio.gather(*map(run, (None, 0, "text", [1, 2], {"a": {"b": None}})))


async def test_a_large_result_is_kept_beside_the_output(runner: Runner) -> None:
    result = {"text": "grüße " * 30_000}
    attempt = an_attempt([{"result": result}])
    await runner.start(attempt)
    outcome = (await end_of(runner, attempt)).outcome
    assert isinstance(outcome, ResultEvent)
    assert outcome.file is not None
    assert outcome.result is None
    assert await runner.result(attempt.name) == result


async def test_there_is_no_result_before_a_success_and_after_the_removal(runner: Runner) -> None:
    failed, succeeded = an_attempt([{"fail": "no"}]), an_attempt([{"result": 1}])
    for attempt in (failed, succeeded):
        with pytest.raises(NotFound):
            await runner.result(attempt.name)
        await runner.start(attempt)
        await end_of(runner, attempt)
    with pytest.raises(NotFound):
        await runner.result(failed.name)
    await runner.remove(succeeded.name)
    with pytest.raises(NotFound):
        await runner.result(succeeded.name)


# What it changed


@pytest.mark.parametrize("end", [{"result": 1}, {"fail": "no"}], ids=["success", "failure"])
async def test_what_changed_in_the_workspace_is_kept_as_a_patch(runner: Runner, end: dict[str, Any]) -> None:
    attempt = an_attempt([{"write": {"path": "a/hello.txt", "text": "hello\n"}}, end])
    with pytest.raises(NotFound):
        await runner.patch(attempt.name)
    await runner.start(attempt)
    await end_of(runner, attempt)
    patch = await runner.patch(attempt.name)
    assert patch.startswith(b"diff --git a/a/hello.txt b/a/hello.txt\n")
    assert b"\n+hello\n" in patch
    await runner.remove(attempt.name)
    with pytest.raises(NotFound):
        await runner.patch(attempt.name)


async def test_where_nothing_changed_there_is_no_patch(runner: Runner) -> None:
    attempt = an_attempt([{"result": 1}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    with pytest.raises(NotFound):
        await runner.patch(attempt.name)


# What it leaves


async def test_a_workspace_is_kept_until_it_is_removed(backend: RunnerBackend, runner: Runner) -> None:
    attempt, other = an_attempt([{"log": "here"}]), an_attempt()
    for each in (attempt, other):
        await runner.start(each)
        await end_of(runner, each)
    if backend.keeps_workspaces:
        assert sorted(await runner.workspaces()) == sorted([attempt.name, other.name])
    await runner.remove(attempt.name, keep_output=True)
    assert await runner.workspaces() == ([other.name] if backend.keeps_workspaces else [])
    assert logs_in(await events_of(runner, attempt)) == ["here"]


async def test_whatever_is_kept_of_an_attempt_is_listed_until_it_is_removed(runner: Runner) -> None:
    attempt, other = an_attempt(), an_attempt()
    assert await runner.retained() == []
    for each in (attempt, other):
        await runner.start(each)
        await end_of(runner, each)
    await runner.remove(other.name, keep_output=True)
    assert sorted(await runner.retained()) == sorted([attempt.name, other.name])
    for each in (attempt, other):
        await runner.remove(each.name)
    assert await runner.retained() == []


async def test_what_lost_its_workspace_is_still_known_as_ended(runner: Runner) -> None:
    attempt = an_attempt([{"log": "once"}])
    await runner.start(attempt)
    ended = await end_of(runner, attempt)
    await runner.remove(attempt.name, keep_output=True)
    await runner.start(attempt)
    assert await runner.find(attempt.name) == ended
    assert logs_in(await events_of(runner, attempt)) == ["once"]


async def test_what_was_removed_is_no_longer_known(runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    await runner.remove(attempt.name)
    assert await runner.find(attempt.name) == NotStarted()
    assert await events_of(runner, attempt) == []
    assert await runner.tail(attempt.name) == OutputTail()
    assert await runner.workspaces() == []


async def test_removing_what_is_not_there_is_harmless(runner: Runner) -> None:
    await runner.remove(an_attempt().name)
    await runner.remove(an_attempt().name, keep_output=True)


# What the tests wait for


async def end_of(runner: Runner, attempt: Attempt) -> Gone:
    pause = poll_intervals()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not isinstance(state := await runner.find(attempt.name), Gone):
            await asyncio.sleep(next(pause))
    return state


async def ends_of(runner: Runner, all_steps: Sequence[list[dict[str, Any]]]) -> list[Gone]:
    """How attempts of these steps end, which run side by side."""
    attempts = [an_attempt(steps) for steps in all_steps]
    await asyncio.gather(*(runner.start(attempt) for attempt in attempts))
    return await asyncio.gather(*(end_of(runner, attempt) for attempt in attempts))


async def said(runner: Runner, attempt: Attempt, text: str) -> None:
    """Return once the attempt has logged `text`."""
    async with asyncio.timeout(DEADLINE_SECONDS), aclosing(runner.read(attempt.name, follow=True)) as batches:
        async for lines in batches:
            if text in logs_in(list(events_in(lines))):
                return
    raise AssertionError(f"it ended without saying {text!r}")


async def events_of(
    runner: Runner, attempt: Attempt, *, after_seq: int = 0, follow: bool = False
) -> Sequence[AnyEvent]:
    async with asyncio.timeout(DEADLINE_SECONDS), aclosing(runner.read(attempt.name, after_seq, follow=follow)) as read:
        return [event async for lines in read for event in events_in(lines)]


def logs_in(events: Sequence[AnyEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, LogEvent)]


async def first_end_told(runner: Runner, attempt: Attempt) -> Gone:
    """How the attempt ended, found as a watcher does: by looking when its name comes."""
    async for name in runner.watch():
        if name == attempt.name and isinstance(state := await runner.find(name), Gone):
            return state
    raise AssertionError("the watch ended")


async def eventually_one_process(backend: RunnerBackend, attempt: Attempt) -> None:
    await eventually(lambda: backend.living_processes(attempt.name) == 1)


async def start_now_or_later(runner: Runner, attempt: Attempt) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                return await runner.start(attempt)
            except RetryLater as error:
                await asyncio.sleep(error.delay_seconds)
