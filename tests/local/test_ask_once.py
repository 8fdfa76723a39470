"""Tests of local providers with a single request, in real attempts with a scripted server."""

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from labrats.model.config import Sampling
from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import ErrorEvent, RequestEvent
from tests.local.chat_server import Floods, Refuses, Says, Sends, chat_server, data, event
from tests.local.conftest import Prepare, failure_of, result_of

KEY = "sk-test-0123456789"


def test_answer_is_the_result_and_its_lines_are_logged(attempt_on: Prepare) -> None:
    with chat_server(Says("The first line.\n\nThe second,\tünïcode 🙂.")) as server:
        attempt = attempt_on(server, prompt="What is in it?")
        assert attempt.run() == 0

    assert result_of(attempt) == "The first line.\n\nThe second,\tünïcode 🙂."
    assert attempt.logs == ["The first line.", "", "The second,\tünïcode 🙂."]
    [request] = server.requests
    assert request["messages"] == [{"role": "user", "content": "What is in it?"}]
    assert request["model"] == "test-model"
    assert server.headers["Authorization"] is None


@pytest.mark.parametrize("provider", ["openai", "vllm", "gemma", "qwen"])
def test_every_local_provider_answers(attempt_on: Prepare, provider: str) -> None:
    with chat_server(Says("ok")) as server:
        attempt = attempt_on(server, config={"provider": provider})
        attempt.run()

    assert result_of(attempt) == "ok"


def test_usage_is_reported_by_the_server(attempt_on: Prepare) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 20}}
    with chat_server(Says("ok", usage=usage)) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.outcome.usage == Usage(input_tokens=30, output_tokens=7, cache_read_tokens=20, turns=1)


def test_usage_without_a_report_is_only_a_turn(attempt_on: Prepare) -> None:
    with chat_server(Says("ok", usage={})) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.outcome.usage == Usage(turns=1)


def test_key_is_sent_and_redacted(attempt_on: Prepare) -> None:
    with chat_server(Says(f"Your key is {KEY}, I think")) as server:
        attempt = attempt_on(server, secrets={"OPENAI_API_KEY": f"{KEY}\n"})
        attempt.run()

    assert server.headers["Authorization"] == f"Bearer {KEY}"
    assert attempt.logs == ["Your key is [redacted], I think"]
    assert KEY not in attempt.output.read_text()


def test_model_with_a_key_is_asked_through_the_key_proxy(attempt_on: Prepare) -> None:
    with chat_server(Says("ok")) as server:
        attempt = attempt_on(server, secrets={"OPENAI_API_KEY": KEY})
        attempt.run()

    requests = [each.request for each in attempt.events if isinstance(each, RequestEvent)]
    assert [(each.method, each.path, each.model) for each in requests] == [
        ("GET", "/v1/models", None),
        ("POST", "/v1/chat/completions", "test-model"),
    ]
    assert requests[1].usage.output_tokens == attempt.outcome.usage.output_tokens > 0
    assert not attempt.outcome.outputs.key_exposed


def test_failure_without_an_endpoint_says_how_to_set_it(attempt_on: Prepare) -> None:
    attempt = attempt_on(None)
    attempt.run()

    code, message = failure_of(attempt)
    assert code is FailedCode.INVALID
    assert "vllm/test-model" in message
    assert "http://127.0.0.1:8000/v1" in message


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_path_of_the_endpoint_is_optional(attempt_on: Prepare, suffix: str) -> None:
    with chat_server(Says("ok")) as server:
        attempt = attempt_on(server.url + suffix)
        attempt.run()

    assert result_of(attempt) == "ok"


def test_job_without_a_model_uses_the_first_of_the_server(attempt_on: Prepare) -> None:
    with chat_server(Says("ok"), models={"data": [{"id": "served/one"}, {"id": "other"}]}) as server:
        attempt = attempt_on(server, config={"provider": "gemma", "model": "gemma"})
        attempt.run()

    assert server.requests[0]["model"] == attempt.outcome.outputs.answered_by == "served/one"


@pytest.mark.parametrize("react_enabled", [False, True])
def test_instructions_are_in_the_system_message(attempt_on: Prepare, react_enabled: bool) -> None:
    with chat_server(Says("ok")) as server:
        attempt_on(server, config={"react_enabled": react_enabled}, instructions="Answer in French.").run()

    system, user = server.requests[0]["messages"]
    assert system["role"] == "system"
    assert system["content"].endswith("Answer in French.")
    assert user == {"role": "user", "content": "Fix the bug."}


@pytest.mark.parametrize("config", [{}, {"react_enabled": True}], ids=["once", "react"])
def test_sampling_fields_reach_the_server(attempt_on: Prepare, config: dict[str, Any]) -> None:
    sampling = Sampling(temperature=0.0, top_k=5, seed=3, reasoning_effort="high", repetition_penalty=1.2)
    with chat_server(Says("ok")) as server:
        attempt_on(server, config=config | {"sampling": sampling}).run()

    request = server.requests[0]
    expected = {"temperature": 0.0, "top_k": 5, "seed": 3, "reasoning_effort": "high", "repetition_penalty": 1.2}
    assert {name: request[name] for name in expected} == expected
    assert request["repeat_penalty"] == 1.2, "llama.cpp's name for it"
    assert "top_p" not in request


def test_request_without_sampling_has_no_sampling_fields(attempt_on: Prepare) -> None:
    with chat_server(Says("ok")) as server:
        attempt_on(server, config={"effort": "high"}).run()

    assert set(server.requests[0]) == {"model", "messages", "stream", "stream_options"}


def test_token_limit_limits_the_answer(attempt_on: Prepare) -> None:
    with chat_server(Says("half an ans", finish_reason="length")) as server:
        attempt = attempt_on(server, config={"max_tokens": 500})
        attempt.run()

    assert server.requests[0]["max_tokens"] == 500
    assert result_of(attempt) == "half an ans"
    assert attempt.logs[-1] == "[the answer was cut off at a length limit]"


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [("120", 120, 120), (format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), 12 * 3600, 24 * 3600)],
    ids=["seconds", "date"],
)
def test_pause_in_a_header_is_reported(attempt_on: Prepare, retry_after: str, least: float, most: float) -> None:
    with chat_server(Refuses(429, {"error": {"message": "slow down"}}, {"Retry-After": retry_after})) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert isinstance(attempt.outcome, ErrorEvent)
    assert least <= (attempt.outcome.retry_after_seconds or 0) <= most
    assert len(server.requests) == 1


def test_reasoning_in_the_text_is_removed_from_the_result(attempt_on: Prepare) -> None:
    with chat_server(Says("<think>\nHm, 4?\n</think>\n\nIt is 4.")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert result_of(attempt) == "It is 4."


def test_answer_that_mentions_the_end_of_reasoning_keeps_its_start(attempt_on: Prepare) -> None:
    text = "The tag </think> ends the reasoning.\nIt follows <think>."
    with chat_server(Says(text)) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert result_of(attempt) == text


def test_reasoning_without_its_first_tag_is_removed(attempt_on: Prepare) -> None:
    with chat_server(Says("Hm, 4?\n</think>\n\nIt is 4.")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert result_of(attempt) == "It is 4."


@pytest.mark.parametrize("config", [{"max_tokens": 5000}, {"react_enabled": True}], ids=["once", "react"])
def test_request_of_too_many_bytes_is_not_repeated(attempt_on: Prepare, config: dict[str, Any]) -> None:
    with chat_server(Refuses(413, b"<html>Request Entity Too Large")) as server:
        attempt = attempt_on(server, config=config)
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.CONTEXT_TOO_LONG
    assert len(server.requests) == 1


def test_answer_that_the_content_filter_ends_says_so(attempt_on: Prepare) -> None:
    with chat_server(Says("half an ans", finish_reason="content_filter")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert result_of(attempt) == "half an ans"
    assert "[the answer was cut off by the content filter of the model's server]" in attempt.logs


@pytest.mark.parametrize(
    ("turn", "code", "words"),
    [
        (Refuses(401, {"error": {"message": "Incorrect API key"}}), FailedCode.AUTH, "credentialsRef"),
        (Refuses(403, {"error": "no"}), FailedCode.AUTH, "credentialsRef"),
        (
            Refuses(404, {"object": "error", "message": "The model `x` does not exist."}),
            FailedCode.MODEL_NOT_FOUND,
            "`x`",
        ),
        (
            Refuses(429, {"error": {"message": "slow down"}}, {"Retry-After": "120"}),
            FailedCode.RATE_LIMITED,
            "slow down",
        ),
        (Refuses(503, {"detail": "Loading model"}, {"Retry-After": "120"}), FailedCode.OVERLOADED, "Loading model"),
        (
            Refuses(400, {"error": {"message": "This model's maximum context length is 10 tokens.", "code": 400}}),
            FailedCode.CONTEXT_TOO_LONG,
            "shorten",
        ),
        (
            Refuses(400, {"error": {"type": "exceed_context_size_error", "code": 400, "message": "6031 tokens"}}),
            FailedCode.CONTEXT_TOO_LONG,
            "6031 tokens",
        ),
        (
            Sends(data({"error": {"message": "maximum context length", "code": 400}})),
            FailedCode.CONTEXT_TOO_LONG,
            "shorten",
        ),
        (
            Refuses(400, {"error": {"message": "prompt too long; exceeded max context length by 7 tokens"}}),
            FailedCode.CONTEXT_TOO_LONG,
            "shorten",
        ),
        (
            Refuses(422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens"}),
            FailedCode.CONTEXT_TOO_LONG,
            "shorten",
        ),
        (
            Refuses(422, {"detail": "Input is too long for the requested model."}),
            FailedCode.CONTEXT_TOO_LONG,
            "shorten",
        ),
        (
            Refuses(200, {"choices": [{"message": {"content": "ok"}}]}, {"Content-Type": "application/json"}),
            FailedCode.AGENT_ERROR,
            "answered with JSON instead of a stream",
        ),
        (
            Refuses(200, {"error": {"message": "out of memory"}}, {"Content-Type": "application/json"}),
            FailedCode.AGENT_ERROR,
            "reported an error: out of memory",
        ),
        (
            Refuses(200, b"<html>Sign in</html>", {"Content-Type": "text/html; charset=utf-8"}),
            FailedCode.AGENT_ERROR,
            "answered with an HTML page instead of a stream",
        ),
        (Refuses(500, b"<html>oops"), FailedCode.AGENT_ERROR, "answered 500: <html>oops"),
        (Refuses(302, b"", {"Location": "http://127.0.0.1:9/elsewhere"}), FailedCode.AGENT_ERROR, "moved to"),
        (Sends(b"data: {broken\n\n"), FailedCode.AGENT_ERROR, "an event that is not a chat completion"),
        (
            Sends(b'data: {"choices": [{"delta": {"content": "\xe2\x82"}}]}\n\n'),
            FailedCode.AGENT_ERROR,
            "an event that is not a chat completion",
        ),
        (Sends(b"data: [1, 2]\n\n"), FailedCode.AGENT_ERROR, "an event that is not a chat completion"),
        (Sends(b"Hello, I am no event stream"), FailedCode.AGENT_ERROR, "closed the connection"),
    ],
)
def test_error_of_the_server_fails_with_its_code_and_advice(
    attempt_on: Prepare, turn: Any, code: FailedCode, words: str
) -> None:
    with chat_server(turn) as server:
        attempt = attempt_on(server)
        assert attempt.run() == 1

    assert failure_of(attempt)[0] is code
    assert words in failure_of(attempt)[1]


@pytest.mark.parametrize(
    "error",
    [
        Refuses(503, {"error": {"message": "Loading model"}}),
        Refuses(429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}),
        Sends(event({"content": "half an ans"}), breaks_off=True),
        Sends(event({"content": "half an ans"})),
    ],
)
def test_passing_error_is_retried(attempt_on: Prepare, error: Any) -> None:
    with chat_server(error, Says("ok")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert result_of(attempt) == "ok"


def test_unreachable_server_is_reported(attempt_on: Prepare) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    attempt = attempt_on(url)

    attempt.run()

    assert failure_of(attempt)[0] is FailedCode.AGENT_ERROR
    assert failure_of(attempt)[1] == f"the model's server at {url}/v1/ cannot be reached: Connection refused"


def test_endless_keep_alive_ends_in_a_timeout(attempt_on: Prepare) -> None:
    with chat_server(Floods(b": still here\n\n", pause_seconds=0.05)) as server:
        attempt = attempt_on(server, config={"timeout_ms": 1500})
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.TIMEOUT


@pytest.mark.parametrize("content", [b"x" * 2**20, data({"choices": [], "padding": "x" * 2**18})])
def test_endless_response_is_cut_off(attempt_on: Prepare, content: bytes) -> None:
    with chat_server(Floods(content)) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.AGENT_ERROR
    assert "more than 64 MiB" in failure_of(attempt)[1]
