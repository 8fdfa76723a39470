"""Tests of results that must match a JSON Schema: the check, the one repair, and the failure."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from labrats.model.job import FailedCode
from labrats.model.protocol import ResultEvent
from labrats.model.result_schema import DATA_BYTES
from tests.unit.executor.attempts import AttemptFolder, an_attempt

SCHEMA = {"type": "object", "properties": {"risk": {"type": "integer"}}, "required": ["risk"]}
DOUBLING = {
    "$ref": "#/$defs/a0",
    "$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)} | {"a40": {}},
}
"""A schema that takes 2^40 steps."""


def answering(tmp_path: Path, *results: Any, schema: dict[str, Any] = SCHEMA, **more: Any) -> AttemptFolder:
    """Prepare an attempt that answers with the first result, and with the second one in its repair."""
    steps = [
        {"result": results[0]},
        *({"onRepair": [{"usage": {"turns": 1}}, {"result": each}]} for each in results[1:]),
    ]
    return an_attempt(tmp_path, [{"usage": {"turns": 1}}, *steps], result_schema=schema, **more)


def data_of(attempt: AttemptFolder) -> Any:
    assert attempt.run() == 0, attempt.outcome
    assert isinstance(attempt.outcome, ResultEvent)
    return attempt.outcome.data


@pytest.mark.parametrize(
    "answer",
    [
        '{"risk": 2}',
        ' \n{"risk": 2}\n',
        'Done.\n\n```json\n{"risk": 2}\n```\nSee above.',
        '```\n{"risk": 2}\n```',
        {"risk": 2},
    ],
    ids=["the whole text", "with blanks", "the only code block", "a block without a language", "a value"],
)
def test_value_is_taken_from_the_answer_which_stays_the_result(tmp_path: Path, answer: Any) -> None:
    attempt = answering(tmp_path, answer)

    assert data_of(attempt) == {"risk": 2}
    assert attempt.result == answer
    assert attempt.outcome.usage.turns == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("All is well.", "it is not JSON: the answer must be the JSON value alone, or have it in its only code block"),
        ('```\n{"risk": 1}\n```\n```\n{"risk": 2}\n```', "it is not JSON"),
        ('{"risk": "high"}', 'risk: the value is not of type "integer" (#/properties/risk/type)'),
        ("[" * 100_000, "it is nested more than 64 levels deep"),
        ('{"risk": 1, "note": "' + "x" * DATA_BYTES + '"}', "bytes as JSON, and may have at most 32768"),
        ('{"risk": 1e999}', "it is not JSON"),
    ],
    ids=["text", "two blocks", "another type", "too deep", "too large", "infinite"],
)
def test_answer_that_does_not_match_is_repaired_once(tmp_path: Path, answer: str, problem: str) -> None:
    attempt = answering(tmp_path, answer, '{"risk": 3}')

    assert data_of(attempt) == {"risk": 3}
    assert attempt.result == '{"risk": 3}'
    note, request = attempt.logs
    assert note.startswith("[the result does not match the job's resultSchema: ")
    assert problem in note
    assert request == "[asking the agent to correct its result]"
    assert attempt.outcome.usage.turns == 2, "the repair counts, too"


def test_answer_that_still_does_not_match_fails_with_the_place_and_the_rule(tmp_path: Path) -> None:
    attempt = answering(tmp_path, '{"risk": "high"}', '{"risk": "low"}')

    assert attempt.run() == 1
    code, message = attempt.failure
    assert code is FailedCode.RESULT_INVALID
    assert message == (
        "the result does not match the job's resultSchema: "
        'risk: the value is not of type "integer" (#/properties/risk/type)'
    )
    assert attempt.outcome.usage.turns == 2


def test_secrets_in_the_value_and_in_the_failure_are_redacted(tmp_path: Path) -> None:
    secrets = {"OPENAI_API_KEY": "s3cret-s3cret"}
    attempt = answering(tmp_path / "a", '{"risk": 1, "note": "s3cret-s3cret"}', secrets=secrets)
    failing = answering(
        tmp_path / "b",
        '{"s3cret-s3cret": 1}',
        schema={"properties": {"risk": {}}, "additionalProperties": False},
        secrets=secrets,
    )

    assert data_of(attempt) == {"risk": 1, "note": "[redacted]"}
    assert failing.run() == 1
    assert "'[redacted]' was unexpected" in failing.failure[1]
    assert b"s3cret" not in attempt.output.read_bytes() + failing.output.read_bytes()


def test_check_that_takes_too_long_fails_the_attempt(tmp_path: Path) -> None:
    attempt = answering(tmp_path, "1", schema=DOUBLING)

    assert attempt.run(seconds=150) == 1  # ten seconds of the processor
    assert attempt.failure == (
        FailedCode.RESULT_INVALID,
        "checking the result takes more time or memory than allowed",
    )


def test_large_value_and_large_result_fit_into_the_output(tmp_path: Path) -> None:
    note = "x" * (DATA_BYTES - 100)
    attempt = answering(tmp_path, {"risk": 1, "note": note})

    assert data_of(attempt) == {"risk": 1, "note": note}
    assert isinstance(attempt.outcome, ResultEvent)
    assert attempt.outcome.file == "result.json"
    stored = msgspec.json.decode((attempt.path / "result.json").read_bytes())
    assert stored == {"risk": 1, "note": note}


def test_null_and_texts_may_be_values(tmp_path: Path) -> None:
    assert data_of(answering(tmp_path / "a", "null", schema={"type": "null"})) is None
    assert data_of(answering(tmp_path / "b", '"yes"', schema={"enum": ["yes", "no"]})) == "yes"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (SCHEMA, {"risk": 0}),
        ({"enum": ["b", "a"]}, "b"),
        ({"minItems": 2, "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "number", "minimum": 3}},
          "type": "array"}, [3, 3]),
        ({"type": "string", "minLength": 10, "maxLength": 12}, "example..."),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
    ],
    ids=str,
)  # fmt: skip
def test_mock_without_a_script_answers_with_an_example(tmp_path: Path, schema: dict[str, Any], value: Any) -> None:
    assert data_of(an_attempt(tmp_path, result_schema=schema)) == value
