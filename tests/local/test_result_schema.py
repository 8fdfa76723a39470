"""Tests of results with a schema, of local providers with a scripted server."""

from typing import Any

import pytest

from labrats.model.job import FailedCode
from labrats.model.protocol import ResultEvent
from tests.local.chat_server import Calls, Refuses, Says, chat_server
from tests.local.conftest import Prepare, failure_of
from tests.unit.executor.attempts import AttemptFolder

SCHEMA = {"type": "object", "properties": {"risk": {"type": "integer"}}, "required": ["risk"]}


def data_of(attempt: AttemptFolder) -> Any:
    assert isinstance(attempt.outcome, ResultEvent), attempt.outcome
    return attempt.outcome.data


def test_server_and_prompt_get_the_schema(attempt_on: Prepare) -> None:
    with chat_server(Says('{"risk": 1}')) as server:
        attempt = attempt_on(server, prompt="How risky?", result_schema=SCHEMA)
        attempt.run()

    assert data_of(attempt) == {"risk": 1}
    (request,) = server.requests
    assert request["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "result", "schema": SCHEMA},
    }
    (message,) = request["messages"]
    assert message["content"].startswith("How risky?\n\n")
    assert '"required":["risk"]' in message["content"]


def test_job_without_a_schema_sends_no_format(attempt_on: Prepare) -> None:
    with chat_server(Says("ok")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert data_of(attempt) is None
    assert "response_format" not in server.requests[0]


@pytest.mark.parametrize("status", [400, 422])
def test_server_that_rejects_the_schema_is_asked_without_it(attempt_on: Prepare, status: int) -> None:
    refusal = Refuses(status, {"error": {"message": "response_format is not supported"}})
    with chat_server(refusal, Says('{"risk": 1}')) as server:
        attempt = attempt_on(server, result_schema=SCHEMA)
        attempt.run()

    assert data_of(attempt) == {"risk": 1}
    assert "response_format" not in server.requests[1]
    assert attempt.logs[0] == "[the model's server rejects the result schema: only the prompt has it]"


def test_another_refusal_fails_the_attempt(attempt_on: Prepare) -> None:
    with chat_server(Refuses(401, {"error": {"message": "no key"}})) as server:
        attempt = attempt_on(server, result_schema=SCHEMA)
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.AUTH
    assert len(server.requests) == 1


def test_prompt_of_the_correction_has_the_first_answer_and_the_problem(attempt_on: Prepare) -> None:
    with chat_server(Says('{"risk": "high"}'), Says('{"risk": 2}')) as server:
        attempt = attempt_on(server, prompt="How risky?", result_schema=SCHEMA)
        attempt.run()

    assert data_of(attempt) == {"risk": 2}
    assert attempt.outcome.usage.turns == 2
    (message,) = server.requests[1]["messages"]
    prompt = message["content"]
    assert prompt.startswith("How risky?")
    assert '\n{"risk": "high"}\n</answer-' in prompt
    assert 'risk: the value is not of type "integer"' in prompt


def test_correction_after_work_with_tools_is_a_single_request(attempt_on: Prepare) -> None:
    turns = (
        Calls("write_file", {"path": "made", "content": "x"}),
        Calls("finish", {"answer": "It is fine."}),
        Says('{"risk": 3}'),
    )
    with chat_server(*turns) as server:
        attempt = attempt_on(server, config={"react_enabled": True}, result_schema=SCHEMA)
        attempt.run()

    assert data_of(attempt) == {"risk": 3}
    assert "tools" not in server.requests[-1]
    assert server.requests[-1]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (attempt.workspace / "made").read_text() == "x"
