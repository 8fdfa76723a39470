"""Tests of the steps of the mock provider's script."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.providers import mock
from labrats.model.config import JobConfig
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import UsageEvent
from tests.unit.executor.attempts import Work, a_task, some_work


async def played(tmp_path: Path, steps: list[Any], **fields: Any) -> tuple[Any, Work]:
    with some_work(tmp_path, a_task(tmp_path, steps, **fields)) as work:
        return await mock.run(work.context), work


async def test_log_lines_are_counted_from_one(tmp_path: Path) -> None:
    _, work = await played(tmp_path, [{"log": "tick {n} of {m}", "times": 3, "everyMs": 1}, {"log": "done"}])

    assert work.logs == ["tick 1 of {m}", "tick 2 of {m}", "tick 3 of {m}", "done"]


async def test_log_line_may_show_the_prompt(tmp_path: Path) -> None:
    _, work = await played(tmp_path, [{"log": "asked: {prompt}"}])

    assert work.logs == [f"asked: {work.context.prompt}"]


async def test_file_is_written_to_the_workspace(tmp_path: Path) -> None:
    _, work = await played(tmp_path, [{"write": {"path": "a/b.txt", "text": "grüße"}}])

    assert (work.context.workspace / "a" / "b.txt").read_text("utf-8") == "grüße"


async def test_file_outside_the_workspace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GiveUp) as refused:
        await played(tmp_path, [{"write": {"path": "../escaped.txt", "text": "out"}}])

    assert refused.value.code == FailedCode.WORKSPACE
    assert not (tmp_path / "escaped.txt").exists()


async def test_usage_adds_up(tmp_path: Path) -> None:
    step = {"usage": {"inputTokens": 10, "outputTokens": 5, "cacheReadTokens": 1, "costUsd": 0.25, "turns": 1}}
    _, work = await played(tmp_path, [step, step])

    once = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=1, cost_usd=0.25, turns=1)
    assert [event.usage for event in work.events if isinstance(event, UsageEvent)] == [once, once + once]


async def test_script_may_use_all_turns_of_its_job(tmp_path: Path) -> None:
    steps = [{"usage": {"turns": 3}}, {"usage": {"turns": 3}}, {"result": "done"}]

    assert (await played(tmp_path, steps, config=JobConfig(max_turns=6)))[0] == "done"


async def test_script_with_more_turns_fails(tmp_path: Path) -> None:
    steps = [{"usage": {"turns": 3}}, {"usage": {"turns": 3}}, {"result": "never"}]

    with pytest.raises(GiveUp, match="took 6 turns, over maxTurns 5") as refused:
        await played(tmp_path, steps, config=JobConfig(max_turns=5))

    assert refused.value.code == FailedCode.MAX_TURNS


@pytest.mark.parametrize("value", ["text", None, {"a": [1, 2.5, True]}])
async def test_last_result_is_returned(tmp_path: Path, value: Any) -> None:
    result, _ = await played(tmp_path, [{"result": "first"}, {"result": value}, {"log": "after"}])

    assert result == value


@pytest.mark.parametrize(("number", "logs"), [(1, ["always"]), (2, ["second", "always"])])
async def test_steps_of_one_attempt_are_played_only_there(tmp_path: Path, number: int, logs: list[str]) -> None:
    steps = [{"onAttempt": 2, "steps": [{"log": "second"}]}, {"log": "always"}]

    _, work = await played(tmp_path, steps, number=number)

    assert work.logs == logs


async def test_hanging_script_ends_when_cancelled(tmp_path: Path) -> None:
    playing = asyncio.create_task(played(tmp_path, [{"hang": True}]))
    await asyncio.sleep(0)
    playing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await playing


async def test_invalid_script_fails_and_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(GiveUp, match=r"metadata\.mock\.steps\[0\]"):
        await played(tmp_path, [{"lgo": "typo"}])
