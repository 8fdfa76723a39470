"""Tests of results with a schema, of the real agent programs."""

import shutil
from typing import Any

import pytest

from labrats.model.job import FailedCode
from labrats.model.protocol import ResultEvent, Sandbox
from tests.agents.agent_cli import AgentCli, words
from tests.agents.claude import CLAUDE
from tests.agents.codex import CODEX
from tests.agents.conftest import Prepare
from tests.support.scripted_model import Calls, Says, Turn
from tests.unit.executor.attempts import AttemptFolder

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"risk": {"$ref": "#/$defs/risk"}},
    "required": ["risk"],
    "additionalProperties": False,
    "$defs": {"risk": {"type": "integer"}},
}
TUPLE = {**SCHEMA, "properties": {"risk": {"prefixItems": [{"type": "integer"}]}}}
"""A schema that neither program takes."""


def data_of(attempt: AttemptFolder) -> Any:
    assert isinstance(attempt.outcome, ResultEvent), attempt.outcome
    return attempt.outcome.data


def answers(cli: AgentCli, value: dict[str, Any]) -> Turn:
    """Return the turn in which the model gives a value in the way that the program asks for."""
    return Calls("StructuredOutput", value) if cli is CLAUDE else Says(as_text(value))


def as_text(value: dict[str, Any]) -> str:
    return str(value).replace("'", '"')


def test_program_in_a_sandbox_takes_the_schema_and_its_value_is_the_data(cli: AgentCli, attempt_on: Prepare) -> None:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    with cli.serve(answers(cli, {"risk": 3})) as server:
        attempt = attempt_on(server, result_schema=SCHEMA, sandbox=Sandbox(program=program))
        assert attempt.run() == 0, attempt.outcome

    assert data_of(attempt) == {"risk": 3}
    assert attempt.result.replace(" ", "") == '{"risk":3}'
    (request,) = server.requests
    sent = {name: value for name, value in SCHEMA.items() if name != "$schema"}
    if cli is CODEX:
        assert request["text"]["format"]["schema"] == sent
    else:
        assert next(tool["input_schema"] for tool in request["tools"] if tool["name"] == "StructuredOutput") == sent
    assert "$defs" not in words(request[cli.conversation]), "the prompt does not repeat the schema"


@pytest.mark.parametrize("schema", [TUPLE, {"type": "array"}], ids=["unknown keyword", "no object"])
def test_prompt_has_a_schema_that_the_program_does_not_take(
    cli: AgentCli, attempt_on: Prepare, schema: dict[str, Any]
) -> None:
    answer = '{"risk": [1]}' if schema is TUPLE else "[1]"
    with cli.serve(Says(answer)) as server:
        attempt = attempt_on(server, result_schema=schema)
        assert attempt.run() == 0, attempt.outcome

    assert attempt.result == answer
    assert data_of(attempt) == ({"risk": [1]} if schema is TUPLE else [1])
    assert "It must be valid under this JSON Schema" in words(server.requests[-1][cli.conversation])


def test_answer_that_does_not_match_is_corrected_in_the_same_session(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("echo hi > made"), Says('{"risk": ["high"]}'), Says('{"risk": [7]}')) as server:
        attempt = attempt_on(server, result_schema=TUPLE)
        assert attempt.run() == 0, attempt.outcome

    assert data_of(attempt) == {"risk": [7]}
    assert (attempt.workspace / "made").read_text() == "hi\n"
    sent = words(server.requests[-1][cli.conversation])
    assert "echo hi > made" in sent
    assert 'risk[0]: the value is not of type "integer"' in sent
    usage = attempt.outcome.usage
    assert (usage.turns, usage.input_tokens + usage.cache_read_tokens, usage.output_tokens) == (3, 300, 30)


def test_model_that_does_not_use_the_way_of_the_program_is_corrected(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(Says("It is fine.")) as server:
        attempt = attempt_on(server, result_schema=SCHEMA)
        assert attempt.run() == 1

    code, message = attempt.failure
    assert (code, "it is not JSON" in message) == (FailedCode.RESULT_INVALID, True)
    assert "Your result does not match" in words(server.requests[-1][cli.conversation])
