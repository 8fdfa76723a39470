"""Parsing of mock scripts, and the errors for invalid ones."""

from typing import Any

import pytest

from labrats.model.errors import Invalid
from labrats.model.job import Usage
from labrats.model.mock_script import (
    Child,
    Consume,
    Die,
    Exit,
    Fail,
    Fork,
    Hang,
    IgnoreSignals,
    Log,
    OnAttempt,
    OnRepair,
    SetResult,
    Sleep,
    TextFile,
    Write,
    parse_script,
    parse_steps,
)


@pytest.mark.parametrize(
    ("step", "meaning"),
    [
        ({"log": "hi"}, Log(log="hi")),
        ({"log": "hi", "times": 3, "everyMs": 100}, Log(log="hi", times=3, every_ms=100)),
        ({"sleepMs": 500}, Sleep(sleep_ms=500)),
        ({"write": {"path": "a/b.txt", "text": ""}}, Write(write=TextFile(path="a/b.txt", text=""))),
        ({"result": None}, SetResult(result=None)),
        ({"fail": "reason"}, Fail(fail="reason")),
        ({"exit": 3}, Exit(exit=3)),
        ({"signal": 9}, Die(signal=9)),
        ({"hang": True}, Hang(hang=True)),
        ({"ignoreSignals": True}, IgnoreSignals(ignore_signals=True)),
        ({"fork": {"seconds": 300, "detached": True}}, Fork(fork=Child(seconds=300, detached=True))),
        ({"onAttempt": 2, "steps": [{"log": "hi"}]}, OnAttempt(number=2, steps=(Log(log="hi"),))),
        ({"onRepair": [{"result": 1}]}, OnRepair(steps=(SetResult(result=1),))),
    ],
)
def test_each_step_is_parsed(step: dict[str, Any], meaning: object) -> None:
    assert parse_steps([step]) == [meaning]


def test_the_usage_of_a_step_is_a_usage() -> None:
    step = {"usage": {"inputTokens": 10, "outputTokens": 5, "cacheReadTokens": 1, "costUsd": 0.5, "turns": 1}}

    [consume] = parse_steps([step])

    assert isinstance(consume, Consume)
    assert consume.usage.as_usage() == Usage(
        input_tokens=10, output_tokens=5, cache_read_tokens=1, cost_usd=0.5, turns=1
    )


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({"lgo": "typo"}, ""),
        ({}, ""),
        ("log", ""),
        ({"log": "two", "sleepMs": 1}, ""),
        ({"log": "hi", "tmes": 3}, ".tmes"),
        ({"log": 1}, ".log"),
        ({"log": "hi", "times": 0}, ".times"),
        ({"sleepMs": -1}, ".sleepMs"),
        ({"sleepMs": 10**400}, ".sleepMs"),
        ({"write": {"path": "", "text": "x"}}, ".write.path"),
        ({"write": {"path": "a"}}, ".write.text"),
        ({"usage": {"inputTokens": -1}}, ".usage.inputTokens"),
        ({"usage": {"costUsd": 1e300}}, ".usage.costUsd"),
        ({"exit": 256}, ".exit"),
        ({"signal": 0}, ".signal"),
        ({"hang": False}, ".hang"),
        ({"fork": {"seconds": 0}}, ".fork.seconds"),
        ({"onAttempt": 0, "steps": []}, ".onAttempt"),
        ({"onAttempt": 1}, ".steps"),
        ({"onAttempt": 1, "steps": [{"sleepMs": "1"}]}, ".steps[0].sleepMs"),
        ({"onAttempt": 1, "steps": [{"onAttempt": 1, "steps": []}]}, ".steps[0]"),
    ],
)
def test_an_invalid_step_is_named_by_its_path(step: Any, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_steps([{"log": "fine"}, step])

    assert [problem.field for problem in refused.value.problems] == [f"metadata.mock.steps[1]{field}"]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"log": "hi", "tmes": 3}, "there is no such field"),
        ({"write": {"path": "a"}}, "is required"),
        ({"write": {"path": "", "text": "x"}}, "must not be empty"),
        ({"log": 1}, "must be a string"),
        ({"sleepMs": 1.5}, "must be a whole number"),
        ({"sleepMs": -1}, "must be at least 0"),
        ({"usage": {"costUsd": "1"}}, "must be a number"),
        ({"usage": {"costUsd": 1e300}}, "must be at most 1000000000000"),
        ({"hang": 1}, "must be true or false"),
        ({"fork": 1}, "must be an object"),
        ({"onAttempt": 1, "steps": 1}, "must be an array"),
    ],
)
def test_the_error_of_a_step_uses_the_terms_of_json(step: Any, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_steps([step])

    assert [problem.message for problem in refused.value.problems] == [message]


def test_a_step_has_exactly_one_action() -> None:
    with pytest.raises(Invalid, match="exactly one of log, sleepMs, "):
        parse_steps([{"log": "two", "sleepMs": 1}])


def test_every_invalid_step_is_named() -> None:
    with pytest.raises(Invalid) as refused:
        parse_steps([{"exit": -1}, {"log": "fine"}, {"nope": 1}])

    assert [problem.field for problem in refused.value.problems] == [
        "metadata.mock.steps[0].exit",
        "metadata.mock.steps[2]",
    ]


def test_metadata_without_a_script_has_none() -> None:
    assert parse_script({"repo": "owner/name"}) is None


@pytest.mark.parametrize(
    ("mock", "field"),
    [
        ({}, "metadata.mock"),
        ([], "metadata.mock"),
        ({"stesp": []}, "metadata.mock"),
        ({"steps": {}}, "metadata.mock.steps"),
    ],
)
def test_a_script_of_another_shape_is_refused(mock: Any, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_script({"mock": mock})

    assert [problem.field for problem in refused.value.problems] == [field]
