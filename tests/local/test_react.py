"""A local provider that lets its model work with tools, against a scripted server, in a real attempt."""

import json
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from labrats.model.job import FailedCode
from labrats.model.protocol import ToolEvent
from labrats.processes import with_environment
from tests.local.chat_server import Calls, ChatScript, Floods, Refuses, Says, Sends, chat_server, event
from tests.local.conftest import Prepare, failure_of, result_of
from tests.unit.executor.attempts import AttemptFolder, wait_until

KEY = "sk-test-0123456789"
REACT = {"react_enabled": True}


def run_command(command: str, **arguments: Any) -> Calls:
    return Calls("run_command", {"command": command, **arguments})


def in_text(tool: str, **arguments: Any) -> Says:
    """A call as a model writes it that knows of no other way."""
    return Says(f"Sure!\n```json\n{json.dumps({'tool': tool, 'arguments': arguments})}\n```")


def no_tools(body: Mapping[str, Any]) -> Refuses | None:
    return Refuses(400, {"error": {"message": '"auto" tool choice requires a parser'}}) if "tools" in body else None


def no_tools_and_no_schema(body: Mapping[str, Any]) -> Refuses | None:
    unknown = Refuses(400, {"error": {"message": "response_format is not supported"}})
    return no_tools(body) or (unknown if "response_format" in body else None)


def tool_events(attempt: AttemptFolder) -> list[ToolEvent]:
    return [each for each in attempt.events if isinstance(each, ToolEvent)]


def answers(attempt: AttemptFolder) -> list[str]:
    """What each tool answered."""
    return [each.output for each in tool_events(attempt) if each.output is not None]


def told(server: ChatScript) -> str:
    """What the model was told in the latest message of the latest request."""
    return str(server.requests[-1]["messages"][-1]["content"])


def test_it_works_in_the_workspace_until_it_finishes(attempt_on: Prepare) -> None:
    turns = (
        Calls("write_file", {"path": "a/b.txt", "content": "one\n"}, text="I write it.\n"),
        run_command("cat a/b.txt"),
        Calls("finish", {"answer": "It says one."}),
    )
    with chat_server(*turns) as server:
        attempt = attempt_on(server, config=REACT, prompt="Write one.")
        assert attempt.run() == 0

    assert result_of(attempt) == "It says one."
    assert (attempt.workspace / "a" / "b.txt").read_text() == "one\n"
    assert attempt.logs == [
        "I write it.",
        "→ write_file: a/b.txt",
        "← Wrote 4 bytes to a/b.txt.",
        "→ run_command: cat a/b.txt",
        "← one",
    ]
    call, answer, *_ = tool_events(attempt)
    assert (call.name, call.input) == ("write_file", {"path": "a/b.txt", "content": "one\n"})
    assert (answer.id, answer.is_error) == (call.id, False)
    assert attempt.outcome.usage.turns == 3
    system, user, assistant, tool = server.requests[1]["messages"]
    assert system["role"] == "system"
    assert user == {"role": "user", "content": "Write one."}
    assert assistant["tool_calls"][0]["function"]["name"] == "write_file"
    assert tool == {"role": "tool", "tool_call_id": "call_a1", "content": "Wrote 4 bytes to a/b.txt."}


def test_a_text_after_a_call_is_the_answer_too(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Says("All done.")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "All done."


@pytest.mark.parametrize("judge", [no_tools, no_tools_and_no_schema])
def test_where_the_server_knows_no_tools_calls_are_written_in_the_text(attempt_on: Prepare, judge: Any) -> None:
    turns = (in_text("run_command", command="echo hello > out"), in_text("finish", answer="Made."))
    with chat_server(*turns, judge=judge) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "Made."
    assert (attempt.workspace / "out").read_text() == "hello\n"
    latest = server.requests[-1]
    assert "tools" not in latest
    assert ("response_format" in latest) is (judge is no_tools)
    assert latest["messages"][-1]["content"].startswith("run_command returned:\n")


def test_a_model_that_calls_no_tool_is_asked_for_json_instead(attempt_on: Prepare) -> None:
    with chat_server(
        Says("I could list the files."), in_text("list_files"), in_text("finish", answer="None.")
    ) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "None."
    assert ["tools" in request for request in server.requests] == [True, False, False]


def test_an_inner_error_of_a_server_that_knows_tools_is_no_refusal_of_them(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Refuses(500, {"error": {"message": "CUDA error"}})) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert failure_of(attempt)[1].startswith("the model's server answered 500: CUDA error")
    assert len(server.requests) == 2


def test_a_model_that_keeps_to_no_format_has_its_text_taken(attempt_on: Prepare) -> None:
    with chat_server(Says("I would rather talk.")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "I would rather talk."
    assert "That is not a tool call" in told(server)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (Calls("make_coffee", {}), "There is no tool 'make_coffee'"),
        (Calls("read_file", '{"path": "a'), "The arguments of read_file are not a JSON object"),
        (Calls("read_file", {"file": "a"}), 'unknown field `file`. It takes {"path": string'),
        (Calls("read_file", {"path": "a", "offset": "many"}), "Expected `int`"),
        (Calls("read_file", {"path": "../a"}), "not a path inside the workspace"),
        (Calls("finish", {}), "missing required field `answer`"),
    ],
)
def test_a_bad_call_is_answered_with_what_would_be_right(attempt_on: Prepare, call: Calls, words: str) -> None:
    with chat_server(call, Says("ok")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert words in told(server)
    assert json.loads(server.requests[-1]["messages"][-2]["tool_calls"][0]["function"]["arguments"]) in (
        {},
        call.arguments,
    )
    assert result_of(attempt) == "ok"


@pytest.mark.parametrize("command", ["echo same", "seq 1 5000"])
def test_the_same_call_over_and_over_is_pointed_out_and_then_ended(attempt_on: Prepare, command: str) -> None:
    with chat_server(run_command(f"echo tick >> ticks; {command}")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.AGENT_ERROR
    assert "keeps repeating the same calls" in failure_of(attempt)[1]
    assert (attempt.workspace / "ticks").read_text() == "tick\n" * 2
    assert "was not executed" in told(server)


def test_a_test_may_be_run_again_after_each_change(attempt_on: Prepare) -> None:
    tries = [
        each for number in range(6) for each in (run_command("echo fails"), run_command(f"sed -i s/x/{number}/ code"))
    ]
    with chat_server(*tries, Says("ok")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "ok"
    assert answers(attempt).count("fails\n") == 6


def test_an_empty_answer_is_asked_for_once_more(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Says(""), Says("I ran true.")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "I ran true."
    assert "Your answer is empty" in told(server)


def test_a_model_that_says_nothing_at_all_has_told_by_what_it_did(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Calls("finish", {"answer": " "}), Says("")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert "run_command 1 times" in result_of(attempt)


def test_too_many_turns_are_a_failure_that_says_what_was_done(attempt_on: Prepare) -> None:
    turns = [run_command(f"echo {number} >> done") for number in range(5)]
    with chat_server(*turns) as server:
        attempt = attempt_on(server, config=REACT | {"max_turns": 3})
        attempt.run()

    code, message = failure_of(attempt)
    assert code is FailedCode.MAX_TURNS
    assert "config.maxTurns" in message
    assert "run_command 3 times" in message
    assert (attempt.workspace / "done").read_text() == "0\n1\n2\n"


def test_the_limit_on_tokens_ends_it_and_what_was_done_is_in_the_log(attempt_on: Prepare) -> None:
    with chat_server(run_command("echo x >> done")) as server:
        attempt = attempt_on(server, config=REACT | {"max_tokens": 150})
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.BUDGET
    assert attempt.logs[-1] == "[ended before completion; so far: 2 turns, run_command 1 times]"


def test_what_no_longer_fits_the_models_window_is_left_out(attempt_on: Prepare) -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 10}
    turns = [Calls("run_command", {"command": f"seq {n}00000 {n}00400"}, usage=usage) for n in range(1, 9)]
    models = {"data": [{"id": "test-model", "max_model_len": 4096}]}
    with chat_server(*turns, Says("ok"), models=models) as server:
        attempt = attempt_on(server, config=REACT, prompt="Count.")
        attempt.run()

    assert result_of(attempt) == "ok"
    _, user, *_ = server.requests[-1]["messages"]
    assert user["content"] == "Count."
    assert max(len(str(request["messages"])) for request in server.requests) < 4096 * 3
    assert "omitted: this result is old" in str(server.requests[-1]["messages"])
    assert "800000" in told(server)


def test_a_context_that_the_server_finds_too_long_is_shortened(attempt_on: Prepare) -> None:
    def judge(body: dict[str, Any]) -> Refuses | None:
        too_long = Refuses(400, {"error": {"message": "maximum context length is 2000 tokens"}})
        return too_long if len(str(body["messages"])) > 6000 else None

    turns = [run_command(f"seq {n}0000 {n}0300") for n in range(1, 7)]
    with chat_server(*turns, Says("ok"), judge=judge) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "ok"


def test_a_prompt_that_never_fits_is_a_failure(attempt_on: Prepare) -> None:
    with chat_server(Refuses(400, {"error": {"message": "maximum context length is 10 tokens"}})) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.CONTEXT_TOO_LONG


def test_a_server_that_counts_the_answer_in_is_asked_for_a_shorter_one(attempt_on: Prepare) -> None:
    def judge(body: dict[str, Any]) -> Refuses | None:
        too_long = Refuses(400, {"error": {"message": "maximum context length is 8192 tokens, you asked for more"}})
        return too_long if body["max_tokens"] > 1000 else None

    with chat_server(Calls("finish", {"answer": "ok"}), judge=judge) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "ok"


@pytest.mark.parametrize(
    "command", ["setsid {} &", "{} & disown", "(setsid sh -c '{} & sleep 300' &); until [ -s pid ]; do :; done; kill 0"]
)
def test_a_command_that_forks_away_leaves_nothing_running(attempt_on: Prepare, unique_name: str, command: str) -> None:
    left = command.replace("{}", 'sh -c "echo \\$\\$ > pid; exec sleep 300"')
    turns = (
        run_command(f"{left}\nuntil [ -s pid ]; do :; done"),
        run_command("grep -q sleep /proc/$(cat pid)/cmdline && echo it lives || echo it is gone"),
        Says("ok"),
    )
    with chat_server(*turns) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert answers(attempt)[1].endswith("it is gone\n")
    assert result_of(attempt) == "ok"
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


@pytest.mark.parametrize("command", ["sleep 300", "setsid sleep 300 & sleep 300", "trap '' TERM INT; sleep 300"])
def test_asked_to_stop_it_ends_the_command_that_runs(attempt_on: Prepare, unique_name: str, command: str) -> None:
    with chat_server(run_command(f"touch started; {command}")) as server:
        attempt = attempt_on(server, config=REACT)
        with attempt.started() as process:
            wait_until((attempt.workspace / "started").exists, "the command runs")
            process.send_signal(signal.SIGTERM)
            process.wait()

    assert failure_of(attempt) == (FailedCode.AGENT_ERROR, "stopped on request")
    assert attempt.logs[-1].startswith("[ended before completion; so far: 1 turns, run_command 1 times")
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_no_command_and_no_file_of_the_attempt_has_the_key(attempt_on: Prepare) -> None:
    with chat_server(run_command("env; ls -R ..; grep -r sk-test .. || echo nowhere"), Says("ok")) as server:
        attempt = attempt_on(server, config=REACT, secrets={"OPENAI_API_KEY": KEY})
        attempt.run()

    [answer] = answers(attempt)
    assert "redacted" not in answer
    assert "nowhere" in answer
    assert server.headers["Authorization"] == f"Bearer {KEY}"


def test_a_stream_that_breaks_off_within_a_call_is_asked_for_again(attempt_on: Prepare) -> None:
    call = {"index": 0, "id": "x", "function": {"name": "run_command", "arguments": '{"comm'}}
    with chat_server(
        Sends(event({"tool_calls": [call]}), breaks_off=True), run_command("echo x >> done"), Says("ok")
    ) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "ok"
    assert (attempt.workspace / "done").read_text() == "x\n"


def test_a_server_that_drips_ends_in_a_timeout_that_says_what_was_done(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Floods(b": still here\n\n", pause_seconds=0.05)) as server:
        attempt = attempt_on(server, config=REACT | {"timeout_ms": 3000})
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.TIMEOUT
    assert attempt.logs[-1] == "[ended before completion; so far: 1 turns, run_command 1 times]"


def test_a_flood_of_calls_is_cut(attempt_on: Prepare) -> None:
    calls = [
        {
            "index": n,
            "id": f"c{n}",
            "function": {"name": "run_command", "arguments": json.dumps({"command": f"echo {n}"})},
        }
        for n in range(500)
    ]
    flood = Sends(event({"tool_calls": calls}, finish_reason="tool_calls") + b"data: [DONE]\n\n")
    with chat_server(flood, Says("ok")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "ok"
    assert len(answers(attempt)) == 16
