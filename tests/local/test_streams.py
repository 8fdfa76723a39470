"""Tests with streams as vLLM, Ollama and llama.cpp document or send them, and with broken streams."""

import json
import signal
from typing import Any

import httpx2
import pytest

from labrats.executor.providers.chat_errors import ErrorResponse, raise_for_status
from labrats.executor.providers.chat_stream import CompletionBuilder
from labrats.model.ai_model import Prices
from labrats.model.job import FailedCode, Usage
from tests.local.chat_server import (
    Calls,
    Floods,
    Refuses,
    Says,
    Sends,
    chat_server,
    data,
    event,
)
from tests.local.conftest import Prepare, failure_of, result_of
from tests.unit.executor.attempts import wait_until

DEEP = b"[" * 10_000
"""JSON that is nested too deeply to be parsed."""

DONE = b"data: [DONE]\n\n"
REACT = {"react_enabled": True}


class NullListener:
    """A listener that does nothing."""

    def on_data(self) -> None: ...

    def on_text(self, piece: str) -> None: ...

    def on_reasoning(self, piece: str) -> None: ...

    def on_retry(self, problem: str, seconds: float) -> None: ...


def calls_in(*deltas: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the name and arguments of each call in a completion whose events have these `tool_calls`."""
    completion = CompletionBuilder(NullListener())
    for delta in deltas:
        completion.add(event({"tool_calls": delta}).removeprefix(b"data: ").strip())
    completion.add(event({}, finish_reason="tool_calls").removeprefix(b"data: ").strip())
    return [(call.name, call.arguments) for call in completion.build().calls]


def a_call(name: str | None, arguments: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **fields}


A, B = '{"path": "a"}', '{"path": "b"}'
BOTH = [("read_file", A), ("read_file", B)]


@pytest.mark.parametrize(
    "deltas",
    [
        # Ollama, for models without a parser: every call is complete and has the index 0.
        [[a_call("read_file", A, index=0, id="call_1"), a_call("read_file", B, index=0, id="call_2")]],
        [[a_call("read_file", A, index=0, id="call_1")], [a_call("read_file", B, index=0, id="call_2")]],
        # The same without ids; and Ollama before 0.4.7, without an index.
        [[a_call("read_file", A, index=0)], [a_call("read_file", B, index=0)]],
        [[a_call("read_file", A)], [a_call("read_file", B)]],
        [[a_call("read_file", A, index=None, id=None)], [a_call("read_file", B, index=None, id=None)]],
        # vLLM: the name first, then the arguments in pieces.
        [
            [a_call("read_file", "", index=0, id="call_1")],
            [a_call(None, A[:5], index=0)],
            [a_call(None, A[5:], index=0)],
            [a_call("read_file", "", index=1, id="call_2")],
            [a_call(None, B, index=1)],
        ],
        # Interleaved pieces of two calls.
        [
            [a_call("read_file", A[:5], index=0, id="1"), a_call("read_file", B[:5], index=1, id="2")],
            [a_call(None, B[5:], index=1), a_call(None, A[5:], index=0)],
        ],
        # A name that is repeated with each piece, without ids.
        [
            [a_call("read_file", A[:5], index=0)],
            [a_call("read_file", A[5:], index=0)],
            [a_call("read_file", B[:5], index=0)],
            [a_call("read_file", B[5:], index=0)],
        ],
        # Pieces without an index belong to the call before them.
        [[a_call("read_file", A[:5])], [a_call(None, A[5:])], [a_call("read_file", B[:5])], [a_call(None, B[5:])]],
        # Arguments as an object, and a function that is null.
        [
            [a_call("read_file", json.loads(A), index=0, id="1")],
            [{"index": 0, "function": None}],
            [a_call("read_file", B)],
        ],
    ],
)
def test_parallel_calls_are_separated_whatever_their_indexes(deltas: list[list[dict[str, Any]]]) -> None:
    assert [(name, json.loads(arguments)) for name, arguments in calls_in(*deltas)] == [
        (name, json.loads(arguments)) for name, arguments in BOTH
    ]


def test_parallel_calls_of_one_index_are_all_executed(attempt_on: Prepare) -> None:
    calls = [
        a_call("write_file", json.dumps({"path": f"{name}.txt", "content": name}), index=0, id=f"call_{name}")
        for name in "abc"
    ]
    stream = b"".join([*(event({"tool_calls": [call]}) for call in calls), event({}, finish_reason="tool_calls"), DONE])
    with chat_server(Sends(stream), Says("Three files.")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "Three files."
    assert sorted(path.name for path in attempt.workspace.glob("*.txt")) == ["a.txt", "b.txt", "c.txt"]


def test_null_in_place_of_a_list_or_object_counts_as_absent(attempt_on: Prepare) -> None:
    stream = [
        data({"choices": None, "usage": None}),
        data({"choices": [{"index": None, "delta": None, "finish_reason": None}]}),
        data({"choices": [{"delta": {"role": "assistant", "content": None, "tool_calls": None, "reasoning": None}}]}),
        event({"content": "ok"}),
        event({}, finish_reason="stop"),
        data({"choices": None, "usage": {"prompt_tokens": None, "completion_tokens": 3}}),
    ]
    with chat_server(Sends(b"".join([*stream, DONE]))) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert result_of(attempt) == "ok"
    assert attempt.outcome.usage == Usage(output_tokens=3, turns=1)


def test_stream_with_a_proper_end_needs_no_finish_reason(attempt_on: Prepare) -> None:
    with chat_server(Sends(event({"content": "ok"}) + DONE)) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert result_of(attempt) == "ok"


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("config", [{}, REACT], ids=["once", "react"])
def test_reasoning_is_logged_but_not_in_the_answer(attempt_on: Prepare, field: str, config: dict[str, Any]) -> None:
    """vLLM and Ollama use the field `reasoning`, llama.cpp and older versions of vLLM `reasoning_content`."""
    stream = [
        event({"role": "assistant", "content": ""}),
        event({field: "Is it 4?\nI th"}),
        event({field: "ink so."}),
        event({"content": "It is 4."}),
        event({}, finish_reason="stop"),
    ]
    turns = [Calls("run_command", {"command": "true"})] if config else []
    with chat_server(*turns, Sends(b"".join([*stream, DONE]))) as server:
        attempt = attempt_on(server, config=config)
        attempt.run()

    assert result_of(attempt) == "It is 4."
    assert attempt.logs[-3:] == ["[thinking] Is it 4?", "[thinking] I think so.", "It is 4."]


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (Says(""), "gave an empty answer"),
        (Says("  \n"), "gave an empty answer"),
        (Says("<think>Hm.</think>"), "it wrote only reasoning"),
        (Says("", finish_reason="content_filter"), "content filter"),
        (Says("<think>Hm, let me see", finish_reason="length"), "its reasoning reached a length limit"),
        (Sends(event({"reasoning": "Hm."}) + event({}, finish_reason="stop") + DONE), "it wrote only reasoning"),
        (Calls("get_weather", {"city": "Oslo"}), "config.reactEnabled"),
    ],
)
def test_empty_answer_fails_with_the_reason(attempt_on: Prepare, turn: Any, words: str) -> None:
    with chat_server(turn) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.AGENT_ERROR
    assert "empty answer" in failure_of(attempt)[1]
    assert words in failure_of(attempt)[1]
    assert attempt.outcome.usage.turns == 1


def test_model_with_empty_answers_is_asked_only_a_few_times(attempt_on: Prepare) -> None:
    with chat_server(Says("")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.AGENT_ERROR
    assert "empty answer" in failure_of(attempt)[1]
    assert len(server.requests) <= 5


def test_empty_final_answer_without_other_calls_is_a_failure(attempt_on: Prepare) -> None:
    with chat_server(Calls("finish", {"answer": " "})) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert "empty answer" in failure_of(attempt)[1]


@pytest.mark.parametrize("phrase", ["I am sorry. ", "\n", "Once more, with all of my heart and soul: " * 30])
@pytest.mark.parametrize("field", ["content", "reasoning"])
def test_model_that_repeats_itself_without_end_is_stopped(attempt_on: Prepare, phrase: str, field: str) -> None:
    with chat_server(Floods(event({field: phrase}))) as server:
        attempt = attempt_on(server, prices=Prices(input=1))
        attempt.run()

    code, sentence = failure_of(attempt)
    assert code is FailedCode.AGENT_ERROR
    assert "repeats itself without end" in sentence
    assert "config.sampling.frequencyPenalty" in sentence
    assert attempt.outcome.usage == Usage(turns=1), "the run has a cost, but it is unknown"


def test_long_answer_with_some_repetition_is_not_endless(attempt_on: Prepare) -> None:
    rows = "".join(f"| {number} | 0 | 0 |\n" for number in range(1000)) + "-" * 4000 + "\nDone."
    with chat_server(Says(rows)) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert result_of(attempt) == rows


def test_endless_line_is_logged_while_it_arrives_and_after_a_stop(attempt_on: Prepare) -> None:
    sentence = "All work and no play makes Jack a dull boy; "
    with chat_server(Floods(event({"content": sentence}), pause_seconds=0.05)) as server:
        attempt = attempt_on(server)
        with attempt.started() as process:
            wait_until(lambda: bool(attempt.logs), "a part of the line is shown")
            process.send_signal(signal.SIGTERM)
            process.wait()

    assert failure_of(attempt) == (FailedCode.AGENT_ERROR, "stopped on request")
    shown = " ".join(attempt.logs)
    assert (sentence * (len(shown) // len(sentence) + 1)).startswith(shown)


def test_incomplete_answer_is_logged_at_a_timeout(attempt_on: Prepare) -> None:
    with chat_server(Floods(event({"content": "a"}), pause_seconds=0.05)) as server:
        attempt = attempt_on(server, config={"timeout_ms": 2000})
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.TIMEOUT
    [line] = attempt.logs
    assert line == "a" * len(line)
    assert attempt.outcome.usage == Usage(turns=1)


def test_long_line_is_not_split_inside_a_secret(attempt_on: Prepare) -> None:
    secret = "correct horse battery staple"
    text = f"{'word ' * 38}{secret} {'word ' * 50}"
    with chat_server(Says(text)) as server:
        attempt = attempt_on(server, secrets={"OPENAI_API_KEY": secret})
        attempt.run()

    assert "horse" not in " ".join(attempt.logs)
    assert "[redacted]" in " ".join(attempt.logs)


@pytest.mark.parametrize(
    ("window", "limit"), [(8192, 8192), (None, 100_000), (200_000, 100_000)], ids=["small", "unknown", "large"]
)
def test_requested_length_fits_the_reported_window(attempt_on: Prepare, window: int | None, limit: int) -> None:
    models = {"data": [{"id": "test-model", "max_model_len": window}]}
    with chat_server(Says("ok"), models=models) as server:
        attempt = attempt_on(server, config={"max_tokens": 100_000})
        attempt.run()

    assert result_of(attempt) == "ok"
    assert 0.9 * limit < server.requests[0]["max_tokens"] <= limit


def test_length_limit_is_dropped_if_prompt_and_answer_do_not_fit(attempt_on: Prepare) -> None:
    def judge(body: dict[str, Any]) -> Refuses | None:
        too_long = Refuses(400, {"error": {"message": "maximum context length is 8192 tokens"}})
        return too_long if body.get("max_tokens", 0) > 100 else None

    with chat_server(Says("ok"), judge=judge) as server:
        attempt = attempt_on(server, config={"max_tokens": 5000})
        attempt.run()

    assert result_of(attempt) == "ok"
    assert ["max_tokens" in request for request in server.requests] == [True, False]


def test_silent_server_ends_the_run_at_the_limit_after_a_reminder(attempt_on: Prepare) -> None:
    with chat_server(Floods(b"", 300)) as server:
        attempt = attempt_on(server, idle_seconds=2.0)
        attempt.run()

    code, sentence = failure_of(attempt)
    assert code is FailedCode.AGENT_ERROR
    assert f"check the server at {server.url}" in sentence
    assert any("the run ends after 2 s of silence" in line for line in attempt.logs)


def test_silence_limit_does_not_apply_to_commands(attempt_on: Prepare) -> None:
    with chat_server(Calls("run_command", {"command": "sleep 3"}), Says("ok")) as server:
        attempt = attempt_on(server, config=REACT, idle_seconds=2.0)
        attempt.run()

    assert result_of(attempt) == "ok"


@pytest.mark.parametrize(
    ("turn", "code", "words"),
    [
        # Ollama and LiteLLM for an unknown model; vLLM's answer is in test_ask_once.
        (
            Refuses(404, {"error": {"message": 'model "x" not found, try pulling it first', "type": "api_error"}}),
            FailedCode.MODEL_NOT_FOUND,
            "config.model",
        ),
        (
            Refuses(400, {"error": {"message": "Invalid model name passed in model=x"}}),
            FailedCode.MODEL_NOT_FOUND,
            "config.model",
        ),
        (
            Refuses(429, {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}),
            FailedCode.QUOTA,
            "waiting does not help",
        ),
        (Refuses(402, {"error": {"message": "Insufficient credits"}}), FailedCode.QUOTA, "waiting does not help"),
        (Sends(data({"error": {"message": "CUDA error"}})), FailedCode.AGENT_ERROR, "reported an error: CUDA error"),
        (
            Sends(event({"content": "half an ans"}), breaks_off=True),
            FailedCode.AGENT_ERROR,
            "closed the connection in the middle",
        ),
        (Sends(b'data: {"error": ' + DEEP + b"}\n\n"), FailedCode.AGENT_ERROR, "that is not a chat completion"),
    ],
)
def test_errors_of_servers_have_their_codes_and_reasons(
    attempt_on: Prepare, turn: Any, code: FailedCode, words: str
) -> None:
    with chat_server(turn) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert failure_of(attempt)[0] is code
    assert words in failure_of(attempt)[1]
    assert not failure_of(attempt)[1].rstrip().endswith(":")


async def test_deeply_nested_body_of_an_error_is_its_reason() -> None:
    with pytest.raises(ErrorResponse) as failure:
        await raise_for_status(httpx2.Response(400, content=DEEP))

    assert (failure.value.code, failure.value.reason) == (FailedCode.AGENT_ERROR, "[" * 1000)


def test_exhausted_quota_is_not_retried(attempt_on: Prepare) -> None:
    with chat_server(Refuses(429, {"error": {"code": "insufficient_quota", "message": "no"}})) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.QUOTA
    assert len(server.requests) == 1


def test_log_names_limits_that_cannot_be_checked(attempt_on: Prepare) -> None:
    with chat_server(Says("ok", usage={})) as server:
        attempt = attempt_on(server, config={"max_tokens": 500}, prices=Prices(input=1, output=1))
        attempt.run()

    assert result_of(attempt) == "ok"
    assert attempt.outcome.usage == Usage(turns=1)
    assert "[the model's server reports no usage: config.maxTokens cannot be checked]" in attempt.logs
